//! `wmproxy ws-proxy`: a bridge between TCP and WebSocket, told by the command line alone.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};
use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol, TargetSpec};
use wmproxy_net::options::OneOrMany;
use wmproxy_net::tls::{PeerTls, PeerTlsOptions};
use wmproxy_stream::bridge::options::{BridgeMode, BridgeSpec};
use wmproxy_stream::bridge::url::BridgeUrl;
use wmproxy_stream::options::StreamOptions;
use wmproxy_upstream::GroupOptions;
use wmproxy_upstream::options::ServerOptions;
use wmproxy_wire::units::{HumanDuration, Secret};

use crate::cli::Cli;
use crate::config::options::Options;

/// What a bridge is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct WsProxyArgs {
    /// Where to listen: HOST:PORT, :PORT or unix:/path
    #[arg(short, long, value_name = "LISTEN", value_parser = listen)]
    from: ListenSpec,
    /// Where to connect: HOST:PORT or unix:/path
    #[arg(short, long, value_name = "TARGET", value_parser = target)]
    to: AddressSpec,
    /// Which side is the WebSocket
    #[arg(long, value_enum)]
    mode: ModeArg,
    /// The host to ask for, or with ws2tcp the one that clients have to ask for [default: that of TARGET, or any]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The path to ask for, or with ws2tcp the one that clients have to ask for [default: /, or any]
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<String>,
    /// A subprotocol to offer or grant; may be repeated [default: none to offer, `binary` to grant]
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// A field to add to the handshake; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, Secret)>,
    /// Trust the certificates in this PEM file instead of the system's; with tcp2wss
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Believe whoever answers; with tcp2wss
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Ping the other end of the WebSocket so often, and cut it off when it does not answer
    #[arg(long, value_name = "TIME")]
    ping: Option<HumanDuration>,
}

/// Which side is the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// The clients'
    Ws2tcp,
    /// The server's
    Tcp2ws,
    /// The server's, with TLS
    Tcp2wss,
}

impl WsProxyArgs {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let wrong = |message: String| Cli::command().error(ErrorKind::ValueValidation, message);
        if self.mode != ModeArg::Tcp2wss && (self.ca.is_some() || self.insecure) {
            return Err(wrong("--ca and --insecure are for --mode tcp2wss".to_owned()));
        }
        if self.mode != ModeArg::Ws2tcp {
            self.url().map_err(wrong)?;
        }
        // The config says the same, but not in the words of the command line.
        let problems = BridgeSpec::new(&self.stream()).err().unwrap_or_default();
        match problems.into_iter().next() {
            Some((key, message)) => Err(wrong(format!("--{}: {message}", flag(key)))),
            None => Ok(()),
        }
    }

    /// What a client of a WebSocket server asks for.
    fn url(&self) -> Result<BridgeUrl, String> {
        let scheme = if self.mode == ModeArg::Tcp2wss { "wss" } else { "ws" };
        let path = self.path.as_deref().unwrap_or("/");
        let host = match (&self.host, &self.to) {
            (Some(host), _) => host.clone(),
            (None, AddressSpec::Unix(_)) => "localhost".to_owned(),
            (None, address) => address.to_string(),
        };
        format!("{scheme}://{host}{path}").parse().map_err(|error| format!("--host {host}: {error}"))
    }

    /// The same as a config. Who runs it has asked [`check`](Self::check) before.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options { stream: vec![self.stream()], ..Options::default() };
        if self.mode == ModeArg::Tcp2wss {
            let host = self.url().map_or(String::new(), |url| url.host().to_owned());
            let tls = PeerTlsOptions {
                server_name: Some(host),
                ca: self.ca.clone(),
                insecure_skip_verify: self.insecure,
                ..PeerTlsOptions::default()
            };
            let group = GroupOptions {
                servers: vec![ServerOptions::new(self.to.clone())],
                tls: PeerTls::On(Box::new(tls)),
                ..GroupOptions::default()
            };
            options.upstream.insert(GROUP.to_owned(), group);
        }
        options
    }

    fn stream(&self) -> StreamOptions {
        let many = |one: &Option<String>| OneOrMany(one.iter().cloned().collect());
        let target = if self.mode == ModeArg::Tcp2wss { GROUP.to_owned() } else { self.to.to_string() };
        let stream = StreamOptions {
            listen: Some(OneOrMany(vec![self.from.clone()])),
            upstream: Some(OneOrMany(vec![target])),
            bridge_subprotocol: OneOrMany(self.subprotocol.clone()),
            bridge_headers: self.header.iter().cloned().collect(),
            bridge_ping: self.ping,
            ..StreamOptions::default()
        };
        match self.mode {
            ModeArg::Ws2tcp => StreamOptions {
                bridge: Some(BridgeMode::Ws2tcp),
                bridge_host: many(&self.host),
                bridge_path: self.path.clone(),
                ..stream
            },
            ModeArg::Tcp2ws | ModeArg::Tcp2wss => {
                StreamOptions { bridge: Some(BridgeMode::Tcp2ws), bridge_url: self.url().ok(), ..stream }
            }
        }
    }
}

/// The upstream of a bridge with TLS.
const GROUP: &str = "server";

/// The flag that a key of the config is said by.
fn flag(key: &str) -> &str {
    match key {
        "bridge_headers" => "header",
        key => key.strip_prefix("bridge_").unwrap_or("mode"),
    }
}

fn listen(text: &str) -> Result<ListenSpec, String> {
    let listen: ListenSpec = text.parse().map_err(|error| format!("{error}"))?;
    match listen.protocol {
        Protocol::Tcp => Ok(listen),
        Protocol::Udp => Err("a bridge is for tcp".to_owned()),
    }
}

fn target(text: &str) -> Result<AddressSpec, String> {
    if text.contains("://") {
        return Err("a target has no scheme: --mode, --host and --path say the rest of the URL".to_owned());
    }
    let target: AddressSpec = text.parse().map_err(|error| format!("{error}"))?;
    TargetSpec::expand(&target).map_err(|error| error.to_string())?;
    if target.count() == 1 { Ok(target) } else { Err("one port, not a range".to_owned()) }
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".to_owned()) }
}

fn header(text: &str) -> Result<(String, Secret), String> {
    let (name, value) = text.split_once(':').ok_or("expected \"NAME: VALUE\"")?;
    let value = Secret::new(value.trim()).map_err(|_| "the value is empty")?;
    Ok((name.trim().to_owned(), value))
}
