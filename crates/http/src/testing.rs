//! What unit tests of this crate share.

use wmproxy_net::addr::Address;
use wmproxy_wire::head::{Request, Scheme};

use crate::facts::{ConnFacts, Facts};

/// A connection by TLS from 192.0.2.7.
pub(crate) fn conn() -> ConnFacts {
    ConnFacts {
        listener: "web".into(),
        client: Some(([192, 0, 2, 7], 4711).into()),
        local: Address::Inet(([127, 0, 0, 1], 443).into()),
        scheme: Scheme::Https,
        sni: Some("sni.example.com".into()),
        identity: None,
    }
}

/// A request that was read, with what is known of it then.
pub(crate) fn get(path_and_query: &str) -> (Request, Facts) {
    let mut request = Request::new();
    request.set_method(b"GET");
    request.set_target(path_and_query.as_bytes());
    request.set_authority(b"example.com");
    let mut facts = Facts::default();
    facts.begin(&conn());
    facts.host.push_str("example.com");
    facts.path.extend_from_slice(request.raw_path());
    (request, facts)
}
