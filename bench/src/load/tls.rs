//! The same work through TLS, which the proxy ends: handshakes, long transfers, and sessions that go idle.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{LoadReport, await_start, connect, deliver, latency, nanos_since};
use crate::backend::{BULK_HEAD, DOWN, RIGHT, UP, receive_pattern, send_pattern};
use crate::cli::LoadArgs;
use crate::identity;
use crate::pattern::message;
use crate::scenario::Kind;

pub(super) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that takes up no earlier session, so that every handshake is a whole one. It offers X25519 alone, which
/// every proxy has: the hybrid that rustls prefers is more work than the others could do. So with the cipher, which all of
/// them would choose by themselves.
pub(super) fn config(args: &LoadArgs, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(identity::files(&args.dir).0)?)?;
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

pub(super) fn open(config: &Arc<ClientConfig>, target: SocketAddr) -> Result<Tls> {
    let mut socket = connect(target)?;
    let mut session = ClientConnection::new(config.clone(), ServerName::try_from(identity::NAME)?)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).context("handshake")?;
    }
    Ok(StreamOwned::new(session, socket))
}

fn exchange(stream: &mut Tls, size: usize, seq: u64) -> Result<()> {
    let message = message(size, 0, seq);
    stream.write_all(&message)?;
    stream.flush()?;
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    if answer != message {
        bail!("an echo differs from what was sent");
    }
    Ok(())
}

fn close(mut stream: Tls) -> Result<()> {
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}

/// Connections one after the other on each thread: handshake, one exchange, close.
pub(super) fn handshakes(args: &LoadArgs) -> Result<()> {
    let config = config(args, &[])?;
    play(args, &config, args.warmup)?;
    await_start()?;
    let start = Instant::now();
    let mut nanos = play(args, &config, args.work)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

fn play(args: &LoadArgs, config: &Arc<ClientConfig>, work: u64) -> Result<Vec<u32>> {
    let taken = AtomicU64::new(0);
    let client = || {
        let mut nanos = Vec::new();
        loop {
            let seq = taken.fetch_add(1, Ordering::Relaxed);
            if seq >= work {
                return Ok(nanos);
            }
            let opened = Instant::now();
            let mut stream = open(config, args.target)?;
            exchange(&mut stream, args.size, seq)?;
            close(stream)?;
            nanos.push(nanos_since(opened));
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..args.parallel).map(|_| scope.spawn(client)).collect();
        let mut nanos = Vec::new();
        for client in clients {
            let done: Result<Vec<u32>> = client.join().map_err(|_| anyhow!("a client panicked"))?;
            nanos.extend(done?);
        }
        Ok(nanos)
    })
}

/// Long transfers, one blocking thread a connection.
pub(super) fn bulk(args: &LoadArgs) -> Result<()> {
    let config = config(args, &[])?;
    let direction = if args.kind == Kind::TlsBulkUp { UP } else { DOWN };
    let share = args.work / args.parallel as u64;
    await_start()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let transfer = || transfer(open(&config, args.target)?, direction, share);
        let transfers: Vec<_> = (0..args.parallel).map(|_| scope.spawn(transfer)).collect();
        transfers.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a transfer panicked"))?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: share * args.parallel as u64, lost: 0, seconds, latency: None })
}

fn transfer(mut stream: Tls, direction: u8, len: u64) -> Result<()> {
    let mut head = [direction; BULK_HEAD];
    head[1..].copy_from_slice(&len.to_le_bytes());
    stream.write_all(&head)?;
    let right = if direction == DOWN {
        receive_pattern(&mut stream, len)?
    } else {
        send_pattern(&mut stream, len)?;
        stream.flush()?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        answer[0] == RIGHT
    };
    if !right {
        bail!("the bytes that arrived are not those that were sent");
    }
    close(stream)
}

/// Sessions that say one thing and then nothing.
pub(super) fn idle(args: &LoadArgs) -> Result<()> {
    let config = config(args, &[])?;
    await_start()?;
    let start = Instant::now();
    let mut sessions = Vec::new();
    for seq in 0..args.work {
        let mut stream = open(&config, args.target)?;
        exchange(&mut stream, args.size, seq)?;
        sessions.push(stream);
    }
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: None })
}
