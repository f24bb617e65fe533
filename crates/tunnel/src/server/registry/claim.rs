//! What a service asks for, once it is sure that it makes sense.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use wmproxy_wire::tunnel::message::{HttpRules, Kind, Refusal, RefusalCode, Service};

use super::grants::Pattern;
use super::refusal;

/// The longest name of a service or group.
const MAX_NAME: usize = 64;

/// The longest path: what a request line can hold with some to spare.
const MAX_PATH: usize = 1024;

/// The most hosts of a service, and the most paths: each host is looked up with each path whenever anything changes.
const MAX_HOSTS: usize = 64;
const MAX_PATHS: usize = 16;

/// What a service asks for. Where that is the same as before, so is what it has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    pub(super) kind: Kind,
    pub(super) group: Option<String>,
    pub(super) spot: Spot,
    pub(super) terms: Terms,
    /// Mixes the names of client and service, for whatever is to be chosen by them.
    pub(super) seed: u64,
}

/// The place that visitors are to come to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Spot {
    /// None: it is private.
    Private,
    /// A port; 0 is any.
    Port(u16),
    /// Hosts, with the beginnings of paths; none is all paths.
    Hosts(Vec<Pattern>, Vec<String>),
}

/// How visitors are let in at that place. All of a group have to say the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Terms {
    pub(super) visitors: Vec<IpNet>,
    pub(super) terminate: bool,
    pub(super) max_connections: u32,
    pub(super) http: HttpRules,
}

impl Claim {
    /// What a service of a client asks for, normalised.
    ///
    /// # Errors
    /// It makes no sense.
    pub(super) fn of(client: &str, service: &Service) -> Result<Claim, Refusal> {
        is_name(&service.name).then_some(()).ok_or_else(|| invalid("the service's name"))?;
        let group = service.group.clone().filter(|group| !group.is_empty());
        if group.as_deref().is_some_and(|group| !is_name(group)) {
            return Err(invalid("the group's name"));
        }
        let is_web = matches!(service.kind, Kind::Http | Kind::Https);
        let spot = match (service.is_private, is_web) {
            (true, true) => {
                let text = "a private service is of type tcp, udp or proxy: no host leads to it";
                return Err(refusal(RefusalCode::Invalid, text));
            }
            (true, false) => Spot::Private,
            (false, false) => Spot::Port(service.port),
            (false, true) => Spot::Hosts(hosts(service)?, paths(service)?),
        };
        let terms = Terms {
            visitors: networks(&service.visitors)?,
            terminate: service.kind == Kind::Https && service.terminate,
            max_connections: service.max_connections,
            http: if is_web { service.http.clone() } else { HttpRules::default() },
        };
        Ok(Claim { kind: service.kind, group, spot, terms, seed: seed(client, &service.name) })
    }
}

impl Claim {
    /// Whether whoever had the other keeps the place with this one. In a group the terms are for all to agree on, so that who
    /// changes them comes last.
    pub(super) fn keeps_place_of(&self, other: &Claim) -> bool {
        let is_same_place = (self.kind, &self.group, &self.spot) == (other.kind, &other.group, &other.spot);
        is_same_place && (self.group.is_none() || self.terms == other.terms)
    }
}

/// Whether a text is fit to name something in addresses, logs and metrics.
pub(super) fn is_name(text: &str) -> bool {
    let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_fit)
}

fn invalid(what: &str) -> Refusal {
    let text = format!("{what} has to have 1 to {MAX_NAME} bytes: letters, digits, `-`, `_` and `.`");
    refusal(RefusalCode::Invalid, text)
}

fn hosts(service: &Service) -> Result<Vec<Pattern>, Refusal> {
    let mut hosts = Vec::<Pattern>::new();
    if service.hosts.len() > MAX_HOSTS {
        return Err(refusal(RefusalCode::Limit, format!("a service has at most {MAX_HOSTS} hosts")));
    }
    for text in &service.hosts {
        let host = Pattern::parse(text)
            .map_err(|bad| refusal(RefusalCode::Invalid, format!("{}: {}", text.escape_debug(), bad.text)))?;
        if host == Pattern::Any {
            return Err(refusal(RefusalCode::Invalid, "a service can't have all hosts"));
        }
        hosts.push(host);
    }
    if hosts.is_empty() {
        return Err(refusal(RefusalCode::Invalid, "a service of http or https needs a host"));
    }
    // In one order, so that groups with the same hosts are seen to have them; and none twice.
    hosts.sort_by_cached_key(Pattern::to_string);
    hosts.dedup();
    Ok(hosts)
}

fn paths(service: &Service) -> Result<Vec<String>, Refusal> {
    let is_path = |path: &str| {
        let is_fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(is_fit)
    };
    if service.kind == Kind::Https && !service.terminate && !service.paths.is_empty() {
        let text =
            "nobody sees the path of https that is passed through; without `terminate` there can be none";
        return Err(refusal(RefusalCode::Invalid, text));
    }
    if service.paths.len() > MAX_PATHS {
        return Err(refusal(RefusalCode::Limit, format!("a service has at most {MAX_PATHS} paths")));
    }
    if let Some(bad) = service.paths.iter().find(|path| !is_path(path)) {
        let text = format!("{} is no beginning of a path", bad.escape_debug());
        return Err(refusal(RefusalCode::Invalid, text));
    }
    let paths: BTreeSet<&String> = service.paths.iter().collect();
    Ok(paths.into_iter().cloned().collect())
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>, Refusal> {
    let parse = |text: &String| {
        let net = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        net.ok_or_else(|| refusal(RefusalCode::Invalid, format!("{} is no network", text.escape_debug())))
    };
    texts.iter().map(parse).collect()
}

/// FNV-1a over both names: the same on every machine and in every version.
fn seed(client: &str, service: &str) -> u64 {
    let bytes = client.bytes().chain([b'/']).chain(service.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
