//! The load generators. Each does a fixed amount of work and checks every answer.
//!
//! How one runs: it connects and warms up, prints `ready`, waits for a line, does the work, prints a `LoadReport` as
//! JSON, and holds its connections until its stdin ends. The runner reads the proxy's counters between those lines.

mod bulk;
mod door;
mod http;
mod idle;
mod setup;
mod tcp_small;
mod tls;
mod udp;
mod udp_flows;

use std::io::BufRead;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli::LoadArgs;
use crate::quic;
use crate::scenario::Kind;

/// A blocking read or write that takes longer means that the proxy under test has stalled.
const STALL: Duration = Duration::from_secs(10);

/// Neighbouring HTTP requests ask for bytes that begin so far apart, so that an answer to another one shows.
pub(crate) const STEP: u64 = 64;

/// What a load generator saw.
#[derive(Serialize, Deserialize)]
pub(crate) struct LoadReport {
    /// Work that was answered rightly.
    pub(crate) done: u64,
    /// Work that got no answer. Only datagrams may be lost; anywhere else that is an error.
    pub(crate) lost: u64,
    pub(crate) seconds: f64,
    /// Time from request to answer, or to the beginning of a listing, where that is measured.
    pub(crate) latency: Option<Latency>,
}

/// Microseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Until the first entry of a listing has come, the median.
    #[serde(default)]
    pub(crate) entry: Option<f64>,
}

/// How many datagrams may be lost before a run has failed.
struct Losses {
    most: u64,
    /// What had come back at the last look, and since when it is no more.
    done: u64,
    since: Instant,
}

impl Losses {
    /// What has not come back when nothing at all has come for so long is lost. Shorter than that, and a machine that stands
    /// still for a moment makes losses of what is under way: the next window comes on top of it, and the kernel drops both.
    const AFTER: Duration = Duration::from_secs(1);

    fn of(work: u64, share: f64) -> Self {
        Losses { most: (work as f64 * share) as u64, done: 0, since: Instant::now() }
    }

    /// To be asked when some were given up.
    ///
    /// # Errors
    /// When more than the share is lost, and when nothing comes back at all.
    fn judge(&mut self, done: u64, lost: u64) -> Result<()> {
        if lost > self.most {
            bail!("{lost} of {} datagrams lost", lost + done);
        }
        if done > self.done {
            (self.done, self.since) = (done, Instant::now());
        } else if self.since.elapsed() > STALL {
            bail!("stalled: no datagram has come back for {} s", STALL.as_secs());
        }
        Ok(())
    }
}

/// The role `load`.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    match args.kind {
        Kind::TcpSmall => tcp_small::run(args),
        Kind::BulkDown | Kind::BulkUp => bulk::run(args),
        Kind::Udp => udp::run(args),
        Kind::UdpFlows => udp_flows::run(args),
        Kind::Quic => quic::fetch(args),
        Kind::Idle => idle::run(args),
        Kind::TlsHandshake => tls::handshakes(args),
        Kind::TlsBulkDown | Kind::TlsBulkUp => tls::bulk(args),
        Kind::TlsIdle => tls::idle(args),
        Kind::Setup | Kind::SetupProxied | Kind::SetupHello => setup::run(args),
        Kind::HttpGet | Kind::HttpPost | Kind::HttpLong | Kind::HttpTls => http::keep_alive(args),
        Kind::FileGet | Kind::FileTls | Kind::FileUnchanged | Kind::FileDistinct => http::keep_alive(args),
        Kind::FileListing => http::listing(args),
        Kind::HttpConnect => http::connect(args),
        Kind::HttpIdle | Kind::HttpTlsIdle => http::idle(args),
        Kind::HttpPaced => http::paced(args),
        Kind::HttpH2 => http::h2(args),
    }
}

/// Says that the warm-up is over and waits for the word to start.
pub(crate) fn await_start() -> Result<()> {
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Hands the report over and waits until the runner has read what it wants from the proxy.
pub(crate) fn deliver(report: &LoadReport) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(target).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(stream)
}

/// The percentiles of `nanos`, which is sorted for it.
fn latency(nanos: &mut [u32]) -> Option<Latency> {
    nanos.sort_unstable();
    let at = |share: f64| nanos.get((nanos.len() as f64 * share) as usize).map(|ns| f64::from(*ns) / 1e3);
    Some(Latency { p50: at(0.50)?, p99: at(0.99)?, entry: None })
}

fn nanos_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
}
