//! Both ends of a bulk transfer over QUIC: a sender that hands the kernel whole trains of datagrams (GSO).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tokio::task::JoinSet;

use crate::cli::LoadArgs;
use crate::identity;
use crate::load::{LoadReport, await_start, deliver};
use crate::pattern::{Pattern, seq_of};

/// Bytes handed to QUIC or taken from it at a time.
const CHUNK: usize = 64 * 1024;

/// The role of the origin: every stream opens with a number of bytes and gets as many of the pattern.
#[expect(clippy::disallowed_methods, reason = "the proxy's scopes are not for its load")]
pub(crate) fn serve(dir: &Path) -> Result<()> {
    let (cert, key) = identity::files(dir);
    let cert = CertificateDer::from_pem_file(cert)?;
    let config = ServerConfig::with_single_cert(vec![cert], PrivateKeyDer::from_pem_file(key)?)?;
    runtime()?.block_on(async {
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
        println!("{}", endpoint.local_addr()?.port());
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                // Who leaves in the middle is the load generator that was ended.
                if let Ok(connection) = incoming.await {
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        tokio::spawn(give(send, receive));
                    }
                }
            });
        }
        Ok(())
    })
}

async fn give(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut head = [0; 8];
    receive.read_exact(&mut head).await?;
    let len = seq_of(&head);
    let pattern = Pattern::new(CHUNK);
    let mut sent = 0;
    while sent < len {
        sent += send.write(pattern.at(sent, len - sent)).await? as u64;
    }
    Ok(send.finish()?)
}

/// The load: each connection fetches its share of the bytes, and checks them.
pub(crate) fn fetch(args: &LoadArgs) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(identity::files(&args.dir).0)?)?;
    let config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    runtime()?.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..args.parallel {
            // Each from a port of its own, as several clients would come.
            let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            endpoint.set_default_client_config(config.clone());
            connections.push(endpoint.connect(args.target, identity::NAME)?.await.context("connect")?);
        }
        let share = |work: u64| work / args.parallel as u64;
        fetch_all(&connections, share(args.warmup)).await?;
        await_start()?;
        let start = Instant::now();
        let done = fetch_all(&connections, share(args.work)).await?;
        let seconds = start.elapsed().as_secs_f64();
        deliver(&LoadReport { done, lost: 0, seconds, latency: None })
    })
}

async fn fetch_all(connections: &[Connection], len: u64) -> Result<u64> {
    let mut transfers = JoinSet::new();
    for connection in connections {
        transfers.spawn(fetch_one(connection.clone(), len));
    }
    let mut total = 0;
    while let Some(done) = transfers.join_next().await {
        total += done??;
    }
    Ok(total)
}

async fn fetch_one(connection: Connection, len: u64) -> Result<u64> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&len.to_le_bytes()).await?;
    send.finish()?;
    let pattern = Pattern::new(CHUNK);
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    while let Some(got) = receive.read(&mut buffer).await? {
        if !pattern.agrees(received, &buffer[..got]) {
            bail!("the bytes differ from what was sent");
        }
        received += got as u64;
    }
    if received != len {
        bail!("{received} bytes came instead of {len}");
    }
    Ok(received)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
