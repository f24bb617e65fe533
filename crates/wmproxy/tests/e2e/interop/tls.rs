//! TLS with OpenSSL's programs, curl and nginx at the other end.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, Service, run};
use wmproxy_testkit::tcp::{Conn, free_port};
use wmproxy_testkit::tls::Pair;
use wmproxy_testkit::{Addr, Authority, Backend, Proxy, TempDir, eventually};

use super::{asked, call, program};
use crate::{group, setup, tcp};

/// A server of the system, once it listens on `port`.
fn serve(name: &str, args: &[&str], dir: &TempDir, port: u16) -> Service {
    let service = Service::start(Command::new(program(name)).args(args), &dir.join("service.log"));
    let addr: Addr = format!("127.0.0.1:{port}").parse().unwrap();
    eventually("the server listens", || Conn::try_connect(&addr).is_ok());
    service
}

/// `openssl s_client` to the proxy, which says a line, waits for what may come and ends.
fn s_client(proxy: &Proxy, args: &str) -> Finished {
    let line = format!(
        "(echo hello; sleep 0.3) | {} s_client -connect {} {args}",
        program("openssl").display(),
        proxy.tcp("t")
    );
    run(Command::new("sh").args(["-c", &line]), Duration::from_secs(30))
}

#[test]
fn openssl_chooses_certificates_and_takes_sessions_up_again() {
    if !asked() {
        return;
    }
    let authority = Authority::new();
    let backend = Backend::lines();
    let (a, b) = (authority.issue("first", &["a.test"]), authority.issue("second", &["*.b.test"]));
    let tls = format!("tls = [{}, {}]", a.toml(), b.toml());
    let proxy = setup(&format!("workers = 4\n{}", tcp(backend.addr(), &tls))).start();
    let trust = format!("-CAfile {} -verify_return_error", authority.ca().display());
    for (name, subject) in [("a.test", "first"), ("x.b.test", "second"), ("c.test", "first")] {
        for version in ["-tls1_3", "-tls1_2"] {
            let said = s_client(&proxy, &format!("{trust} -servername {name} {version}")).success();
            assert!(said.stdout.contains(&format!("CN = {subject}")), "{name}: {}", said.text());
            assert!(said.stdout.contains("HELLO"), "{}", said.text());
        }
    }
    let refused = s_client(&proxy, "-servername a.test -tls1_1");
    assert_ne!(refused.code, Some(0), "{}", refused.text());
    let dir = TempDir::new();
    for version in ["-tls1_3", "-tls1_2"] {
        let session = dir.join("session").display().to_string();
        s_client(&proxy, &format!("{trust} -servername a.test {version} -sess_out {session}")).success();
        // On which worker a connection ends is for the kernel to say.
        for _ in 0..8 {
            let again = s_client(&proxy, &format!("{trust} -servername a.test {version} -sess_in {session}"));
            assert!(again.stdout.contains("Reused, "), "{version}: {}", again.text());
        }
    }
}

#[test]
fn curl_proves_who_it_is() {
    if !asked() {
        return;
    }
    let authority = Authority::new();
    let backend = Backend::http("made it");
    let pair = authority.issue("server", &["a.test"]);
    let ca = authority.ca().display().to_string();
    let tls = format!(
        "tls = {}",
        pair.toml().replace(" }", &format!(", client_ca = \"{ca}\", alpn = [\"http/1.1\"] }}"))
    );
    let proxy = setup(&tcp(backend.addr(), &tls)).start();
    let port = proxy.tcp("t").port();
    let (resolve, url) = (format!("a.test:{port}:127.0.0.1"), format!("https://a.test:{port}/"));
    let me = authority.issue("me", &["me"]);
    let (cert, key) = (me.cert.display().to_string(), me.key.display().to_string());
    let base = ["-sS", "--max-time", "20", "--cacert", &ca, "--resolve", &resolve, &url];
    let known = call("curl", &[&base[..], &["--cert", &cert, "--key", &key]].concat()).success();
    assert_eq!(known.stdout, "made it");
    let stranger = call("curl", &base);
    assert_ne!(stranger.code, Some(0), "{}", stranger.text());
    assert_eq!(backend.accepted(), 1);
}

/// A proxy to a TLS server on this port whom it believes by `authority`.
fn to(authority: &Authority, port: u16) -> Proxy {
    let tls = format!("tls = {{ ca = \"{}\" }}", authority.ca().display());
    setup(&format!("{}{}", group("up", &[format!("127.0.0.1:{port}")], &tls), tcp("up", ""))).start()
}

#[test]
fn openssl_is_a_server_behind_the_proxy() {
    if !asked() {
        return;
    }
    let authority = Authority::new();
    let Pair { cert, key } = authority.issue("server", &["127.0.0.1"]);
    let dir = TempDir::new();
    let (port, cert, key) = (free_port(), cert.display().to_string(), key.display().to_string());
    for version in ["-tls1_3", "-tls1_2"] {
        let accept = port.to_string();
        let args = ["s_server", "-accept", &accept, "-cert", &cert, "-key", &key, "-quiet", "-rev", version];
        let _server = serve("openssl", &args, &dir, port);
        let proxy = to(&authority, port);
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.send(b"stressed\n");
        assert_eq!(conn.line(), "desserts");
    }
}

#[test]
fn nginx_is_a_server_behind_the_proxy() {
    if !asked() {
        return;
    }
    let authority = Authority::new();
    let pair = authority.issue("server", &["127.0.0.1"]);
    let (dir, port) = (TempDir::new(), free_port());
    let body: String = (0..200_000).map(|i: u32| char::from(b'a' + (i % 26) as u8)).collect();
    dir.write("html/index.html", &body);
    let config = format!(
        "daemon off; user root; pid {dir}/pid; error_log {dir}/error.log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; \
         uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         server {{ listen 127.0.0.1:{port} ssl; root {dir}/html; ssl_certificate {}; ssl_certificate_key {}; }} }}\n",
        pair.cert.display(),
        pair.key.display(),
        dir = dir.path().display(),
    );
    let config = dir.write("nginx.conf", &config).display().to_string();
    let _server = serve("nginx", &["-c", &config], &dir, port);
    let proxy = to(&authority, port);
    let got = call("curl", &["-sS", "--max-time", "20", &format!("http://{}/", proxy.tcp("t"))]).success();
    assert!(got.stdout == body, "{} bytes: {}", got.stdout.len(), got.stderr);
}
