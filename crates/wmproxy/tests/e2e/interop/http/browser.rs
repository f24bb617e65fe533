//! Chromium before the proxy, nginx and a WebSocket behind it: a page with all that belongs to one, by the versions that
//! the browser chooses itself.

use std::time::Duration;

use serde_json::{Value, json};
use wmproxy_testkit::exec::Service;
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Authority, Backend, Origin, Proxy, TempDir};

use super::super::chromium::{Browser, PATIENCE};
use super::{asked, nginx};
use crate::http::route;
use crate::setup;
use crate::websocket::echo_server;

const PAGE: &str = include_str!("browser/page.html");
const SCRIPT: &str = include_str!("browser/app.js");
const PICTURES: usize = 30;
/// Between two signs of life of a stream of events.
const BEAT: Duration = Duration::from_millis(20);
/// What an encoder can't shrink to less than a few frames and packets.
const TEXT: usize = 400_000;
/// The password is `open sesame`, hashed by bcrypt with the least cost.
const USERS: &str = "alice:$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\n";

/// The page and what it uses, by `h` without TLS and by `s` with it.
struct Site {
    dir: TempDir,
    secure: u16,
    origin: Origin,
    proxy: Proxy,
    _authority: Authority,
    _sockets: Backend,
    _nginx: Service,
}

impl Site {
    fn new() -> Self {
        let (dir, port, secure) = (TempDir::new(), free_port(), free_port());
        let (origin, sockets) = (origin(), echo_server());
        fill(&dir);
        let _nginx = nginx(&dir, &web(&dir, port), port);
        let to = |path: &str, more: &str, target: &str| {
            route(&format!("path = \"{path}\"\n{more}\nreverse_proxy = \"{target}\""))
        };
        let (web, calls) = (format!("127.0.0.1:{port}"), origin.addr().to_string());
        let coded = ["gzip", "br", "zstd"].map(|coding| {
            let more = format!("strip_prefix = \"/coded/{coding}\"\ncompress = [\"{coding}\"]");
            to(&format!("/coded/{coding}/"), &more, &web)
        });
        let all = "compress = [\"zstd\", \"br\", \"gzip\"]";
        let routes = [
            coded.concat(),
            to("/events", all, &calls),
            to("/echo", "", &calls),
            to("/report", "", &calls),
            route("path = \"/refused\"\nrespond = { status = 403, body = \"no\" }"),
            to("/ws", "", &sockets.addr().to_string()),
            to("/private/", "basic_auth = { users_file = \"{dir}/users\", realm = \"private\" }", &web),
            to("/", all, &web),
        ]
        .concat();
        let moved = route(&format!(
            "path = \"=/page.html\"\nredirect = {{ to = \"https://{{hostname}}:{secure}{{uri}}\" }}"
        ));
        let authority = Authority::new();
        let tls = authority.issue("web", &["127.0.0.1"]).toml();
        let config = format!(
            "[access_log]\nfile = \"{{dir}}/access.log\"\n\
             format = \"{{listener}} {{version}} {{status}} {{method}} {{path}} {{client_addr}} {{peer}} {{outcome}}\"\n\
             [[http]]\nname = \"h\"\nlisten = [\"127.0.0.1:0\"]\n{moved}{routes}\
             [[http]]\nname = \"s\"\nlisten = [\"127.0.0.1:{secure}\"]\ntls = {tls}\n{routes}"
        );
        let proxy = setup(&config).file("users", USERS).start();
        Site { dir, secure, origin, proxy, _authority: authority, _sockets: sockets, _nginx }
    }

    /// What the page at `url` reports.
    fn visit(&self, url: &str) -> Value {
        let _browser = Browser::open(&self.dir, url, &[]);
        let report = || self.origin.requests().into_iter().find(|request| request.head.target() == "/report");
        let came = holds_within(PATIENCE, || report().is_some_and(|request| !request.body.is_empty()));
        let log = || std::fs::read_to_string(self.dir.join("chromium.log")).unwrap_or_default();
        assert!(came, "no report; requests: {:#?}; the browser said:\n{}", self.lines(), log());
        let report = report().unwrap();
        assert_eq!(report.head.get("cookie"), Some("one=1; two=2"), "cookies, in one field");
        serde_json::from_slice(&report.body).unwrap()
    }

    /// The access log: listener, version, status, method, path, client, peer and outcome of each request.
    fn lines(&self) -> Vec<Vec<String>> {
        let words = |line: &String| line.split(' ').map(str::to_owned).collect();
        self.proxy.file_lines("access.log").iter().map(words).collect()
    }

    /// The requests of a listener, once that of the WebSocket is over and among them.
    fn requests(&self, listener: &str) -> Vec<Vec<String>> {
        let of = |line: &Vec<String>| line[0] == listener;
        let ended = || self.lines().iter().any(|line| of(line) && line[4] == "/ws");
        assert!(holds_within(PATIENCE, ended), "{:#?}", self.lines());
        self.lines().into_iter().filter(of).collect()
    }
}

/// Answers the page's own calls.
fn origin() -> Origin {
    Origin::start(|call| match call.head.target() {
        "/echo" => {
            let body = call.read_body()?;
            call.reply(&Reply::new(200, body))
        }
        "/events" => {
            call.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            for number in 0..3 {
                call.send(format!("9\r\ndata: {number}\n\n\r\n"))?;
            }
            // A comment now and then, as such servers send them: that the page has gone shows in what can't be sent.
            loop {
                std::thread::sleep(BEAT);
                call.send("3\r\n:\n\n\r\n")?;
            }
        }
        _ => call.reply(&Reply(b"HTTP/1.1 204 Noted\r\n\r\n".to_vec())),
    })
}

/// The files of the page; the same with a password.
fn fill(dir: &TempDir) {
    for folder in ["www", "www/private"] {
        dir.write(&format!("{folder}/page.html"), PAGE);
        dir.write(&format!("{folder}/app.js"), SCRIPT);
        dir.write(&format!("{folder}/style.css"), "p { color: rgb(1, 2, 3) }\n");
    }
    for number in 0..PICTURES {
        let picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"16\" height=\"16\">{}</svg>\n",
            "<path d=\"M0 0L16 16\"/>".repeat(number * 40)
        );
        dir.write(&format!("www/pictures/{number}.svg"), &picture);
    }
    let text: String = (0..)
        .flat_map(|number: u32| format!("{} ", number.pow(2)).into_bytes())
        .map(char::from)
        .take(TEXT - 5)
        .collect();
    dir.write("www/text.txt", &format!("{text}<end>"));
}

/// nginx with these files.
fn web(dir: &TempDir, port: u16) -> String {
    format!(
        "types {{ text/html html; text/css css; text/javascript js; text/plain txt; image/svg+xml svg; }}\n\
         server {{ listen 127.0.0.1:{port}; root {root};\n\
         location /cookies {{ add_header Set-Cookie one=1; add_header Set-Cookie two=2; return 204; }} }}",
        root = dir.join("www").display()
    )
}

fn expected(scheme: &str, protocol: &str) -> Value {
    let codings = ["gzip", "br", "zstd"].map(|coding| json!([coding, TEXT, "<end>"]));
    json!({
        "scheme": scheme,
        "color": "rgb(1, 2, 3)",
        "pictures": PICTURES,
        "codings": codings,
        "echo": true,
        "refused": [403, "no"],
        "events": ["0", "1", "2"],
        "socket": ["hello", 300_000, 1000, true],
        "protocols": [protocol],
    })
}

#[test]
fn a_page_with_a_password_in_its_address_works_by_1_1() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let addr = site.proxy.tcp("h");
    let found = site.visit(&format!("http://alice:open%20sesame@{addr}/private/page.html"));
    assert_eq!(found, expected("http:", "http/1.1"));
    let requests = site.requests("h");
    assert!(requests.iter().all(|line| line[1] == "HTTP/1.1"), "{requests:#?}");
    let socket = requests.iter().find(|line| line[4] == "/ws").unwrap();
    assert_eq!((socket[2].as_str(), socket[3].as_str()), ("101", "GET"));
    assert!(requests.iter().any(|line| line[2] == "401" && line[4] == "/private/page.html"), "{requests:#?}");
    assert!(requests.iter().any(|line| line[2] == "200" && line[4] == "/private/app.js"), "{requests:#?}");
}

#[test]
fn a_page_that_moved_to_tls_works_by_h2_on_one_connection() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let addr = site.proxy.tcp("h");
    let found = site.visit(&format!("http://{addr}/page.html"));
    assert_eq!(found, expected("https:", "h2"));
    assert_eq!(site.lines()[0][..5], ["h", "HTTP/1.1", "308", "GET", "/page.html"], "{:#?}", site.lines());
    let requests = site.requests("s");
    assert!(requests.len() > PICTURES, "{requests:#?}");
    // The WebSocket is one more stream of it (RFC 8441).
    let socket = requests.iter().find(|line| line[4] == "/ws").unwrap();
    assert_eq!((socket[1].as_str(), socket[2].as_str()), ("HTTP/2.0", "200"), "{requests:#?}");
    for line in &requests {
        assert_eq!((&line[1], &line[5]), (&socket[1], &socket[5]), "{requests:#?}");
    }
    assert_eq!(site.proxy.addrs("s", "tcp")[0].port(), site.secure);
}
