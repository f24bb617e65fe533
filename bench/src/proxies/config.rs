//! What each proxy is told for a scenario: the templates in `configs/`, and what stands in their places.

use std::net::SocketAddr;
use std::path::Path;

use super::Variant;
use crate::scenario::{Carrier, Feature, Front, Kind, Spec};

/// Where both ends of a tunnel find each other, and the names and texts of the server's and the client's file.
pub(super) fn write_pair(
    variant: Variant,
    spec: &Spec,
    (listen, control, backend): (SocketAddr, SocketAddr, SocketAddr),
    dir: &Path,
) -> [(&'static str, String); 2] {
    let templates = match variant {
        Variant::Rathole => [
            ("server.toml", include_str!("../../configs/rathole-server.toml")),
            ("client.toml", include_str!("../../configs/rathole-client.toml")),
        ],
        _ => [
            ("server.toml", include_str!("../../configs/wmproxy-tunnel-server.toml")),
            ("client.toml", include_str!("../../configs/wmproxy-tunnel-client.toml")),
        ],
    };
    let transport = if spec.carrier() == Some(Carrier::Quic) { "quic" } else { "tcp" };
    templates.map(|(name, template)| {
        let text = template
            .replace("@LISTEN@", &listen.to_string())
            .replace("@PORT@", &listen.port().to_string())
            .replace("@CONTROL@", &control.to_string())
            .replace("@BACKEND@", &backend.to_string())
            .replace("@TYPE@", if spec.is_udp() { "udp" } else { "tcp" })
            .replace("@TRANSPORT@", transport)
            .replace("@DIR@", &dir.display().to_string());
        (name, text)
    })
}

/// The name of the file and its text. `load_module` is nginx's line for its stream module.
pub(super) fn write(
    variant: Variant,
    spec: &Spec,
    (listen, backend): (SocketAddr, Option<SocketAddr>),
    load_module: &str,
    dir: &Path,
) -> (&'static str, String) {
    let (name, template) = template(variant, spec);
    let mut config = template.to_owned();
    let lines = match spec.feature {
        Feature::Http(front) | Feature::Files(front) => http_lines(variant, front),
        feature => stream_lines(variant, feature),
    };
    for (place, text) in lines {
        config = config.replace(place, text);
    }
    let splices = spec.kind.is_bulk() || spec.kind == Kind::HttpLong;
    let config = config
        .replace("@LISTEN@", &listen.to_string())
        .replace("@PORT@", &listen.port().to_string())
        .replace("@BACKEND@", &backend.map_or_else(String::new, |backend| backend.to_string()))
        .replace("@LOAD_MODULE@", load_module)
        .replace("@UDP@", if spec.is_plain_udp() { " udp rcvbuf=4m" } else { "" })
        .replace("@NGINX_TLS@", if spec.is_tls() { " ssl" } else { "" })
        .replace("@HAPROXY_TLS@", if spec.is_tls() { "ssl crt @DIR@/bench.both" } else { "" })
        .replace("@SCHEME@", if spec.is_plain_udp() { "udp://" } else { "" })
        .replace("@SPLICE@", if splices { "option splice-auto" } else { "" })
        .replace("@DIR@", &dir.display().to_string());
    (name, config)
}

fn template(variant: Variant, spec: &Spec) -> (&'static str, &'static str) {
    if spec.is_files() {
        return match variant {
            Variant::Nginx => ("nginx.conf", include_str!("../../configs/nginx-files.conf")),
            Variant::Caddy => ("Caddyfile", include_str!("../../configs/Caddyfile")),
            _ => ("wmproxy.toml", include_str!("../../configs/wmproxy-files.toml")),
        };
    }
    match variant {
        Variant::Wmproxy if spec.door().is_some() => {
            return ("wmproxy.toml", include_str!("../../configs/wmproxy-forward.toml"));
        }
        Variant::Squid => return ("squid.conf", include_str!("../../configs/squid.conf")),
        Variant::Tinyproxy => return ("tinyproxy.conf", include_str!("../../configs/tinyproxy.conf")),
        Variant::Dante => return ("danted.conf", include_str!("../../configs/danted.conf")),
        Variant::Microsocks => return ("microsocks.none", ""),
        _ => {}
    }
    match (variant, spec.is_http()) {
        (Variant::Nginx, false) => ("nginx.conf", include_str!("../../configs/nginx.conf")),
        (Variant::Nginx, true) => ("nginx.conf", include_str!("../../configs/nginx-http.conf")),
        (Variant::Haproxy, false) => ("haproxy.cfg", include_str!("../../configs/haproxy.cfg")),
        (Variant::Haproxy, true) => ("haproxy.cfg", include_str!("../../configs/haproxy-http.cfg")),
        (Variant::Wmproxy, true) => ("wmproxy.toml", include_str!("../../configs/wmproxy-http.toml")),
        _ => ("wmproxy.toml", include_str!("../../configs/wmproxy.toml")),
    }
}

/// What depends on what the clients of an HTTP proxy or server speak.
fn http_lines(variant: Variant, front: Front) -> &'static [(&'static str, &'static str)] {
    const NGINX_TLS: &str =
        "ssl_certificate @DIR@/bench.pem; ssl_certificate_key @DIR@/bench.key; ssl_protocols TLSv1.3;";
    match (variant, front) {
        (Variant::Wmproxy, Front::Clear) => &[("@TLS@", "")],
        (Variant::Wmproxy, Front::Tls | Front::H2) => {
            &[("@TLS@", "tls = [{ cert = \"@DIR@/bench.pem\", key = \"@DIR@/bench.key\" }]")]
        }
        (Variant::Nginx, Front::Clear) => &[("@FRONT@", ""), ("@TLS@", "")],
        (Variant::Nginx, Front::Tls) => &[("@FRONT@", " ssl"), ("@TLS@", NGINX_TLS)],
        (Variant::Nginx, Front::H2) => &[("@FRONT@", " ssl http2"), ("@TLS@", NGINX_TLS)],
        (Variant::Haproxy, Front::Clear) => &[("@FRONT@", ""), ("@PROTO@", "http")],
        (Variant::Haproxy, Front::Tls) => {
            &[("@FRONT@", "ssl crt @DIR@/bench.both alpn http/1.1"), ("@PROTO@", "https")]
        }
        (Variant::Haproxy, Front::H2) => {
            &[("@FRONT@", "ssl crt @DIR@/bench.both alpn h2,http/1.1"), ("@PROTO@", "https")]
        }
        (Variant::Caddy, Front::Clear) => &[("@SCHEME@", "http"), ("@PROTOCOL@", "h1"), ("@TLS@", "")],
        (Variant::Caddy, Front::Tls | Front::H2) => &[
            ("@SCHEME@", "https"),
            ("@PROTOCOL@", "h1 h2"),
            ("@TLS@", "tls @DIR@/bench.pem @DIR@/bench.key"),
        ],
        // The relay.
        _ => stream_lines(variant, Feature::None),
    }
}

/// What depends on what the proxies of layer 4 do besides relaying.
fn stream_lines(variant: Variant, feature: Feature) -> &'static [(&'static str, &'static str)] {
    use Feature::{ProxyHeader, ServerName, Splice, Tls};
    use Variant::{Haproxy, Nginx, Plain, Wmproxy};
    match (variant, feature) {
        (Wmproxy, ProxyHeader) => &[("@SERVICE@", ""), ("@GROUP@", "send_proxy_protocol = \"v2\"")],
        (Wmproxy, ServerName) => &[("@SERVICE@", "sni = { \"bench.test\" = \"backend\" }"), ("@GROUP@", "")],
        (Nginx, ProxyHeader) => {
            &[("@MAP@", ""), ("@SERVICE@", "proxy_protocol on;"), ("@TARGET@", "@BACKEND@")]
        }
        (Nginx, ServerName) => &[
            ("@MAP@", "map $ssl_preread_server_name $backend { bench.test @BACKEND@; }"),
            ("@SERVICE@", "ssl_preread on;"),
            ("@TARGET@", "$backend"),
        ],
        (Haproxy, ProxyHeader) => &[("@SERVICE@", ""), ("@SERVER@", "send-proxy-v2")],
        (Haproxy, ServerName) => &[
            (
                "@SERVICE@",
                "tcp-request inspect-delay 5s\n    \
                     tcp-request content accept if { req.ssl_hello_type 1 }\n    \
                     use-server backend if { req.ssl_sni -i bench.test }",
            ),
            ("@SERVER@", ""),
        ],
        (Wmproxy, Tls) => &[
            ("@SERVICE@", "tls = { cert = \"@DIR@/bench.pem\", key = \"@DIR@/bench.key\" }"),
            ("@GROUP@", ""),
        ],
        (Nginx, Tls) => &[
            ("@MAP@", ""),
            (
                "@SERVICE@",
                "ssl_certificate @DIR@/bench.pem; ssl_certificate_key @DIR@/bench.key; ssl_protocols TLSv1.3;",
            ),
            ("@TARGET@", "@BACKEND@"),
        ],
        (Haproxy, Tls) => &[("@SERVICE@", ""), ("@SERVER@", "")],
        (Plain, Splice) => &[("@SERVICE@", "splice = \"off\""), ("@GROUP@", "")],
        _ => {
            &[("@SERVICE@", ""), ("@GROUP@", ""), ("@MAP@", ""), ("@TARGET@", "@BACKEND@"), ("@SERVER@", "")]
        }
    }
}
