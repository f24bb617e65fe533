use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use wmproxy_tunnel::options::{PortRange, TransportKind, Trust};
use wmproxy_wire::tunnel::message::Kind;

use super::super::plan::{ModePlan, Plan};
use super::super::{Format, Loaded, Problems, load_text};
use super::plan::TunnelEndPlan;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn load(text: &str) -> Result<Loaded, Problems> {
    load_text("test", &text.replace("KEY", KEY), Format::Toml)
}

fn plan(text: &str) -> Plan {
    load(text).unwrap_or_else(|problems| panic!("{problems}")).plan
}

/// What is said to a client with these keys and services.
fn client(keys: &str) -> String {
    let head = "[tunnel_client]\nserver = \"127.0.0.1:7000\"\nname = \"home\"\nkey = \"KEY\"\n";
    match load(&format!("{head}{keys}")) {
        Ok(loaded) => loaded.warnings.render(false),
        Err(problems) => problems.render(false),
    }
}

fn server(keys: &str) -> String {
    match load(&format!("[tunnel_server]\nlisten = \":7000\"\n{keys}")) {
        Ok(loaded) => loaded.warnings.render(false),
        Err(problems) => problems.render(false),
    }
}

#[test]
fn a_server_has_its_grants_and_defaults() {
    let plan = plan(
        r#"
        [tunnel_server]
        listen = ":7000"
        http = ":80"
        https = [":443"]
        [tunnel_server.clients.home]
        key = "KEY"
        ports = ["20000-20100", 25]
        hosts = ["*.Home.example.com", "home.example.com."]
        max_services = 20
        rate_limit = "100m/s"
        "#,
    );
    assert!(!plan.is_idle());
    let names: Vec<&str> = plan.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["tunnel", "tunnel", "tunnel:http", "tunnel:https"]);
    let server = plan.tunnel_server.unwrap();
    assert!(server.takes(TransportKind::Tcp) && server.takes(TransportKind::Quic));
    assert_eq!(server.spec.login_timeout, Duration::from_secs(10));
    assert!(server.socket.tcp.keepalive.is_some(), "a client that is gone is found out");
    let home = &server.spec.clients[0];
    assert_eq!(home.ports, [PortRange { first: 20000, last: 20100 }, PortRange { first: 25, last: 25 }]);
    assert_eq!(home.hosts, ["*.home.example.com", "home.example.com"]);
    assert_eq!(
        (home.max_services, home.private, home.rate_limit.unwrap().bytes_per_second()),
        (20, true, 100 << 20)
    );
    assert_eq!(server.tls.alpn, ["wmproxy-tunnel/1"]);
}

#[test]
fn every_kind_of_service_has_its_end() {
    let plan = plan(
        r#"
        [tunnel_client]
        server = ["a.example.com:7000", "b.example.com:7000"]
        name = "home"
        key = "KEY"
        via = "office"
        [[tunnel_client.service]]
        name = "ssh"
        local = "127.0.0.1:22"
        port = 20022
        visitors = ["203.0.113.0/24"]
        send_proxy_protocol = "v2"
        rate_limit = { up = "1k/s" }
        health_check = { interval = "1s" }
        [[tunnel_client.service]]
        name = "dns"
        type = "udp"
        local = "127.0.0.1:53"
        port = 0
        [[tunnel_client.service]]
        name = "web"
        type = "http"
        local = "127.0.0.1:3000"
        hosts = "App.example.com"
        paths = ["/api/"]
        request_headers = { set = { "x-from" = "{client_ip}" }, remove = "cookie" }
        [[tunnel_client.service]]
        name = "db"
        local = "unix:/run/db.sock"
        secret = "KEY"
        clients = ["office"]
        [[tunnel_client.service]]
        name = "out"
        type = "proxy"
        port = 20080
        egress = "lan"
        visitors = ["203.0.113.0/24"]
        [[tunnel_client.visitor]]
        service = "office/files"
        secret = "KEY"
        listen = "127.0.0.1:4450"
        [[tunnel_client.visitor]]
        service = "office/dns"
        type = "udp"
        secret = "KEY"
        listen = "127.0.0.1:5300"
        [chain.office]
        hops = ["http://proxy.lan:3128"]
        [egress.lan]
        private = "allow"
        "#,
    );
    let client = plan.tunnel_client.as_ref().unwrap();
    assert_eq!((client.spec.servers.len(), &client.spec.trust), (2, &Trust::Key));
    let kinds: Vec<Kind> = client.services.iter().map(|service| service.spec.service.kind).collect();
    assert_eq!(kinds, [Kind::Tcp, Kind::Udp, Kind::Http, Kind::Tcp, Kind::Proxy]);
    let ssh = &client.services[0].spec.service;
    assert_eq!((ssh.id, ssh.port, ssh.rate_up, ssh.visitors[0].as_str()), (0, 20022, 1024, "203.0.113.0/24"));
    let TunnelEndPlan::Stream { group, .. } = &client.services[0].end else { panic!("no stream") };
    assert!(plan.groups[group].health.is_some());
    assert!(matches!(client.services[1].end, TunnelEndPlan::Datagrams { .. }));
    assert_eq!(client.services[2].spec.service.hosts, ["app.example.com"]);
    assert!(client.services[3].spec.secret.is_some() && client.services[3].spec.service.is_private);
    assert!(matches!(&client.services[4].end, TunnelEndPlan::Forward(spec) if &*spec.egress == "lan"));
    assert_eq!(&*plan.visits["tunnel:visit/office/files"].service, "office/files");
    assert!(matches!(plan.listeners[0].mode, ModePlan::Stream(_)));
    assert!(matches!(plan.listeners[1].mode, ModePlan::Visit(_)));
    assert_eq!(&*plan.listeners[1].name, "tunnel:visit/office/dns");
}

#[test]
fn what_no_server_would_read_is_refused() {
    let web = |name: &str, length: usize| {
        format!(
            "[[tunnel_client.service]]\nname = \"{name}\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = \"{name}.example\"\n\
             request_headers = {{ set = {{ x-long = \"{}\" }} }}\n",
            "x".repeat(length)
        )
    };
    let told = client(&web("a", 9000));
    assert!(
        told.contains("no tunnel server takes this: malformed message: a text that is too long"),
        "{told}"
    );
    // Each is short enough, and all together are not.
    let many: String = (0..600).map(|n| web(&format!("s{n}"), 8000)).collect();
    let told = client(&many);
    assert!(told.contains("bytes is too long"), "{told}");
}

#[test]
fn what_is_wrong_with_a_service_is_told_with_its_remedy() {
    for (service, message) in [
        ("name = \"a\"\nlocal = \"a:1\"", "write port = 20022, or port = 0"),
        ("name = \"a\"\nport = 1", "`local` is missing"),
        ("name = \"a\"\nlocal = \"a:1\"\nsecret = \"short\"", "may be guessed, also by the tunnel server"),
        ("local = \"a:1\"\nport = 1", "`name` is missing"),
        ("name = \"a b\"\nlocal = \"a:1\"\nport = 1", "a name has 1 to 64"),
        ("name = \"a\"\nlocal = \":1\"\nport = 1", "a target needs a host"),
        ("name = \"a\"\nlocal = \"a:0\"\nport = 1", "port 0 can't be connected to"),
        ("name = \"a\"\nlocal = \"a:1-9\"\nport = 1", "one port is meant here"),
        ("name = \"a\"\nlocal = \"a:1\"\nport = 70000", "a whole number from 0 to 65535"),
        ("name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"", "`hosts` is missing"),
        ("name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = [\"a:80\"]", "a host has no port here"),
        ("name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = [\"http://a\"]", "a host has no scheme"),
        ("name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = \"a\"\nport = 8", "leave `port` out"),
        ("name = \"a\"\nlocal = \"a:1\"\nport = 1\nhosts = \"a\"", "ask for no host"),
        (
            "name = \"a\"\nlocal = \"a:1\"\nport = 1\nusers = { b = { password = \"KEY\" } }",
            "it is for type = \"http\" or \"proxy\"",
        ),
        ("name = \"a\"\nlocal = \"a:1\"\nport = 1\nterminate = true", "it is for type = \"https\""),
        ("name = \"a\"\nlocal = \"a:1\"\nport = 1\nclients = \"b\"", "add `secret` to make it private"),
        (
            "name = \"a\"\nlocal = \"a:1\"\nport = 1\nsecret = \"KEY\"",
            "a private service has no public place",
        ),
        ("name = \"a\"\ntype = \"udp\"\nlocal = \"unix:/a\"\nport = 1", "a unix socket takes no datagrams"),
        (
            "name = \"a\"\ntype = \"udp\"\nlocal = \"a:1\"\nport = 1\nsend_proxy_protocol = \"v1\"",
            "version 1 has no word for datagrams",
        ),
        ("name = \"a\"\ntype = \"proxy\"\nport = 1", "whoever reaches the server's port"),
        ("name = \"a\"\ntype = \"proxy\"\nport = 1\nopen = true\negress = \"b\"", "no egress named `b`"),
        ("name = \"a\"\ntype = \"proxy\"\nport = 1\nopen = true\nlocal = \"a:1\"", "has no effect"),
        (
            "name = \"a\"\nlocal = \"a:1\"\nport = 1\nhealth_check = { interval = \"0s\" }",
            "must be more than 0",
        ),
        (
            "name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = \"a\"\nrequest_headers = { set = { \"a b\" = \"\" } }",
            "no name of a field",
        ),
        (
            "name = \"a\"\ntype = \"http\"\nlocal = \"a:1\"\nhosts = \"a\"\nusers = { b = { password = \"plain\" } }",
            "hash-password",
        ),
        (
            "name = \"a\"\nlocal = \"a:1\"\nport = 1\n[[tunnel_client.service]]\nname = \"a\"\nlocal = \"a:2\"\nport = 2",
            "two services are named `a`",
        ),
    ] {
        let said = client(&format!("[[tunnel_client.service]]\n{service}"));
        assert!(said.contains(message), "{service}\n{said}");
    }
}

#[test]
fn what_is_wrong_with_a_client_is_told_with_its_remedy() {
    let service = "[[tunnel_client.service]]\nname = \"a\"\nlocal = \"a:1\"\nport = 1";
    for (keys, message) in [
        ("via = \"b\"", "no chain named `b`"),
        ("mux = true\ntransport = \"quic\"", "QUIC carries many in any case"),
        ("transport = \"udp\"", "expected one of tcp, quic"),
        ("fingerprint = \"sha256:00\"", "64 hexadecimal digits"),
        ("heartbeat = \"0s\"", "nobody does anything in no time"),
        ("pool = 5000", "at most 4096 connections wait"),
        ("ca = \"nowhere.pem\"", "nowhere.pem"),
        ("[[tunnel_client.visitor]]\nservice = \"db\"", "this names no client"),
        ("[[tunnel_client.visitor]]\nservice = \"a/db\"\nlisten = \"127.0.0.1:1\"", "`secret` is missing"),
        ("[[tunnel_client.visitor]]\nservice = \"a/db\"\nsecret = \"KEY\"", "`listen` is missing"),
        (
            "[[tunnel_client.visitor]]\nservice = \"home/db\"\nsecret = \"KEY\"\nlisten = \"127.0.0.1:1\"",
            "this client's own service",
        ),
    ] {
        let said = client(&format!("{keys}\n{service}"));
        assert!(said.contains(message), "{keys}\n{said}");
    }
    assert!(client("").contains("offers nothing and visits nobody"));
    let missing = load("[tunnel_client]\n").unwrap_err().render(false);
    for key in ["`server`", "`name`", "`key`"] {
        assert!(missing.contains(&format!("{key} is missing")), "{missing}");
    }
}

#[test]
fn a_short_key_is_refused_where_nothing_else_proves_the_server() {
    let with = |trust: &str| {
        let text = format!(
            "[tunnel_client]\nserver = \"127.0.0.1:7000\"\nname = \"home\"\nkey = \"tooshort\"\n{trust}\n\
             [[tunnel_client.service]]\nname = \"a\"\nlocal = \"a:1\"\nport = 1"
        );
        load(&text)
    };
    let refused = with("").unwrap_err().render(false);
    assert!(refused.contains("nothing proves who the server is"), "{refused}");
    assert!(!refused.contains("tooshort"), "{refused}");
    let pinned = with(&format!("fingerprint = \"sha256:{}\"", "ab".repeat(32))).unwrap();
    assert!(pinned.warnings.render(false).contains("may be guessed"));
}

#[test]
fn what_is_wrong_with_a_server_is_told_with_its_remedy() {
    for (keys, message) in [
        ("", "nobody may log in"),
        ("[tunnel_server.clients.a]", "`key` is missing"),
        ("[tunnel_server.clients.a]\nkey = \"short\"\nports = 1", "may be guessed"),
        ("[tunnel_server.clients.a]\nkey = \"KEY\"\nports = \"0-9\"", "the first one is 1"),
        ("[tunnel_server.clients.a]\nkey = \"KEY\"\nports = 70000", "expected a port"),
        ("[tunnel_server.clients.a]\nkey = \"KEY\"\nhosts = \"a..b\"", "expected a host"),
        (
            "[tunnel_server.clients.a]\nkey = \"KEY\"\nhosts = \"a.b\"",
            "visitors can ask for none of these hosts",
        ),
        ("[tunnel_server.clients.a]\nkey = \"KEY\"\nprivate = false", "may log in and offer nothing"),
        (
            "[tunnel_server.clients.a]\nkey = \"KEY\"\n[tunnel_server.clients.b]\nkey = \"KEY\"",
            "has this key already",
        ),
        ("http = \":7000\"", "another listener has tcp port 7000"),
        ("transports = []", "no transport is left"),
        ("cert = \"a.pem\"", "`key` is missing"),
        ("advertise = \"http://a\"", "neither an IP address nor a host name"),
        ("login_timeout = \"0s\"", "nobody does anything in no time"),
        ("max_pending = 0", "nobody could log in"),
    ] {
        let said = server(keys);
        assert!(said.contains(message), "{keys}\n{said}");
    }
    let missing = load("[tunnel_server]\n").unwrap_err().render(false);
    assert!(missing.contains("write listen = \":7000\""), "{missing}");
}

#[test]
fn a_key_that_everybody_may_read_is_told_of() {
    let file = std::env::temp_dir().join(format!("wmproxy-exposed-{}", std::process::id()));
    fs::write(&file, KEY).unwrap();
    let said = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        server(&format!("[tunnel_server.clients.a]\nports = 1\nkey_file = \"{}\"", file.display()))
    };
    let (exposed, grouped) = (said(0o604), said(0o640));
    fs::remove_file(&file).unwrap();
    assert!(exposed.contains("holds a secret, and everybody on this machine may read it"), "{exposed}");
    assert!(exposed.contains("chmod o-r "), "{exposed}");
    assert!(!grouped.contains("read it"), "a group may be meant: {grouped}");
}

#[test]
fn keys_and_secrets_are_masked() {
    let text = r#"
        [tunnel_server]
        listen = ":7000"
        [tunnel_server.clients.home]
        key = "KEY"
        [tunnel_client]
        server = "127.0.0.1:7000"
        name = "home"
        key = "KEY"
        [[tunnel_client.service]]
        name = "db"
        local = "a:1"
        secret = "KEY"
        [[tunnel_client.visitor]]
        service = "b/db"
        secret = "KEY"
        listen = "127.0.0.1:1"
    "#;
    let printed = load(text).unwrap().print();
    assert!(!printed.contains(KEY) && printed.matches("***").count() == 4, "{printed}");
    let broken = load(&text.replace("name = \"db\"", "nmae = \"db\"")).unwrap_err();
    assert!(!broken.render(false).contains(KEY));
}
