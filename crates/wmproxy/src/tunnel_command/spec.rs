//! Services and visits as a command line names them.

use std::str::FromStr;

use wmproxy_net::addr::{AddressSpec, Host};

use wmproxy_tunnel::options::host_pattern;

/// `[NAME=]LOCAL[:PORT]`: a service with a port at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortArg {
    pub(super) name: Option<String>,
    pub(super) local: AddressSpec,
    /// 0 lets the server pick one.
    pub(super) port: u16,
}

/// `[NAME=]LOCAL:HOST[,HOST…][/PATH]`: a service that visitors ask for by host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostArg {
    pub(super) name: Option<String>,
    pub(super) local: AddressSpec,
    pub(super) hosts: Vec<String>,
    pub(super) path: Option<String>,
}

/// `[NAME=]PORT`: a forward proxy at the server's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyArg {
    pub(super) name: Option<String>,
    pub(super) port: u16,
}

/// `NAME=LOCAL` or `CLIENT/NAME=LISTEN`, of a private service; `udp://` in front of the address is one of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrivateArg {
    pub(super) name: String,
    pub(super) address: AddressSpec,
    pub(super) is_udp: bool,
}

/// `LOCAL`: a port of this machine, or an address.
fn local(text: &str) -> Result<AddressSpec, String> {
    let text = match text.parse::<u16>() {
        Ok(port) => format!("127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    };
    match text.parse() {
        Ok(AddressSpec::Inet { host: Host::Any, first_port, last_port }) if first_port == last_port => {
            Err(format!("write {first_port} or 127.0.0.1:{first_port}"))
        }
        Ok(AddressSpec::Inet { first_port, last_port, .. }) if first_port != last_port || first_port == 0 => {
            Err("one port is meant here, from 1 to 65535".to_owned())
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("`{text}` is neither a port nor HOST:PORT nor unix:/path")),
    }
}

/// What stands in front of a `=`, if there is one, and the rest.
fn named(text: &str) -> (Option<String>, &str) {
    match text.split_once('=') {
        Some((name, rest)) => (Some(name.to_owned()), rest),
        None => (None, text),
    }
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = named(text);
        // In `127.0.0.1:22` the number is that of the local address: it has no port but for it.
        if let Some((address, port)) = rest.rsplit_once(':')
            && let Ok(port) = port.parse()
            && let Ok(local) = local(address)
        {
            return Ok(PortArg { name, local, port });
        }
        match local(rest) {
            Ok(local) => Ok(PortArg { name, local, port: 0 }),
            Err(error) => Err(format!("{error}; a service is LOCAL:PORT, such as 22:20022")),
        }
    }
}

impl FromStr for HostArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = named(text);
        let (address, hosts) = rest
            .rsplit_once(':')
            .ok_or("no `:` in it: a service is LOCAL:HOST, such as 3000:app.example.com")?;
        let (hosts, path) = match hosts.split_once('/') {
            Some((hosts, path)) => (hosts, Some(format!("/{path}"))),
            None => (hosts, None),
        };
        let host = |host: &str| match host_pattern(host) {
            Ok(_) if host.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!(
                "`{host}` is a port, and visitors ask for a host: LOCAL:HOST, such as 3000:app.example.com"
            )),
            Ok(host) => Ok(host),
            Err(error) => Err(format!("`{host}`: {error}")),
        };
        let hosts = hosts.split(',').map(host).collect::<Result<_, _>>()?;
        Ok(HostArg { name, local: local(address)?, hosts, path })
    }
}

impl FromStr for ProxyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = named(text);
        let port = port.parse().map_err(|_| format!("`{port}` is no port of the server"))?;
        Ok(ProxyArg { name, port })
    }
}

impl FromStr for PrivateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) =
            text.split_once('=').ok_or("no `=` in it: this is NAME=ADDRESS, such as db=5432")?;
        let (address, is_udp) = match address.split_once("://") {
            None => (address, false),
            Some(("tcp", address)) => (address, false),
            Some(("udp", address)) => (address, true),
            Some((scheme, _)) => return Err(format!("unknown scheme `{scheme}`: it is tcp:// or udp://")),
        };
        Ok(PrivateArg { name: name.to_owned(), address: local(address)?, is_udp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_local_address_and_a_port() {
        for (text, name, local, port) in [
            ("22:20022", None, "127.0.0.1:22", 20022),
            ("22", None, "127.0.0.1:22", 0),
            ("ssh=22:20022", Some("ssh"), "127.0.0.1:22", 20022),
            ("nas.lan:80:8080", None, "nas.lan:80", 8080),
            ("nas.lan:80", None, "nas.lan:80", 0),
            ("[::1]:53:20053", None, "[::1]:53", 20053),
            ("[::1]:53", None, "[::1]:53", 0),
            ("unix:/run/a.sock:9000", None, "unix:/run/a.sock", 9000),
        ] {
            let arg: PortArg = text.parse().unwrap();
            assert_eq!(
                (arg.name.as_deref(), arg.local.to_string().as_str(), arg.port),
                (name, local, port),
                "{text}"
            );
        }
        for text in ["", ":", "x", "22:70000", ":22", "1:2-3", "0:1", "a=", "22:20022:x"] {
            assert!(text.parse::<PortArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_may_have_hosts_and_a_path() {
        let arg: HostArg = "web=3000:App.example.com,*.a.example/api".parse().unwrap();
        assert_eq!((arg.name.as_deref(), arg.local.to_string().as_str()), (Some("web"), "127.0.0.1:3000"));
        assert_eq!(
            (arg.hosts, arg.path.as_deref()),
            (vec!["app.example.com".into(), "*.a.example".into()], Some("/api"))
        );
        let arg: HostArg = "nas.lan:80:nas.example.com".parse().unwrap();
        assert_eq!((arg.local.to_string().as_str(), arg.path), ("nas.lan:80", None));
        for text in ["3000", "3000:", "3000:a..b", "x:a.example", "3000:8080", ":3000:a.example"] {
            assert!(text.parse::<HostArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_private_service_has_a_name() {
        let arg: PrivateArg = "db=5432".parse().unwrap();
        assert_eq!(
            (arg.name.as_str(), arg.address.to_string().as_str(), arg.is_udp),
            ("db", "127.0.0.1:5432", false)
        );
        let arg: PrivateArg = "home/dns=udp://127.0.0.1:53".parse().unwrap();
        assert_eq!((arg.name.as_str(), arg.is_udp), ("home/dns", true));
        for text in ["5432", "db=", "db=x", "db=sctp://1"] {
            assert!(text.parse::<PrivateArg>().is_err(), "{text}");
        }
        assert_eq!("out=20080".parse(), Ok(ProxyArg { name: Some("out".into()), port: 20080 }));
        assert!("x".parse::<ProxyArg>().is_err());
    }
}
