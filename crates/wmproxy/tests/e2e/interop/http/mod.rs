//! HTTP between programs that people use: curl, wrk, h2load and nghttp before the proxy, nginx behind it.

mod browser;
mod grpc;
mod long;
mod python;

use std::path::PathBuf;
use std::process::Command;

use wmproxy_testkit::exec::{Finished, Service};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Authority, Conn, Origin, Pattern, Proxy, TempDir, eventually};

use super::{asked, call, program};
use crate::http::{http, route, site};
use crate::start;

const LARGE: usize = 32 << 20;

/// nginx with a large file, behind the proxy with and without TLS.
struct Web {
    dir: TempDir,
    pattern: Vec<u8>,
    proxy: Proxy,
    authority: Authority,
    _nginx: Service,
}

impl Web {
    fn new() -> Self {
        let (dir, authority, port) = (TempDir::new(), Authority::new(), free_port());
        let pattern = Pattern::new(5).bytes(0, LARGE);
        std::fs::create_dir_all(dir.join("www")).unwrap();
        std::fs::write(dir.join("www/large"), &pattern).unwrap();
        std::fs::write(dir.join("www/page.html"), "<p>a page</p>\n".repeat(1_000)).unwrap();
        let root = dir.join("www").display().to_string();
        let _nginx = nginx(
            &dir,
            &format!(
                "types {{ text/html html; }} keepalive_requests 1000000; server {{ listen 127.0.0.1:{port}; root {root};\n\
                 location /echo {{ return 200 \"$request_method $request_uri $server_protocol $http_x_forwarded_proto\\n\"; }}\n\
                 location /chunked {{ alias {root}/large; sub_filter_types *; sub_filter no-such-text x; }} }}"
            ),
            port,
        );
        let pair = authority.issue("web", &["a.example", "127.0.0.1"]);
        let endpoint =
            route(&format!("reverse_proxy = \"127.0.0.1:{port}\"\ncompress = [\"zstd\", \"br\", \"gzip\"]"));
        let plain = http("", &endpoint);
        let tls = http(&format!("tls = {}", pair.toml()), &endpoint).replace("name = \"h\"", "name = \"s\"");
        let proxy = start(&format!("{plain}{tls}"));
        Web { dir, pattern, proxy, authority, _nginx }
    }

    /// curl with a target on one of the listeners.
    fn curl(&self, listener: &str, options: &[&str], path: &str) -> Finished {
        let scheme = if listener == "s" { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.proxy.tcp(listener));
        let ca = self.authority.ca().display().to_string();
        call("curl", &[&["-sS", "--fail", "--cacert", &ca], options, &[&url]].concat()).success()
    }

    fn got(&self) -> PathBuf {
        self.dir.join("got")
    }
}

#[test]
fn curl_speaks_every_version() {
    if !asked() {
        return;
    }
    let web = Web::new();
    // What asks in 1.0 is answered in 1.1, as RFC 9110 section 6.2 has it, and in no form that 1.0 does not know.
    for (listener, option, version) in [
        ("h", "--http1.0", "1.1"),
        ("h", "--http1.1", "1.1"),
        ("h", "--http2-prior-knowledge", "2"),
        ("s", "--http1.0", "1.1"),
        ("s", "--http1.1", "1.1"),
        ("s", "--http2", "2"),
    ] {
        let said =
            web.curl(listener, &[option, "-w", "%{http_version} %{http_code}"], "/echo/a%20b?c").stdout;
        let scheme = if listener == "s" { "https" } else { "http" };
        assert_eq!(
            said,
            format!("GET /echo/a%20b?c HTTP/1.1 {scheme}\n{version} 200"),
            "{listener} {option}"
        );
        let got = web.got().display().to_string();
        for path in ["/large", "/chunked"] {
            web.curl(listener, &[option, "-o", &got], path);
            assert!(
                std::fs::read(&got).unwrap() == web.pattern,
                "{listener} {option} {path}: the download differs"
            );
        }
        let head = web.curl(listener, &[option, "-I"], "/large").stdout.to_lowercase();
        assert!(head.contains(&format!("content-length: {LARGE}")), "{head}");
        web.curl(listener, &[option, "-r", "1000-999999", "-o", &got], "/large");
        assert!(
            std::fs::read(&got).unwrap() == web.pattern[1_000..1_000_000],
            "{listener} {option}: the range differs"
        );
        let page = web.curl(listener, &[option, "--compressed"], "/page.html").stdout;
        assert_eq!(page, "<p>a page</p>\n".repeat(1_000), "{listener} {option}");
    }
}

#[test]
fn curl_uploads_in_every_way() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let bytes = Pattern::new(6).bytes(0, LARGE);
    std::fs::write(dir.join("up"), &bytes).unwrap();
    let (up, got) = (dir.join("up").display().to_string(), dir.join("got").display().to_string());
    let origin = Origin::named("o");
    let proxy = start(&site(origin.addr()));
    let url = format!("http://{}/", proxy.tcp("h"));
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        // With a length, and with `Expect: 100-continue` where curl does that; then in chunks.
        let chunked = ["-H", "Transfer-Encoding: chunked"];
        let ways: &[&[&str]] = &[&[], &["-H", "Expect: 100-continue"], &["-H", "Expect:"], &chunked];
        for more in ways.iter().filter(|more| version != "--http1.0" || **more != chunked) {
            let options = [&["-sS", "--fail", version, "-T", &up, "-o", &got], *more, &[&url]].concat();
            call("curl", &options).success();
            assert!(std::fs::read(&got).unwrap() == bytes, "{version} {more:?}: the echo differs");
        }
    }
    assert_eq!(origin.backend().active(), origin.backend().active().min(2), "connections are used again");
}

#[test]
fn load_by_wrk_and_h2load_fails_nowhere() {
    if !asked() {
        return;
    }
    let web = Web::new();
    let plain = format!("http://{}/page.html", web.proxy.tcp("h"));
    let secure = format!("https://{}/page.html", web.proxy.tcp("s"));
    for url in [&plain, &secure] {
        let said = call("wrk", &["-t1", "-c50", "-d2s", url]).success().stdout;
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
        for more in [&["--h1"][..], &["-m", "20"]] {
            let said = call("h2load", &[&["-n", "5000", "-c", "20"], more, &[url]].concat()).success().stdout;
            assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
            assert!(said.contains("status codes: 5000 2xx"), "{said}");
        }
    }
}

#[test]
fn nghttp_finds_nothing_to_complain_of() {
    if !asked() {
        return;
    }
    let web = Web::new();
    let url = format!("http://{}/page.html", web.proxy.tcp("h"));
    let said = call("nghttp", &["-nv", "--no-verify-peer", "-m", "10", &url]).success().stdout;
    assert_eq!(said.matches(":status: 200").count(), 10, "{said}");
    assert!(!said.contains("RST_STREAM") && !said.contains("[ERROR]"), "{said}");
    let large = format!("https://{}/large", web.proxy.tcp("s"));
    call("nghttp", &["-n", "--no-verify-peer", &large]).success();
}

/// Starts nginx with this in its block `http`, and waits for it at a port.
pub(crate) fn nginx(dir: &TempDir, http: &str, port: u16) -> Service {
    let temp = dir.path().display();
    let config = format!(
        "daemon off; pid {temp}/nginx.pid; error_log stderr; user root;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path {temp}/1; proxy_temp_path {temp}/2; fastcgi_temp_path {temp}/3; uwsgi_temp_path \
         {temp}/4; scgi_temp_path {temp}/5;\n{http}\n}}\n"
    );
    let path = dir.write("nginx.conf", &config);
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(dir.path()).arg("-c").arg(path).args(["-e", "stderr"]);
    let service = Service::start(&mut command, &dir.join("nginx.log"));
    eventually("nginx", || Conn::try_connect(&Addr::local(port)).is_ok());
    service
}
