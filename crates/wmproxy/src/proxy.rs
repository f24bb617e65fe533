//! `wmproxy proxy`: a forward proxy, told by the command line alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use wmproxy_forward::options::{
    ChainOptions, DEFAULT_EGRESS, EgressOptions, EgressRouteOptions, ForwardOptions, HopOptions, HopUrl,
    ParentOptions, PrivateNets, UserOptions, Via,
};
use wmproxy_http::auth::{HashKind, hash_password};
use wmproxy_net::addr::{Address, ListenSpec};
use wmproxy_net::options::{AccessLogOptions, OneOrMany};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_wire::units::Secret;

use crate::cli::Cli;
use crate::config::forward::is_local;
use crate::config::options::Options;
use crate::http_args::{TlsArgs, listen};
use crate::observe::visits::READABLE;
use crate::passwords;

/// Where the password may be, so that it is in no list of processes.
const PASS_VARIABLE: &str = "WMPROXY_PASS";

/// The chain of what `-S` names.
const PARENTS: &str = "parents";

/// What a forward proxy is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyArgs {
    /// Where to listen: HOST:PORT, :PORT or unix:/path; may be repeated
    #[arg(short, long, value_name = "LISTEN", default_value = "127.0.0.1:8090", value_parser = listen)]
    bind: Vec<ListenSpec>,
    /// Let in only this user; the password is asked for if nothing else says it
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user's password. Everybody on this machine sees it; WMPROXY_PASS and --pass-file keep it to you
    #[arg(long, value_name = "PASSWORD", requires = "user", conflicts_with = "pass_file")]
    pass: Option<Secret>,
    /// Read the user's password from this file; - is standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    pass_file: Option<PathBuf>,
    /// Send everything through this proxy: http, https, socks4, socks4a, socks5 or socks5+tls as in
    /// socks5://127.0.0.1:9050; repeated, one after the other. A password in it is seen by everybody on this machine;
    /// a config keeps it to you
    #[arg(short = 'S', long = "server", value_name = "URL")]
    server: Vec<HopUrl>,
    /// Let everybody use it who reaches it
    #[arg(long)]
    open: bool,
    /// Let clients go to private addresses, too: to this machine and its network
    #[arg(long)]
    allow_private: bool,
    /// Serve browsers a file that tells them to use it, at /proxy.pac
    #[arg(long)]
    pac: bool,
    /// Print a line for each visit
    #[arg(long)]
    access_log: bool,
    #[command(flatten)]
    tls: TlsArgs,
    /// The hash of the password, once it is known.
    #[arg(skip)]
    hash: Option<Secret>,
}

impl ProxyArgs {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let wrong = |message: String| Err(Cli::command().error(ErrorKind::ValueValidation, message));
        // The config says the same, but not in the words of the command line.
        let reachable = self.bind.iter().find(|listen| !is_local(&listen.address));
        match reachable {
            Some(listen) if self.user.is_none() && !self.open => wrong(format!(
                "--bind {}: whoever reaches this address could use the proxy; add --user, or --open if everybody is meant",
                listen.address
            )),
            _ => Ok(()),
        }
    }

    /// Finds out the password, and hashes it once for all reloads.
    ///
    /// # Errors
    /// There is none, or none that could be one.
    pub(crate) fn prepare(&mut self) -> anyhow::Result<()> {
        let Some(user) = &self.user else { return Ok(()) };
        let password = match (self.pass.take(), &self.pass_file, std::env::var(PASS_VARIABLE)) {
            (Some(pass), ..) => pass,
            (None, Some(file), _) => passwords::from_file(file, "password")?,
            (None, None, Ok(pass)) => {
                Secret::new(pass).with_context(|| format!("{PASS_VARIABLE} is empty"))?
            }
            (None, None, Err(_)) => passwords::from_terminal(&format!("Password for {user}: "))?,
        };
        let hash = hash_password(password.expose(), HashKind::Argon2id)?;
        self.hash = Secret::new(hash).ok();
        Ok(())
    }

    /// The same as a config. Who runs it has asked [`check`](Self::check) and [`prepare`](Self::prepare) before.
    pub(crate) fn options(&self) -> Options {
        let user = |name: &String| {
            (name.clone(), UserOptions { password: self.hash.clone(), ..UserOptions::default() })
        };
        let forward = ForwardOptions {
            listen: Some(OneOrMany(self.bind.clone())),
            tls: self.tls.options(),
            users: self.user.iter().map(user).collect(),
            open: self.open,
            pac: self.pac,
            ..ForwardOptions::default()
        };
        let private = if self.allow_private { PrivateNets::Allow } else { PrivateNets::Deny };
        let mut egress = EgressOptions { private, ..EgressOptions::default() };
        let mut chain = BTreeMap::new();
        if !self.server.is_empty() {
            let via = Some(Via::Chain(PARENTS.into()));
            egress.route.push(EgressRouteOptions { via, ..EgressRouteOptions::default() });
            let hops = self.server.iter().cloned().map(ParentOptions::new);
            let hops = hops.map(|parent| HopOptions::One(Box::new(parent))).collect();
            chain.insert(PARENTS.to_owned(), ChainOptions { hops, ..ChainOptions::default() });
        }
        let log = AccessLogOptions { file: Some("-".to_owned()), format: Some(READABLE.to_owned()) };
        Options {
            forward: vec![forward],
            egress: BTreeMap::from([(DEFAULT_EGRESS.to_owned(), egress)]),
            chain,
            access_log: self.access_log.then_some(log),
            ..Options::default()
        }
    }

    /// What is served where, and what to try, for people; told once it listens.
    pub(crate) fn banner(&self, listeners: &[Arc<ListenerMetrics>]) -> String {
        let mut text = "\nA forward proxy for HTTP, CONNECT, SOCKS 4, 4a and 5 at\n\n".to_owned();
        let mut addresses: Vec<String> = listeners.iter().map(|listener| place(&listener.address)).collect();
        // One port of every address is a listener for IPv4 and one for IPv6.
        addresses.dedup();
        for address in &addresses {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {address}");
        }
        if let Some(address) = listeners.iter().find_map(|listener| reached(&listener.address)) {
            text.push_str("\nTry, in another terminal:\n\n");
            let user = self.user.as_ref().map_or(String::new(), |user| format!("-U {user} "));
            let scheme = if self.tls.options().is_some() { "https" } else { "http" };
            let insecure = if self.tls.is_self_signed() { "--proxy-insecure " } else { "" };
            let _ = writeln!(text, "  curl {user}{insecure}-x {scheme}://{address} https://example.com/");
            if self.tls.options().is_none() {
                let _ = writeln!(text, "  curl {user}-x socks5h://{address} https://example.com/");
            }
            if self.pac {
                let _ = writeln!(text, "  curl {insecure}{scheme}://{address}/proxy.pac");
            }
        }
        let way = match self.server.as_slice() {
            [] => String::new(),
            servers => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                format!("Everything goes through {}. ", servers.join(", then "))
            }
        };
        let private = match self.allow_private {
            true => "Private addresses are open to clients",
            false => "Private addresses are closed to clients; --allow-private opens them",
        };
        let _ = writeln!(text, "\n{way}{private}. Ctrl-C stops.\n");
        text
    }
}

fn place(address: &Address) -> String {
    match address {
        Address::Inet(at) if at.ip().is_unspecified() => {
            format!("every address of this machine, port {}", at.port())
        }
        address => address.to_string(),
    }
}

/// Where this machine reaches an address.
fn reached(address: &Address) -> Option<String> {
    match address {
        Address::Inet(at) if at.ip().is_unspecified() => Some(format!("localhost:{}", at.port())),
        Address::Inet(at) => Some(at.to_string()),
        Address::Unix(_) | Address::Name(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, Global};
    use crate::config::plan::ModePlan;
    use crate::source::Source;

    fn parse(args: &[&str]) -> Result<ProxyArgs, clap::Error> {
        let cli = Cli::try_parse_from(["wmproxy", "proxy"].iter().chain(args))?;
        let Some(Command::Proxy(args)) = cli.command else { panic!("another command") };
        args.check().map(|()| *args)
    }

    #[test]
    fn it_is_a_config_of_one_listener() {
        let mut args = parse(&["--user", "alice", "--pass", "s3cret", "-b", "0.0.0.0:8090"]).unwrap();
        args.prepare().unwrap();
        let plan = Source::Proxy(Box::new(args)).load(&Global::default()).unwrap().plan;
        let ModePlan::Forward(spec) = &plan.listeners[0].mode else { panic!("no forward proxy") };
        let hash = spec.users[0].password.as_ref().unwrap().expose();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(spec.http && spec.socks5 && spec.socks4);
    }

    #[test]
    fn servers_are_a_chain_in_their_order() {
        let args = parse(&["-S", "socks5://10.0.0.1", "-S", "https://u:p@proxy.example"]).unwrap();
        let plan = Source::Proxy(Box::new(args)).load(&Global::default()).unwrap().plan;
        let hops: Vec<String> =
            plan.chains[PARENTS].hops.iter().map(|hop| hop.parents[0].address.to_string()).collect();
        assert_eq!(hops, ["10.0.0.1:1080", "proxy.example:443"]);
        assert_eq!(plan.egresses[DEFAULT_EGRESS].routes.len(), 1);
    }

    #[test]
    fn wrong_usage_is_refused() {
        for args in [
            &["-b", ":8090"][..],
            &["-b", "udp://:8090"],
            &["--pass", "x"],
            &["--user", "a", "--pass", "x", "--pass-file", "y"],
            &["-S", "ftp://x"],
            &["-S", "127.0.0.1:1080"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
        for args in [&["-b", ":8090", "--open"][..], &["-b", ":8090", "--user", "a"], &[]] {
            assert!(parse(args).is_ok(), "{args:?}");
        }
    }
}
