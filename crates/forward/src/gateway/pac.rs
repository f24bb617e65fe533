//! The file that tells browsers to use this proxy (PAC), and for what.

use std::fmt::Write as _;

use wmproxy_wire::destination::{Host, parse_host};

/// Names and addresses of the browser's own machine and of its network, which nobody behind a proxy could find. Everything
/// else goes through the proxy and never around it, also when it is down: that a name is kept from it is the business of
/// whoever runs it. An address of IPv6 has no dots, and is no plain name for that; and a name may begin with 127.
const HEAD: &str = r#"function FindProxyForURL(url, host) {
  var isPlain = isPlainHostName(host) && host.indexOf(":") < 0;
  var isNear = /\.(localhost|local)$/i.test(host);
  var isOwn = /^127\.[0-9]+\.[0-9]+\.[0-9]+$/.test(host) || /^\[?::1\]?$/.test(host);
  if (isPlain || isNear || isOwn) return "DIRECT";
  return ""#;

/// The file for who reaches the proxy under `authority`, by TLS or not. None if that is no host with a port or without one: what a
/// client says must not become part of a program.
pub(super) fn file(authority: &str, is_tls: bool) -> Option<String> {
    let (host, port) = split(authority)?;
    let port: u16 = match port {
        None if is_tls => 443,
        None => 80,
        // No sign and no space, which numbers are read with otherwise.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port > 0)?
        }
        Some(_) => return None,
    };
    let kind = if is_tls { "HTTPS" } else { "PROXY" };
    let mut text = String::from(HEAD);
    // Writing into text does not fail.
    let _ = match parse_host(host.as_bytes()).ok()? {
        Host::Ip(std::net::IpAddr::V6(ip)) => write!(text, "{kind} [{ip}]:{port}"),
        Host::Ip(ip) => write!(text, "{kind} {ip}:{port}"),
        Host::Name(name) if is_plain(&name) => write!(text, "{kind} {name}:{port}"),
        Host::Name(_) => return None,
    };
    text.push_str("\";\n}\n");
    Some(text)
}

/// Host and port, where there is one.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let (host, rest) = authority.split_at(authority.find(']')? + 1);
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// Whether a name has nothing in it that means something in a text of JavaScript, whatever names may have otherwise.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_proxy_as_it_was_reached() {
        for (authority, is_tls, expected) in [
            ("proxy.example.com:8090", false, "PROXY proxy.example.com:8090"),
            ("Proxy.Example.com", true, "HTTPS proxy.example.com:443"),
            ("192.0.2.1", false, "PROXY 192.0.2.1:80"),
            ("[2001:db8::1]:8090", true, "HTTPS [2001:db8::1]:8090"),
            ("[::1]", false, "PROXY [::1]:80"),
        ] {
            let text = file(authority, is_tls).unwrap();
            assert!(text.contains(&format!("return \"{expected}\";\n")), "{authority}: {text}");
            assert_eq!(text.matches("DIRECT").count(), 1, "only for what is near");
            assert_eq!(text.matches('{').count(), text.matches('}').count());
        }
    }

    #[test]
    fn nothing_else_gets_into_the_program() {
        for authority in [
            "",
            ":80",
            "a:0",
            "a:99999",
            "a:+80",
            "a:80:80",
            "a\";alert(1);\":80",
            "a b:80",
            "a\\:80",
            "a\n:80",
            "user@a:80",
            "a/b",
            "[::1",
            "[::1]80",
            "[a]:80",
            "<a>",
        ] {
            assert_eq!(file(authority, false), None, "{authority:?}");
        }
    }
}
