//! `wmproxy tunnel client`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use wmproxy_forward::options::{ChainOptions, EgressOptions, HopOptions, HopUrl, ParentOptions, PrivateNets};
use wmproxy_http::auth::{HashKind, hash_password};
use wmproxy_net::addr::AddressSpec;
use wmproxy_net::options::OneOrMany;
use wmproxy_tunnel::options::{
    ClientOptions, Fingerprint, ServiceKind, ServiceOptions, ServiceUser, TransportKind, VisitorKind,
    VisitorOptions,
};
use wmproxy_wire::units::Secret;

use super::key::{self, Key};
use super::spec::{HostArg, PortArg, PrivateArg, ProxyArg};
use super::{CLIENT, KEY_VARIABLE};
use crate::cli::Cli;
use crate::config::options::{Options, TunnelServiceOptions};
use crate::passwords;

/// Where the secret of private services and the password of users may be, so that they are in no list of processes.
const SECRET_VARIABLE: &str = "WMPROXY_SECRET";
const PASS_VARIABLE: &str = "WMPROXY_PASS";

/// The chain of what `--via` names.
const PARENTS: &str = "parents";

/// The egress of what `--proxy` offers.
const NETWORK: &str = "network";

/// What a tunnel client is told. LOCAL is a port of this machine, HOST:PORT or unix:/path.
#[derive(Debug, Clone, Args)]
pub(crate) struct TunnelClientArgs {
    /// The tunnel server: HOST:PORT; repeated, a session with each
    #[arg(short = 'S', long = "server", value_name = "SERVER", required = true)]
    server: Vec<AddressSpec>,
    /// The client's key. Everybody on this machine sees it; WMPROXY_KEY and --key-file keep it to you
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<Secret>,
    /// Read the client's key from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// What the server prints of its certificate; may be repeated. Without it and --ca the key proves the server, too
    #[arg(long, value_name = "SHA256")]
    fingerprint: Vec<Fingerprint>,
    /// The server's certificate has to come from one of those in this PEM file
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca: Option<String>,
    /// The client's name, as the server has it
    #[arg(long, value_name = "NAME", default_value = CLIENT)]
    name: String,
    /// How to come to the server: tcp or quic
    #[arg(long, value_name = "TRANSPORT", default_value = "tcp", value_parser = transport)]
    transport: TransportKind,
    /// Carry all visitors over one connection
    #[arg(long)]
    mux: bool,
    /// Go to the server through this proxy: http, https, socks4, socks4a, socks5 or socks5+tls as in
    /// socks5://127.0.0.1:9050; repeated, one after the other
    #[arg(long, value_name = "URL")]
    via: Vec<HopUrl>,
    /// Offer connections to LOCAL at the server's PORT: [NAME=]LOCAL:PORT; without PORT the server picks one
    #[arg(long, value_name = "LOCAL:PORT", help_heading = "Services")]
    tcp: Vec<PortArg>,
    /// Offer datagrams the same way
    #[arg(long, value_name = "LOCAL:PORT", help_heading = "Services")]
    udp: Vec<PortArg>,
    /// Offer requests for HOST: [NAME=]LOCAL:HOST, further hosts behind commas, and a /PATH
    #[arg(long, value_name = "LOCAL:HOST", help_heading = "Services")]
    http: Vec<HostArg>,
    /// Offer TLS connections for HOST, which LOCAL ends itself
    #[arg(long, value_name = "LOCAL:HOST", help_heading = "Services")]
    https: Vec<HostArg>,
    /// Offer a forward proxy into this network at the server's PORT; with --user, or --open
    #[arg(long, value_name = "PORT", help_heading = "Services")]
    proxy: Vec<ProxyArg>,
    /// Offer LOCAL only to clients that know --secret: NAME=LOCAL, or NAME=udp://LOCAL
    #[arg(long, value_name = "NAME=LOCAL", help_heading = "Services")]
    private: Vec<PrivateArg>,
    /// Reach a private service of another client here: CLIENT/NAME=LISTEN, or CLIENT/NAME=udp://LISTEN
    #[arg(long, value_name = "CLIENT/NAME=LISTEN", help_heading = "Services")]
    visit: Vec<PrivateArg>,
    /// The secret of --private and --visit. Everybody on this machine sees it; WMPROXY_SECRET and --secret-file keep it
    /// to you
    #[arg(long, value_name = "SECRET", help_heading = "Services", conflicts_with = "secret_file")]
    secret: Option<Secret>,
    /// Read the secret from this file
    #[arg(long, value_name = "FILE", help_heading = "Services")]
    secret_file: Option<PathBuf>,
    /// Let in only this user to --http and --proxy; the password is asked for if nothing else says it
    #[arg(long, value_name = "NAME", help_heading = "Services")]
    user: Option<String>,
    /// The user's password. Everybody on this machine sees it; WMPROXY_PASS and --pass-file keep it to you
    #[arg(
        long,
        value_name = "PASSWORD",
        help_heading = "Services",
        requires = "user",
        conflicts_with = "pass_file"
    )]
    pass: Option<Secret>,
    /// Read the user's password from this file
    #[arg(long, value_name = "FILE", help_heading = "Services", requires = "user")]
    pass_file: Option<PathBuf>,
    /// Let everybody use --proxy who reaches its port
    #[arg(long, help_heading = "Services")]
    open: bool,
    /// What is found out before it runs.
    #[arg(skip)]
    known: Known,
}

/// What a client needs to know and is not in its arguments.
#[derive(Debug, Clone, Default)]
struct Known {
    key: Option<Key>,
    secret: Option<Secret>,
    /// The hash of the user's password.
    hash: Option<Secret>,
}

/// A way to carry sessions.
///
/// # Errors
/// There is none of that name.
pub(super) fn transport(text: &str) -> Result<TransportKind, String> {
    match text {
        "tcp" => Ok(TransportKind::Tcp),
        "quic" => Ok(TransportKind::Quic),
        _ => Err("it is tcp or quic".to_owned()),
    }
}

impl TunnelClientArgs {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let wrong = |message: &str| Err(Cli::command().error(ErrorKind::ValueValidation, message));
        let is_empty = self.tcp.is_empty()
            && self.udp.is_empty()
            && self.http.is_empty()
            && self.https.is_empty()
            && self.proxy.is_empty()
            && self.private.is_empty();
        if is_empty && self.visit.is_empty() {
            return wrong(
                "nothing is offered: add --tcp, --udp, --http, --https, --proxy or --private, or --visit",
            );
        }
        if !self.proxy.is_empty() && self.user.is_none() && !self.open {
            return wrong(
                "--proxy: whoever reaches the server's port could go into this network; add --user, or --open if \
                 everybody is meant",
            );
        }
        if !self.via.is_empty() && self.transport == TransportKind::Quic {
            return wrong("--via: QUIC does not pass through proxies; leave --transport out");
        }
        // Who says them believes to be protected by them.
        if self.user.is_some() && self.http.is_empty() && self.proxy.is_empty() {
            return wrong("--user: only --http and --proxy ask who comes");
        }
        let has_secret = self.secret.is_some() || self.secret_file.is_some();
        if has_secret && self.private.is_empty() && self.visit.is_empty() {
            return wrong("--secret: only --private and --visit have one; other services are for everybody");
        }
        if self.open && self.proxy.is_empty() {
            return wrong("--open: it is for --proxy, which is not there");
        }
        let mut names = BTreeSet::new();
        match self.own_names().find(|name| !names.insert(*name)) {
            Some(name) => wrong(&format!("two services have the name {name}")),
            None => Ok(()),
        }
    }

    /// The names that services were given, and do not have by themselves.
    fn own_names(&self) -> impl Iterator<Item = &str> {
        let ports = self.tcp.iter().chain(&self.udp).filter_map(|arg| arg.name.as_deref());
        let hosts = self.http.iter().chain(&self.https).filter_map(|arg| arg.name.as_deref());
        let proxies = self.proxy.iter().filter_map(|arg| arg.name.as_deref());
        ports.chain(hosts).chain(proxies).chain(self.private.iter().map(|arg| &*arg.name))
    }

    /// Finds out the key, the secret and the password.
    ///
    /// # Errors
    /// One that is needed is missing or can't be read.
    pub(crate) fn prepare(&mut self) -> anyhow::Result<()> {
        let key = key::told(self.key.as_ref(), self.key_file.as_deref())?;
        self.known.key = Some(key.with_context(|| {
            format!("no key is given: add --key, --key-file or {KEY_VARIABLE}, with what the server prints")
        })?);
        if !self.private.is_empty() || !self.visit.is_empty() {
            let secret = match (&self.secret, &self.secret_file, std::env::var(SECRET_VARIABLE)) {
                (Some(secret), ..) => secret.clone(),
                (None, Some(file), _) => passwords::from_file(file, "secret")?,
                (None, None, Ok(secret)) => {
                    Secret::new(secret).with_context(|| format!("{SECRET_VARIABLE} is empty"))?
                }
                (None, None, Err(_)) => anyhow::bail!(
                    "--private and --visit need --secret, --secret-file or {SECRET_VARIABLE}: both clients prove it \
                     to each other"
                ),
            };
            self.known.secret = Some(secret);
        }
        if let Some(user) = &self.user {
            let password = match (&self.pass, &self.pass_file, std::env::var(PASS_VARIABLE)) {
                (Some(pass), ..) => pass.clone(),
                (None, Some(file), _) => passwords::from_file(file, "password")?,
                (None, None, Ok(pass)) => {
                    Secret::new(pass).with_context(|| format!("{PASS_VARIABLE} is empty"))?
                }
                (None, None, Err(_)) => passwords::from_terminal(&format!("Password for {user}: "))?,
            };
            self.known.hash = Secret::new(hash_password(password.expose(), HashKind::Argon2id)?).ok();
        }
        (self.key, self.secret, self.pass) = (None, None, None);
        Ok(())
    }

    /// The same as a config. Who runs it has asked [`check`](Self::check) and [`prepare`](Self::prepare) before.
    pub(crate) fn options(&self) -> Options {
        let client = ClientOptions {
            server: OneOrMany(self.server.clone()),
            fingerprint: OneOrMany(self.fingerprint.clone()),
            ca: self.ca.clone(),
            name: Some(self.name.clone()),
            key: self.known.key.as_ref().map(|key| key.secret.clone()),
            transport: self.transport,
            mux: self.mux,
            via: (!self.via.is_empty()).then(|| PARENTS.to_owned()),
            service: self.services(),
            visitor: self.visit.iter().map(|visit| self.visitor(visit)).collect(),
            ..ClientOptions::default()
        };
        let mut options = Options { tunnel_client: Some(client), ..Options::default() };
        if !self.via.is_empty() {
            let hops = self.via.iter().cloned().map(ParentOptions::new);
            let hops = hops.map(|parent| HopOptions::One(Box::new(parent))).collect();
            options.chain.insert(PARENTS.to_owned(), ChainOptions { hops, ..ChainOptions::default() });
        }
        if !self.proxy.is_empty() {
            // To get into this network is what it is for.
            let egress = EgressOptions { private: PrivateNets::Allow, ..EgressOptions::default() };
            options.egress.insert(NETWORK.to_owned(), egress);
        }
        options
    }

    fn visitor(&self, visit: &PrivateArg) -> VisitorOptions {
        VisitorOptions {
            service: visit.name.clone(),
            secret: self.known.secret.clone(),
            listen: Some(visit.address.clone()),
            kind: if visit.is_udp { VisitorKind::Udp } else { VisitorKind::Tcp },
            ..VisitorOptions::default()
        }
    }

    /// What is offered, each by a name that no other has.
    fn services(&self) -> Vec<TunnelServiceOptions> {
        let mut services = Vec::new();
        let user = ServiceUser { password: self.known.hash.clone(), password_file: None };
        let users = || self.user.iter().map(|name| (name.clone(), user.clone())).collect();
        for (kind, args) in [(ServiceKind::Tcp, &self.tcp), (ServiceKind::Udp, &self.udp)] {
            services.extend(args.iter().map(|arg| ServiceOptions {
                name: name(arg.name.as_deref(), kind, Some(&arg.local)),
                kind,
                local: Some(arg.local.clone()),
                port: Some(arg.port),
                ..ServiceOptions::default()
            }));
        }
        for (kind, args) in [(ServiceKind::Http, &self.http), (ServiceKind::Https, &self.https)] {
            services.extend(args.iter().map(|arg| ServiceOptions {
                name: name(arg.name.as_deref(), kind, Some(&arg.local)),
                kind,
                local: Some(arg.local.clone()),
                hosts: OneOrMany(arg.hosts.clone()),
                paths: OneOrMany(arg.path.iter().cloned().collect()),
                users: if kind == ServiceKind::Http { users() } else { BTreeMap::new() },
                ..ServiceOptions::default()
            }));
        }
        services.extend(self.proxy.iter().map(|arg| ServiceOptions {
            name: name(arg.name.as_deref(), ServiceKind::Proxy, None),
            kind: ServiceKind::Proxy,
            port: Some(arg.port),
            egress: Some(NETWORK.to_owned()),
            users: users(),
            open: self.open,
            ..ServiceOptions::default()
        }));
        services.extend(self.private.iter().map(|arg| ServiceOptions {
            name: arg.name.clone(),
            kind: if arg.is_udp { ServiceKind::Udp } else { ServiceKind::Tcp },
            local: Some(arg.address.clone()),
            secret: self.known.secret.clone(),
            ..ServiceOptions::default()
        }));
        distinct(&mut services);
        services
    }
}

/// A service's own name, or one made of what it is: `tcp-22`.
fn name(own: Option<&str>, kind: ServiceKind, local: Option<&AddressSpec>) -> String {
    match (own, local.and_then(AddressSpec::ports)) {
        (Some(name), _) => name.to_owned(),
        (None, Some(ports)) => format!("{}-{}", kind.as_str(), ports.start()),
        (None, None) => kind.as_str().to_owned(),
    }
}

/// Puts numbers behind names that are there already.
fn distinct(services: &mut [TunnelServiceOptions]) {
    let mut taken = BTreeSet::new();
    for service in services {
        let base = service.name.clone();
        let mut number = 1;
        while !taken.insert(service.name.clone()) {
            number += 1;
            service.name = format!("{base}-{number}");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, Global};
    use crate::source::Source;
    use crate::tunnel_command::TunnelCommand;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn parse(args: &[&str]) -> Result<TunnelClientArgs, clap::Error> {
        let line = ["wmproxy", "tunnel", "client", "-S", "127.0.0.1:7000", "--key", KEY];
        let cli = Cli::try_parse_from(line.iter().chain(args))?;
        let Some(Command::Tunnel(TunnelCommand::Client(args))) = cli.command else {
            panic!("another command")
        };
        args.check().map(|()| *args)
    }

    #[test]
    fn it_is_a_config_of_services_and_visits() {
        let mut args = parse(&[
            "--tcp",
            "22:20022",
            "--tcp",
            "22:20023",
            "--udp",
            "dns=53:20053",
            "--http",
            "3000:app.example.com/api",
            "--https",
            "8443:x.example.com",
            "--proxy",
            "20080",
            "--user",
            "alice",
            "--pass",
            "s3cret",
            "--private",
            "db=5432",
            "--visit",
            "office/files=127.0.0.1:4450",
            "--secret",
            KEY,
            "--via",
            "socks5://127.0.0.1:9050",
        ])
        .unwrap();
        args.prepare().unwrap();
        let plan = Source::TunnelClient(Box::new(args)).load(&Global::default()).unwrap().plan;
        let client = plan.tunnel_client.unwrap();
        let names: Vec<&str> = client.services.iter().map(|service| &*service.spec.service.name).collect();
        assert_eq!(names, ["tcp-22", "tcp-22-2", "dns", "http-3000", "https-8443", "proxy", "db"]);
        assert_eq!(client.services[3].spec.service.paths, ["/api"]);
        assert_eq!(client.services[3].spec.service.http.users[0].0, "alice");
        assert!(client.services[6].spec.secret.is_some());
        assert_eq!((client.spec.via.as_deref(), plan.visits.len()), (Some(PARENTS), 1));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for args in [
            &[][..],
            &["--tcp", "x"],
            &["--http", "3000"],
            &["--proxy", "20080"],
            &["--tcp", "22:1", "--transport", "udp"],
            &["--tcp", "22:1", "--transport", "quic", "--via", "socks5://127.0.0.1"],
            &["--tcp", "22:1", "--fingerprint", "sha256:00"],
            &["--tcp", "22:1", "--pass", "x"],
            &["--tcp", "22:1", "--key-file", "x"],
            &["--tcp", "22:1", "--user", "alice", "--pass", "x"],
            &["--tcp", "22:1", "--secret", KEY],
            &["--tcp", "22:1", "--secret-file", "x"],
            &["--tcp", "22:1", "--open"],
            &["--tcp", "a=22:1", "--private", "a=22", "--secret", KEY],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
        assert!(parse(&["--proxy", "20080", "--open"]).is_ok());
        let mut args = parse(&["--private", "db=5432"]).unwrap();
        assert!(args.prepare().unwrap_err().to_string().contains("--secret"));
    }
}
