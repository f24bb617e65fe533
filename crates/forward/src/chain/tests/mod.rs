//! Chains through proxies that the test plays, word by word.

mod datagrams;
mod hops;
mod http;
mod parents;
mod socks;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_testkit::{Backend, Conn};
use wmproxy_upstream::{GroupSpec, Registry, Resolver};
use wmproxy_wire::destination::Host;
use wmproxy_wire::units::Secret;

use super::*;
use crate::options::{HopKind, HopSpec};

/// What a proxy is to be told, and what it answers.
type Script<'a> = &'a [(&'a [u8], &'a [u8])];

/// Stands for what this process is called in `Via`, as long as that.
const US: &str = "wmproxy-............";

/// Puts in the name that scripts can't know.
fn named(text: &[u8]) -> Vec<u8> {
    let name = wmproxy_http::forward::pseudonym();
    assert_eq!(name.len(), US.len());
    let mut text = text.to_vec();
    if let Some(at) = text.windows(US.len()).position(|part| part == US.as_bytes()) {
        text[at..at + US.len()].copy_from_slice(name.as_bytes());
    }
    text
}

/// A proxy that goes by a script, and then sends back what it gets. Who says something else is hung up on.
fn proxy(script: Script<'_>) -> Backend {
    let script: Vec<_> = script.iter().map(|(expected, answer)| (named(expected), answer.to_vec())).collect();
    Backend::start(move |conn| {
        for (expected, answer) in &script {
            let said = conn.recv(expected.len());
            if said != *expected {
                return Err(io::Error::other(format!("{said:?} in place of {expected:?}")));
            }
            conn.send(answer);
        }
        echo(conn)
    })
}

fn echo(conn: &Conn) -> io::Result<u64> {
    let mut byte = [0; 1];
    while io::Read::read(&mut conn.socket(), &mut byte)? > 0 {
        conn.try_send(&byte)?;
    }
    Ok(0)
}

/// A port that refuses, as long as it is kept.
fn refusing() -> (std::net::TcpListener, SocketAddr) {
    // Bound by nobody else, for this one holds the same port of another address.
    let held = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], held.local_addr().unwrap().port()));
    (held, address)
}

fn name(host: &str, port: u16) -> Destination {
    Destination { host: Host::Name(host.into()), port }
}

fn hop(kind: HopKind, address: SocketAddr) -> HopSpec {
    HopSpec { kind, address: address.into(), credentials: None, tls: None, multiplex: false }
}

fn to(kind: HopKind, proxy: &Backend) -> HopSpec {
    hop(kind, proxy.addr().inet())
}

fn with_password(hop: HopSpec, user: &str, password: &str) -> HopSpec {
    HopSpec { credentials: Some((user.into(), Some(Secret::new(password).unwrap()))), ..hop }
}

/// Makes what chains are made of, and remembers the groups.
#[derive(Debug, Default)]
struct Shop {
    registry: Registry,
    specs: HashMap<Arc<str>, GroupSpec>,
    groups: HashMap<Arc<str>, Arc<Group>>,
}

impl Workshop for Shop {
    type Error = String;

    fn group(&mut self, name: &Arc<str>, via: Option<Arc<dyn Connect>>) -> Result<Arc<Group>, String> {
        let mut spec = self.specs[name].clone();
        spec.via = via.as_ref().map(|_| "c".into());
        let group = self.registry.build_through(spec, [None, None], via);
        self.groups.insert(Arc::clone(name), Arc::clone(&group));
        Ok(group)
    }

    fn connector(&mut self, spec: &ConnectorSpec) -> Result<Arc<Connector>, String> {
        let loaded = Connector::load(spec.clone()).map_err(|fault| format!("{fault:?}"))?;
        Ok(Arc::new(loaded.0))
    }
}

impl Shop {
    /// A chain of hops, each with its parents.
    fn chain(&mut self, hops: Vec<Vec<HopSpec>>, timeout: Duration) -> Arc<Chain> {
        let hops = hops.into_iter().enumerate().map(|(index, parents)| {
            let group: Arc<str> = format!("c/{index}").into();
            let targets = parents.iter().map(|hop| hop.address.to_string().parse().unwrap()).collect();
            self.specs.insert(group.clone(), GroupSpec::inline(group.clone(), targets));
            ParentGroupSpec { parents, group }
        });
        let spec = ChainSpec { name: "c".into(), hops: hops.collect(), connect_timeout: timeout };
        let (finder, lookups) = Finder::new(Arc::new(Resolver::new(&[])));
        // Names that need none are found without it.
        drop(lookups);
        Chain::new(&spec, &finder, self).unwrap()
    }

    fn group(&self, index: usize) -> &Arc<Group> {
        &self.groups[format!("c/{index}").as_str()]
    }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

/// One hop with one parent.
fn single(hop: HopSpec) -> Arc<Chain> {
    Shop::default().chain(vec![vec![hop]], LONG)
}

fn on_worker<F: Future>(test: F) -> F::Output {
    tokio::runtime::LocalRuntime::new().unwrap().block_on(test)
}

async fn send(stream: &Stream, mut data: &[u8]) {
    while !data.is_empty() {
        data = &data[poll_fn(|cx| stream.poll_write(cx, data)).await.unwrap()..];
    }
}

async fn recv(stream: &Stream, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    let mut at = 0;
    while at < len {
        match poll_fn(|cx| stream.poll_read(cx, &mut got[at..])).await.unwrap() {
            0 => panic!("the end behind {:?}", &got[..at]),
            n => at += n,
        }
    }
    got
}

/// Connects, and sees that bytes pass both ways behind those that came with the consent.
fn passes(chain: &Chain, to: &Destination, early: &[u8]) {
    on_worker(async {
        let stream = chain.connect(to).await.unwrap();
        assert_eq!(recv(&stream, early.len()).await, early);
        send(&stream, b"there and back").await;
        assert_eq!(recv(&stream, 14).await, b"there and back");
        assert!(stream.can_splice(), "nothing stands between the socket and the relay any more");
    });
}

/// How it fails to connect.
fn fails(chain: &Chain, to: &Destination) -> ConnectError {
    let error = on_worker(chain.connect(to)).unwrap_err();
    assert!(!error.text.contains("secret"), "{error}");
    error
}

fn fault(script: Script<'_>, kind: HopKind) -> (Fault, String) {
    let proxy = proxy(script);
    let error = fails(&single(to(kind, &proxy)), &name("a.test", 80));
    let text = error.text.strip_prefix(&format!("proxy 1 ({}://{}) ", kind.as_str(), proxy.addr().inet()));
    (error.fault, text.unwrap_or_else(|| panic!("{error}")).to_owned())
}
