//! What one rule says, as it is written: a place, ports behind a `:`, hours behind an `@`.
//!
//! | place | means |
//! |---|---|
//! | `10.1.2.3`, `2001:db8::1` | this address |
//! | `10.0.0.0/8`, `2001:db8::/32` | the addresses of a network |
//! | `www.example.com` | this name |
//! | `*.example.com` | every name below it, at any depth, but not the name itself |
//! | `.example.com` | the name and every one below it |
//! | `api-*.example.com` | names that fit; a `*` stands for anything but a dot |
//! | `*`, or nothing before ports | everything |
//!
//! Ports are `:443`, `:8000-8099` or several with commas between; an IPv6 address with ports goes into brackets. Hours are
//! those of [`Hours`].

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use wmproxy_net::acl::Prefix;
use wmproxy_wire::destination::{Host, parse_host};

use super::hours::Hours;
use super::ports::Ports;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) place: Place,
    /// None for any.
    pub(super) ports: Option<Ports>,
    /// None for always.
    pub(super) hours: Option<Hours>,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Anywhere,
    Net(IpNet),
    Name(Domain),
}

/// Which names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    /// This one.
    Exactly(Box<str>),
    /// Those below this one; below the empty one all are.
    Below(Box<str>),
    /// This one and those below it.
    Within(Box<str>),
    /// Those that end in `.under` (or anything, where that is empty), with something before it that fits `head`.
    Glob { head: Box<str>, under: Box<str> },
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        if let Some((_, rest)) = text.split_once("://") {
            return Err(format!("a rule has no scheme: `{rest}` may be what is meant"));
        }
        let (rest, hours) = match text.split_once('@') {
            Some((rest, hours)) => (rest, Some(Hours::parse(hours)?)),
            None => (text, None),
        };
        let (place, ports) = split_ports(rest)?;
        let ports = ports.map(Ports::parse).transpose()?;
        let place = match place {
            "" if ports.is_none() && hours.is_none() => return Err(nothing()),
            "" | "*" => Place::Anywhere,
            _ => parse_place(place)?,
        };
        Ok(Rule { place, ports, hours })
    }
}

fn nothing() -> String {
    "a rule is an address, a network, a name, `*.example.com`, or a `:port`".to_owned()
}

/// The place, and what is behind its colon.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let (place, rest) = inner.split_once(']').ok_or_else(|| format!("`{text}` has no `]`"))?;
        let is_v6 = place.contains(':');
        return match rest.strip_prefix(':') {
            _ if !is_v6 => Err(format!("`{place}` is no IPv6 address; others go without brackets")),
            Some(ports) => Ok((place, Some(ports))),
            None if rest.is_empty() => Ok((place, None)),
            None => {
                Err(format!("`{rest}` behind the bracket; ports go behind a colon: \"[2001:db8::1]:443\""))
            }
        };
    }
    match text.split_once(':') {
        // An IPv6 address or network; its ports would be behind brackets.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((place, ports)) => Ok((place, Some(ports))),
        None => Ok((text, None)),
    }
}

fn parse_place(text: &str) -> Result<Place, String> {
    if text.contains('/') {
        let prefix: Prefix = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
        return Ok(Place::Net(prefix.canonical()));
    }
    if let Ok(domain) = Domain::wild(text)? {
        return Ok(Place::Name(domain));
    }
    Ok(
        match parse_host(text.as_bytes())
            .map_err(|bad| format!("`{text}` is neither an address nor a name: {bad}"))?
        {
            Host::Ip(ip) => Place::Net(host_net(ip)),
            Host::Name(name) => Place::Name(Domain::Exactly((&*name).into())),
        },
    )
}

fn host_net(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

impl Domain {
    /// What has a `*`, or begins with a dot; otherwise the text is given back.
    fn wild(text: &str) -> Result<Result<Domain, &str>, String> {
        if let Some(under) = text.strip_prefix("*.").filter(|under| !under.contains('*')) {
            return Ok(Ok(Domain::Below(name(under)?)));
        }
        if let Some(under) = text.strip_prefix('.').filter(|under| !under.contains('*')) {
            return Ok(Ok(Domain::Within(name(under)?)));
        }
        if !text.contains('*') {
            return Ok(Err(text));
        }
        if text == "*" {
            return Ok(Ok(Domain::Below(Box::default())));
        }
        if text.starts_with("*.") || text.starts_with('.') {
            return Err(format!(
                "`{text}`: a plain name goes behind `*.` and a leading dot, without another `*`"
            ));
        }
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        if !lower.is_ascii() {
            return Err(format!(
                "`{text}` is no name: beside a `*`, letters of other scripts are written as A-labels (xn--…)"
            ));
        }
        if let Ok(Host::Ip(_)) = parse_host(lower.replace('*', "1").as_bytes()) {
            return Err(format!(
                "`{text}` would be for addresses, which are written as a network: \"10.0.0.0/8\""
            ));
        }
        // Something in the place of each `*`, and it has to be a name.
        name(&lower.replace('*', "x"))?;
        let last_star = lower.rfind('*').unwrap_or(0);
        let (head, under) = match lower[last_star..].find('.') {
            Some(dot) => (&lower[..last_star + dot], &lower[last_star + dot + 1..]),
            None => (lower, ""),
        };
        Ok(Ok(Domain::Glob { head: head.into(), under: under.into() }))
    }
}

impl FromStr for Domain {
    type Err = String;

    /// Reads what may stand in `domains` of a route: all that a rule may have as its place, but for addresses.
    fn from_str(text: &str) -> Result<Domain, String> {
        match Domain::wild(text)? {
            Ok(domain) => Ok(domain),
            Err(text) => Ok(Domain::Exactly(name(text)?)),
        }
    }
}

/// A name as [`parse_host`] makes it.
fn name(text: &str) -> Result<Box<str>, String> {
    match parse_host(text.as_bytes()) {
        Ok(Host::Name(name)) => Ok((&*name).into()),
        Ok(Host::Ip(_)) => Err(format!("`{text}` is an address where a name is expected")),
        Err(bad) => Err(format!("`{text}` is no name: {bad}")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Whether a name is one of these, by the words of the table above rather than by any index.
    pub(in super::super) fn fits_plainly(domain: &Domain, name: &str) -> bool {
        match domain {
            Domain::Exactly(own) => **own == *name,
            Domain::Below(own) => own.is_empty() || name.ends_with(&format!(".{own}")),
            Domain::Within(own) => **own == *name || name.ends_with(&format!(".{own}")),
            Domain::Glob { head, under } if under.is_empty() => fits_by_labels(head, name),
            Domain::Glob { head, under } => fits_by_labels(&format!("{head}.{under}"), name),
        }
    }

    /// Whether a name fits a glob, label by label.
    pub(in super::super) fn fits_by_labels(glob: &str, name: &str) -> bool {
        fn label(glob: &[u8], text: &[u8]) -> bool {
            match glob {
                [] => text.is_empty(),
                [b'*', rest @ ..] => (0..=text.len()).any(|taken| label(rest, &text[taken..])),
                [first, rest @ ..] => text.first() == Some(first) && label(rest, &text[1..]),
            }
        }
        let (globs, texts): (Vec<_>, Vec<_>) = (glob.split('.').collect(), name.split('.').collect());
        globs.len() == texts.len()
            && globs.iter().zip(texts).all(|(glob, text)| label(glob.as_bytes(), text.as_bytes()))
    }

    fn place(text: &str) -> Place {
        let rule: Rule = text.parse().unwrap();
        assert_eq!((rule.ports, rule.hours), (None, None), "{text}");
        rule.place
    }

    fn net(text: &str) -> Place {
        Place::Net(text.parse().unwrap())
    }

    #[test]
    fn places_read() {
        assert_eq!(place("10.0.0.0/8"), net("10.0.0.0/8"));
        assert_eq!(place("10.1.2.3"), net("10.1.2.3/32"));
        assert_eq!(place("0x7f.1"), net("127.0.0.1/32"));
        assert_eq!(place("2001:db8::/32"), net("2001:db8::/32"));
        assert_eq!(place("[2001:db8::/32]"), net("2001:db8::/32"));
        assert_eq!(place("::1"), net("::1/128"));
        assert_eq!(place("::ffff:10.0.0.0/104"), net("10.0.0.0/8"));
        assert_eq!(place("::ffff:10.0.0.1"), net("10.0.0.1/32"));
        assert_eq!(place("*"), Place::Anywhere);
        assert_eq!(place("WWW.Example.com."), Place::Name(Domain::Exactly("www.example.com".into())));
        assert_eq!(place("bücher.example"), Place::Name(Domain::Exactly("xn--bcher-kva.example".into())));
        assert_eq!(place("*.Example.com"), Place::Name(Domain::Below("example.com".into())));
        assert_eq!(place("*.com"), Place::Name(Domain::Below("com".into())));
        assert_eq!(place(".example.com"), Place::Name(Domain::Within("example.com".into())));
        let glob =
            |head: &str, under: &str| Place::Name(Domain::Glob { head: head.into(), under: under.into() });
        assert_eq!(place("API-*.example.com"), glob("api-*", "example.com"));
        assert_eq!(place("a.*.b*.example.com"), glob("a.*.b*", "example.com"));
        assert_eq!(place("ads.*"), glob("ads.*", ""));
    }

    #[test]
    fn ports_and_hours_read() {
        let rule: Rule = "[2001:db8::1]:22,8000-8099@mon-fri/08:00-18:00".parse().unwrap();
        assert_eq!(rule.place, net("2001:db8::1/128"));
        assert!(
            rule.ports.is_some_and(|ports| ports.contains(22) && ports.contains(8050) && !ports.contains(80))
        );
        assert!(rule.hours.is_some());
        for text in
            [":443", "*:443", "example.com:443", "10.0.0.0/8:22", "@mon-fri", ":443@mon", "*@08:00-18:00/utc"]
        {
            text.parse::<Rule>().unwrap();
        }
    }

    #[test]
    fn what_is_no_rule_says_what_would_be() {
        for (text, says) in [
            ("", "a rule is"),
            (":", "port"),
            (":0", "port"),
            (":65536", "port"),
            (":90-80", "80-90"),
            (":http", "port"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.0.0.0/33", "prefix"),
            ("example.com/8", "prefix"),
            ("http://example.com", "`example.com`"),
            ("10.0.*", "a network"),
            ("exa mple.com", "neither"),
            ("1.2.3.4.5", "neither"),
            ("*.*.example.com", "plain name"),
            ("*.a*.example.com", "plain name"),
            (".*.com", "plain name"),
            ("*.", "no name"),
            ("*.10.0.0.1", "an address"),
            ("a*..com", "no name"),
            ("bü*.example", "no name"),
            ("[10.0.0.1]:80", "brackets"),
            ("[::1", "]"),
            ("[::1]80", "colon"),
            ("example.com@later", "no day"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert!("10.0.0.1".parse::<Domain>().is_err());
        assert_eq!("*".parse(), Ok(Domain::Below("".into())));
    }
}
