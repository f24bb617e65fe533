//! From a host name to its addresses: `localhost`, the hosts file, then the name servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;

/// When to look again at what no name server answered. The hosts file is read anew each time, which costs
/// a few microseconds, so that an edit is followed soon.
const FILE_TTL: Duration = Duration::from_secs(10);

/// How long the other address family may still take when one has been answered. Some name servers drop
/// questions for AAAA, and an answer is not to wait for a timeout of ten seconds.
const SECOND_FAMILY: Duration = Duration::from_secs(1);

/// How long one name may take in all: what resolv.conf(5) allows one name server by default, two attempts of
/// five seconds. Without it, TCP after UDP and a search list would come to minutes.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// Why a name has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has neither A nor AAAA records.
    #[error("the name has no addresses")]
    NotFound,
    /// No name server answered usefully.
    #[error("{0}")]
    Failed(String),
    /// There is nobody to ask.
    #[error("there are no name servers to ask: {0}")]
    NoServers(String),
}

/// What is known of a name. A family of addresses is `None` when asking for it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) v4: Option<Vec<IpAddr>>,
    pub(crate) v6: Option<Vec<IpAddr>>,
    /// How long it holds.
    pub(crate) ttl: Duration,
}

/// Resolves host names. Its lookups run tasks of their own: use it on the control runtime only.
#[derive(Debug)]
pub struct Resolver {
    dns: Result<Dns, String>,
    hosts_file: PathBuf,
}

#[derive(Debug)]
struct Dns {
    client: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

/// The answer for one address family.
enum Family {
    Found(Vec<IpAddr>, Duration),
    /// There are none, says a name server.
    Missing,
    Failed(NetError),
}

impl Resolver {
    /// Asks `servers` over UDP and, for long answers, TCP; when there are none, the system's with its search
    /// list (resolv.conf(5)). That these can't be read matters only to names that must be asked for.
    pub fn new(servers: &[SocketAddr]) -> Resolver {
        let dns = if servers.is_empty() { Dns::of_system() } else { Dns::of_servers(servers) };
        Resolver { dns: dns.map_err(|error| error.to_string()), hosts_file: "/etc/hosts".into() }
    }

    #[cfg(test)]
    pub(crate) fn with_hosts_file(mut self, path: PathBuf) -> Resolver {
        self.hosts_file = path;
        self
    }

    pub(crate) async fn lookup(&self, host: &str) -> Result<Answer, ResolveError> {
        // RFC 6761 section 6.3: localhost and what is below it is this machine, and nobody is asked.
        if host == "localhost" || host.ends_with(".localhost") {
            let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
            return Ok(Answer { v4: Some(vec![v4]), v6: Some(vec![v6]), ttl: FILE_TTL });
        }
        let hosts = std::fs::read_to_string(&self.hosts_file).unwrap_or_default();
        let (v4, v6): (Vec<_>, Vec<_>) = in_hosts(&hosts, host).partition(IpAddr::is_ipv4);
        if !v4.is_empty() || !v6.is_empty() {
            return Ok(Answer { v4: Some(v4), v6: Some(v6), ttl: FILE_TTL });
        }
        let dns = self.dns.as_ref().map_err(|error| ResolveError::NoServers(error.clone()))?;
        tokio::time::timeout(LOOKUP_LIMIT, dns.lookup(host))
            .await
            .unwrap_or_else(|_| Err(ResolveError::Failed("no name server answered in time".into())))
    }
}

/// The addresses of `host` in the text of a hosts file (hosts(5)).
fn in_hosts(text: &str, host: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(move |line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)).then_some(address)
    })
}

impl Dns {
    fn of_system() -> Result<Dns, NetError> {
        let (config, options) = read_system_conf()?;
        let search = config.search().to_vec();
        Dns::new(config, options, search)
    }

    fn of_servers(servers: &[SocketAddr]) -> Result<Dns, NetError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        Dns::new(ResolverConfig::from_name_servers(servers.collect()), ResolverOpts::default(), vec![])
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts, search: Vec<Name>) -> Result<Dns, NetError> {
        // No cache: names are asked for when their TTL is over, and then the answer must be a new one.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let ndots = options.ndots;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Dns { client: builder.build()?, search, ndots })
    }

    async fn lookup(&self, host: &str) -> Result<Answer, ResolveError> {
        let mut outcome = ResolveError::NotFound;
        for name in candidates(host, &self.search, self.ndots) {
            match self.ask_both(&name).await {
                (Family::Missing, Family::Missing) => {}
                (Family::Failed(error), Family::Failed(_) | Family::Missing)
                | (Family::Missing, Family::Failed(error)) => {
                    outcome = ResolveError::Failed(error.to_string());
                    // A name server that can't say for one name of the search list may for the next, but
                    // one that does not answer must not lead us to another host of the same short name.
                    if !matches!(error, NetError::Dns(DnsError::ResponseCode(_))) {
                        break;
                    }
                }
                (v4, v6) => {
                    let ttl = v4.ttl().into_iter().chain(v6.ttl()).min().unwrap_or(Duration::ZERO);
                    return Ok(Answer { v4: v4.addresses(), v6: v6.addresses(), ttl });
                }
            }
        }
        Err(outcome)
    }

    /// Asks for A and AAAA at once.
    async fn ask_both(&self, name: &Name) -> (Family, Family) {
        let mut v4 = pin!(self.ask(name, RecordType::A));
        let mut v6 = pin!(self.ask(name, RecordType::AAAA));
        tokio::select! {
            v4 = &mut v4 => { let v6 = second(&v4, v6).await; (v4, v6) }
            v6 = &mut v6 => { let v4 = second(&v6, v4).await; (v4, v6) }
        }
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Family {
        match self.client.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let answers = lookup.answers();
                let addresses: Vec<_> = answers.iter().filter_map(|record| record.data.ip_addr()).collect();
                let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or(0);
                if addresses.is_empty() {
                    return Family::Missing;
                }
                Family::Found(addresses, Duration::from_secs(ttl.into()))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Family::Missing
            }
            Err(error) => Family::Failed(error),
        }
    }
}

/// The answer of the second family, for which a first that was found does not wait long.
async fn second(first: &Family, second: impl Future<Output = Family>) -> Family {
    match first {
        Family::Found(..) => {
            tokio::time::timeout(SECOND_FAMILY, second).await.unwrap_or(Family::Failed(NetError::Timeout))
        }
        _ => second.await,
    }
}

impl Family {
    fn ttl(&self) -> Option<Duration> {
        match self {
            Family::Found(_, ttl) => Some(*ttl),
            Family::Missing | Family::Failed(_) => None,
        }
    }

    fn addresses(self) -> Option<Vec<IpAddr>> {
        match self {
            Family::Found(addresses, _) => Some(addresses),
            Family::Missing => Some(vec![]),
            Family::Failed(_) => None,
        }
    }
}

/// The full names that `host` may mean, in the order of resolv.conf(5): a name with at least `ndots` dots is
/// tried as it is first, another one in the domains of the search list first.
fn candidates(host: &str, search: &[Name], ndots: usize) -> Vec<Name> {
    let Ok(mut own) = Name::from_ascii(host) else { return vec![] };
    let mut names: Vec<Name> =
        search.iter().filter_map(|domain| own.clone().append_domain(domain).ok()).collect();
    own.set_fqdn(true);
    let place = if host.matches('.').count() >= ndots { 0 } else { names.len() };
    names.insert(place, own);
    for name in &mut names {
        name.set_fqdn(true);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_its_manual_says() {
        let text = "# comment\n127.0.0.1 localhost\n10.0.0.7\tdb.internal  DB # ten.seven\n::1 ip6-localhost\n\
                    fe80::1 db\n10.0.0.8 ten.seven\nbroken line db\n";
        let of = |host: &str| in_hosts(text, host).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(of("db"), ["10.0.0.7", "fe80::1"]);
        assert_eq!(of("db.internal"), ["10.0.0.7"]);
        assert_eq!(of("ten.seven"), ["10.0.0.8"]);
        assert_eq!(of("line"), [""; 0]);
    }

    #[test]
    fn short_names_are_searched_first_and_long_ones_last() {
        let search = ["a.test", "b.test"].map(|domain| Name::from_ascii(domain).unwrap());
        let of = |host: &str, ndots: usize| -> Vec<String> {
            candidates(host, &search, ndots).iter().map(Name::to_ascii).collect()
        };
        assert_eq!(of("db", 1), ["db.a.test.", "db.b.test.", "db."]);
        assert_eq!(of("db.prod", 1), ["db.prod.", "db.prod.a.test.", "db.prod.b.test."]);
        assert_eq!(of("db.prod", 5), ["db.prod.a.test.", "db.prod.b.test.", "db.prod."]);
        assert_eq!(of("under_score", 1)[0], "under_score.a.test.");
    }

    #[tokio::test]
    async fn localhost_needs_nobody() {
        let resolver = Resolver { dns: Err("none".into()), hosts_file: "/nonexistent".into() };
        for host in ["localhost", "app.localhost"] {
            let answer = resolver.lookup(host).await.unwrap();
            assert_eq!(answer.v4, Some(vec!["127.0.0.1".parse().unwrap()]));
            assert_eq!(answer.v6, Some(vec!["::1".parse().unwrap()]));
        }
        assert_eq!(resolver.lookup("db").await, Err(ResolveError::NoServers("none".into())));
    }
}
