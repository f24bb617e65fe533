//! `wmproxy tunnel server`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use clap::Args;
use wmproxy_net::addr::{Address, AddressSpec, Host};
use wmproxy_net::options::OneOrMany;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_net::tls::Fingerprint;
use wmproxy_tunnel::options::{GrantOptions, PortRange, ServerOptions, TransportKind, host_pattern};
use wmproxy_wire::units::Secret;

use super::CLIENT;
use super::key::{self, Key, Origin};
use crate::config::options::Options;
use crate::config::{NAMES, is_name};

/// Ports below these belong to the system by custom, and to root by right.
const PORTS: PortRange = PortRange { first: 1024, last: u16::MAX };

/// Where browsers go for `http://`.
const HTTP_PORT: u16 = 80;

/// Stands for this machine where it does not know by what others reach it.
const THIS_HOST: &str = "THIS-HOST";

/// What a tunnel server is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct TunnelServerArgs {
    /// Where clients log in, over TCP and QUIC: HOST:PORT or :PORT; may be repeated
    #[arg(short, long, value_name = "LISTEN", default_value = ":7000")]
    listen: Vec<AddressSpec>,
    /// Where visitors ask for services by host over http [default: :80 where nobody has it, if LISTEN names no host]
    #[arg(long, value_name = "LISTEN")]
    http: Vec<AddressSpec>,
    /// Leave :80 alone
    #[arg(long, conflicts_with = "http")]
    no_http: bool,
    /// Where visitors ask for services by host over https, such as :443
    #[arg(long, value_name = "LISTEN")]
    https: Vec<AddressSpec>,
    /// The name of the client
    #[arg(long, value_name = "NAME", default_value = CLIENT, value_parser = client_name)]
    client: String,
    /// The ports that the client may open: a port or a range; may be repeated [default: 1024-65535]
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<PortRange>,
    /// The hosts that the client may answer for, such as '*.example.com'; may be repeated [default: any]
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', value_parser = host)]
    hosts: Vec<String>,
    /// The client's key. Everybody on this machine sees it; WMPROXY_KEY and --key-file keep it to you. Without any, one is
    /// made, kept and printed
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<Secret>,
    /// Read the client's key from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The name or address under which this machine is reached, to be told to clients
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// How clients may come: tcp, quic, or both
    #[arg(long, value_name = "TRANSPORT", value_delimiter = ',', value_parser = super::client::transport)]
    transport: Vec<TransportKind>,
    /// Use the certificate in this PEM file instead of one of its own
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<String>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<String>,
    /// The key, once it is known.
    #[arg(skip)]
    known: Option<Key>,
    /// Why nobody asks for services by host, though nobody has said so.
    #[arg(skip)]
    no_port_80: Option<String>,
}

impl TunnelServerArgs {
    /// Finds out the client's key, or makes one; and whether visitors can ask for services by host.
    ///
    /// # Errors
    /// It can't be read or kept.
    pub(crate) fn prepare(&mut self) -> anyhow::Result<()> {
        let told = key::told(self.key.as_ref(), self.key_file.as_deref())?;
        self.key = None;
        self.known = Some(match told {
            Some(key) => key,
            None => key::kept(&self.client)?,
        });
        self.choose_http(HTTP_PORT);
        Ok(())
    }

    /// Who gives the server every address of the machine and says nothing of http has `port` served, if nobody else has it.
    fn choose_http(&mut self, port: u16) {
        let everywhere = |listen: &AddressSpec| matches!(listen, AddressSpec::Inet { host: Host::Any, .. });
        let is_told = self.no_http || !self.http.is_empty() || !self.https.is_empty();
        if is_told || !self.listen.iter().any(everywhere) {
            return;
        }
        match can_listen(port) {
            Ok(()) => {
                self.http.push(AddressSpec::Inet { host: Host::Any, first_port: port, last_port: port })
            }
            Err(error) => self.no_port_80 = Some(format!("port {port}: {error}")),
        }
    }

    /// The same as a config. Who runs it has asked [`prepare`](Self::prepare) before.
    pub(crate) fn options(&self) -> Options {
        let grant = GrantOptions {
            key: self.known.as_ref().map(|key| key.secret.clone()),
            ports: OneOrMany(if self.ports.is_empty() { vec![PORTS] } else { self.ports.clone() }),
            hosts: OneOrMany(match self.hosts.as_slice() {
                // Also where nobody asks for any: a client is told that, then, and not of grants.
                [] => vec!["*".to_owned()],
                hosts => hosts.to_vec(),
            }),
            ..GrantOptions::default()
        };
        let mut server = ServerOptions {
            listen: Some(OneOrMany(self.listen.clone())),
            http: OneOrMany(self.http.clone()),
            https: OneOrMany(self.https.clone()),
            cert: self.cert.clone(),
            key: self.cert_key.clone(),
            advertise: self.advertise.clone(),
            clients: BTreeMap::from([(self.client.clone(), grant)]),
            ..ServerOptions::default()
        };
        if !self.transport.is_empty() {
            server.transports = OneOrMany(self.transport.clone());
        }
        Options { tunnel_server: Some(server), ..Options::default() }
    }

    /// What to run at the other end, for people; told once it listens. `fingerprint` is what clients know the server by.
    pub(crate) fn banner<'a>(
        &self,
        mut listeners: impl Iterator<Item = &'a ListenerMetrics>,
        fingerprint: Option<[u8; 32]>,
    ) -> String {
        let bound = listeners.find_map(|listener| match (&*listener.name, &listener.address) {
            ("tunnel", Address::Inet(address)) => Some(*address),
            _ => None,
        });
        let mut text = "\nThe tunnel server is ready. At home run:\n\n  wmproxy tunnel client".to_owned();
        // Writing to a String does not fail.
        let _ = write!(text, " -S {}", self.reached(bound));
        if let Some(fingerprint) = fingerprint {
            let _ = write!(text, " --fingerprint {}", Fingerprint(fingerprint));
        }
        match self.known.as_ref().map(|key| (&key.origin, key)) {
            Some((Origin::Made(_), key)) => {
                let _ = write!(text, " --key {}", key.secret.expose());
            }
            Some((Origin::File(_), _)) => text.push_str(" --key-file FILE"),
            Some((Origin::Told, _)) | None => text.push_str(" --key KEY"),
        }
        if self.client != CLIENT {
            let _ = write!(text, " --name {}", self.client);
        }
        let _ = writeln!(text, " --tcp 22:20022\n\n{}", self.granted());
        if text.contains(THIS_HOST) {
            let _ =
                writeln!(text, "{THIS_HOST} is the name or address of this machine; --advertise says it.");
        }
        if let Some(Key { origin: Origin::Made(file), .. }) = &self.known {
            let _ = writeln!(text, "The key is kept in {} for the next start.", file.display());
        }
        text.push_str("Ctrl-C stops.\n\n");
        text
    }

    /// What the client may do, in words.
    fn granted(&self) -> String {
        let ports = match self.ports.as_slice() {
            [] => format!("ports {PORTS}"),
            ports => {
                format!("ports {}", ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let hosts = match (self.http.is_empty() && self.https.is_empty(), self.hosts.as_slice()) {
            (true, _) => {
                let why = self.no_port_80.as_ref().map(|why| format!("{why}; ")).unwrap_or_default();
                format!("no hosts ({why}--http and --https let visitors ask for some)")
            }
            (false, []) => "any host".to_owned(),
            (false, hosts) => format!("the hosts {}", hosts.join(", ")),
        };
        format!("The client `{}` may open {ports}, and answer for {hosts}.", self.client)
    }

    /// Where clients find this machine, as far as it knows.
    fn reached(&self, bound: Option<SocketAddr>) -> String {
        let port = bound.map_or(7000, |address| address.port());
        let named = self.listen.iter().find_map(|listen| match listen {
            AddressSpec::Inet { host: Host::Name(name), .. } => Some(name.clone()),
            _ => None,
        });
        if let Some(name) = self.advertise.clone().or(named) {
            return match name.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, port).to_string(),
                Err(_) => format!("{name}:{port}"),
            };
        }
        let own = bound.map(|address| address.ip()).filter(|ip| !ip.is_unspecified()).or_else(outward);
        own.map_or_else(|| format!("{THIS_HOST}:{port}"), |ip| SocketAddr::new(ip, port).to_string())
    }
}

/// Whether this process may listen on a port of every address, and nobody else does.
fn can_listen(port: u16) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // Anything else says that there is no IPv6 here.
        _ => Ok(()),
    }
}

/// The address that this machine has towards others. Nothing is sent to find out.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Of the documentation's network (RFC 5737): any that has a default route will do.
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// A client's name, which becomes part of the name of the file that its key is kept in.
fn client_name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(NAMES.to_owned()) }
}

fn host(text: &str) -> Result<String, String> {
    host_pattern(text).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, Global};
    use crate::source::Source;
    use crate::tunnel_command::TunnelCommand;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn parse(args: &[&str]) -> Result<TunnelServerArgs, clap::Error> {
        let cli = Cli::try_parse_from(["wmproxy", "tunnel", "server"].iter().chain(args))?;
        let Some(Command::Tunnel(TunnelCommand::Server(args))) = cli.command else {
            panic!("another command")
        };
        Ok(*args)
    }

    #[test]
    fn it_is_a_config_of_one_client() {
        let mut args = parse(&["-l", "127.0.0.1:0", "--key", KEY, "--http", "127.0.0.1:0"]).unwrap();
        args.prepare().unwrap();
        let plan = Source::TunnelServer(Box::new(args.clone())).load(&Global::default()).unwrap().plan;
        let server = plan.tunnel_server.unwrap();
        let home = &server.spec.clients[0];
        assert_eq!(
            (&*home.name, home.key.expose(), home.hosts.as_slice()),
            ("home", KEY, &["*".to_owned()][..])
        );
        assert_eq!(home.ports, [PortRange { first: 1024, last: 65535 }]);
        let banner = args.banner([].into_iter(), Some([0xab; 32]));
        assert!(banner.contains(&format!("--fingerprint sha256:{}", "ab".repeat(32))), "{banner}");
        assert!(
            !banner.contains(KEY) && banner.contains("any host") && banner.contains("1024-65535"),
            "{banner}"
        );
    }

    #[test]
    fn services_by_host_are_there_unless_somebody_has_the_port() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let chosen = |args: &[&str]| {
            let mut args = parse(args).unwrap();
            args.choose_http(port);
            args
        };
        let without = chosen(&["-l", ":7000"]);
        assert!(without.http.is_empty());
        assert!(without.granted().contains(&format!("no hosts (port {port}: ")), "{}", without.granted());
        drop(taken);
        let with = chosen(&["-l", ":7000"]);
        assert_eq!(with.http, [format!(":{port}").parse().unwrap()]);
        assert!(with.granted().contains("any host"));
        for args in
            [&["--no-http"][..], &["--https", ":443"], &["--http", ":8080"], &["-l", "127.0.0.1:7000"]]
        {
            assert_eq!(chosen(args).http, parse(args).unwrap().http, "{args:?}");
        }
        assert!(parse(&["--no-http", "--http", ":80"]).is_err());
    }

    #[test]
    fn grants_are_those_that_are_said() {
        let args = parse(&[
            "--ports",
            "20000-20100,25",
            "--hosts",
            "*.a.example",
            "--https",
            ":443",
            "--client",
            "nas",
        ]);
        let args = args.unwrap();
        let options = args.options().tunnel_server.unwrap();
        let grant = &options.clients["nas"];
        assert_eq!((grant.ports.0.len(), grant.hosts.0.as_slice()), (2, &["*.a.example".to_owned()][..]));
        assert!(args.granted().contains("ports 20000-20100, 25, and answer for the hosts *.a.example"));
        for args in [
            &["--ports", "0"][..],
            &["--hosts", "a..b"],
            &["--key", "x", "--key-file", "y"],
            &["--cert", "a.pem"],
            &["--transport", "udp"],
            &["--client", ""],
            &["--client", "../home"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
