//! `wmproxy ws-proxy`: a bridge between TCP and WebSocket, told by the command line alone.

use std::collections::BTreeMap;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};
use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol, TargetSpec};
use wmproxy_net::options::OneOrMany;
use wmproxy_stream::bridge::options::BridgeMode;
use wmproxy_stream::bridge::url::BridgeUrl;
use wmproxy_stream::options::StreamOptions;
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
        if self.mode != ModeArg::Ws2tcp {
            self.url().map_err(wrong)?;
        }
        Ok(())
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
        let many = |one: &Option<String>| OneOrMany(one.iter().cloned().collect());
        let headers: BTreeMap<String, Secret> = self.header.iter().cloned().collect();
        let mut stream = StreamOptions {
            listen: Some(OneOrMany(vec![self.from.clone()])),
            upstream: Some(OneOrMany(vec![self.to.to_string()])),
            bridge_subprotocol: OneOrMany(self.subprotocol.clone()),
            bridge_headers: headers,
            bridge_ping: self.ping,
            ..StreamOptions::default()
        };
        if self.mode == ModeArg::Ws2tcp {
            stream.bridge = Some(BridgeMode::Ws2tcp);
            stream.bridge_host = many(&self.host);
            stream.bridge_path = self.path.clone();
        } else {
            stream.bridge = Some(BridgeMode::Tcp2ws);
            stream.bridge_url = self.url().ok();
        }
        Options { stream: vec![stream], ..Options::default() }
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
