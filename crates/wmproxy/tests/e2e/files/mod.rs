//! Static files, judged by what reaches clients: the right bytes with the right head, and none from outside of the root.

mod attack;
mod changes;
mod command;
mod config;
mod content;
mod listing;
mod races;
mod semantics;
mod transfers;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wmproxy_testkit::http::{Head, Message};
use wmproxy_testkit::{Addr, Authority, Client, Proxy, TempDir, TlsClient, h2};

use crate::http::{http, route};
use crate::setup;

/// What lies beside the root, and must never be seen.
pub(super) const SECRET: &str = "the secret beside the root";

/// When the files of a [`Tree`] were modified: long ago, or dates would be no strong validators yet.
pub(super) const MODIFIED: &str = "Sat, 03 Feb 2024 04:05:06 GMT";
const MODIFIED_SECONDS: u64 = 1_706_933_106;

/// A root to serve, with a secret beside it.
pub(super) struct Tree(TempDir);

impl Tree {
    /// One with these files.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Tree(TempDir::new());
        std::fs::create_dir(tree.root()).unwrap();
        tree.0.write("secret/file.txt", SECRET);
        for (name, text) in files {
            tree.file(name, text);
        }
        tree
    }

    pub(super) fn root(&self) -> PathBuf {
        self.0.join("www")
    }

    /// The folder that is not served.
    pub(super) fn secret(&self) -> PathBuf {
        self.0.join("secret")
    }

    /// A path below the root.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(super) fn file(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        set_modified(&path, MODIFIED_SECONDS);
        path
    }

    /// Puts a new file in the place of one, as deploys do.
    pub(super) fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let next = self.0.join("next");
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(next, self.path(name)).unwrap();
    }

    pub(super) fn link(&self, name: &str, target: impl AsRef<Path>) {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
    }

    /// The lines of a route that serves it; `options` is further keys of `files`, `lines` further lines.
    pub(super) fn route(&self, options: &str, lines: &str) -> String {
        let comma = if options.is_empty() { "" } else { ", " };
        route(&format!("files = {{ root = \"{}\"{comma}{options} }}\n{lines}", self.root().display()))
    }

    /// Starts the proxy on that route, as `h`.
    pub(super) fn serve(&self, options: &str, lines: &str) -> Proxy {
        start_routes(&self.route(options, lines))
    }
}

/// Starts the proxy with these routes, as `h`.
pub(super) fn start_routes(routes: &str) -> Proxy {
    setup(&http("", routes)).start()
}

/// When a file was modified, in seconds since 1970.
pub(super) fn set_modified(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    H1,
    H2,
    Tls,
}

impl By {
    pub(super) const ALL: [By; 3] = [By::H1, By::H2, By::Tls];
}

/// A tree that is served without TLS as `h`, and with it as `s`.
pub(super) struct Web {
    pub(super) proxy: Proxy,
    authority: Authority,
    /// Asked for once: the admin API is no part of what is tested.
    addrs: [Addr; 2],
}

impl Web {
    pub(super) fn new(tree: &Tree, options: &str, lines: &str) -> Self {
        Web::routes(&tree.route(options, lines))
    }

    pub(super) fn routes(routes: &str) -> Self {
        let authority = Authority::new();
        let tls = format!("tls = {}", authority.issue("web", &["a.example"]).toml());
        let plain = http("", routes);
        let secure = http(&tls, routes).replace("name = \"h\"", "name = \"s\"");
        let proxy = setup(&format!("{plain}{secure}")).start();
        let addrs = [proxy.tcp("h"), proxy.tcp("s")];
        Web { proxy, authority, addrs }
    }

    /// One request on a connection of its own; `fields` are whole lines.
    #[track_caller]
    pub(super) fn ask(&self, by: By, method: &str, target: &str, fields: &str) -> Message {
        match by {
            By::H1 => ask_at(&self.addrs[0], method, target, fields),
            By::H2 => ask_h2(&self.addrs[0], method, target, fields),
            By::Tls => {
                let conn = TlsClient::new(&self.authority).connect(&self.addrs[1], "a.example").unwrap();
                let mut client = Client::over(conn);
                client.send(request(method, target, fields));
                client.response_to(method)
            }
        }
    }

    #[track_caller]
    pub(super) fn get(&self, by: By, target: &str, fields: &str) -> Message {
        self.ask(by, "GET", target, fields)
    }
}

/// A request of HTTP/1.1; `fields` are whole lines.
pub(super) fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

/// One request by HTTP/1.1 on a connection of its own.
#[track_caller]
pub(super) fn ask_at(addr: &Addr, method: &str, target: &str, fields: &str) -> Message {
    let mut client = Client::connect(addr);
    client.send(request(method, target, fields));
    client.response_to(method)
}

/// The same to the listener `h`.
#[track_caller]
pub(super) fn ask(proxy: &Proxy, method: &str, target: &str, fields: &str) -> Message {
    ask_at(&proxy.tcp("h"), method, target, fields)
}

#[track_caller]
pub(super) fn get(proxy: &Proxy, target: &str, fields: &str) -> Message {
    ask(proxy, "GET", target, fields)
}

/// One request by HTTP/2, and the answer in the form of the others.
#[track_caller]
pub(super) fn ask_h2(addr: &Addr, method: &str, target: &str, fields: &str) -> Message {
    let mut request = h2::request(method, target);
    for line in fields.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request.headers_mut().append(name.parse::<h2::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let answer = h2::Client::connect(addr).ask(request, b"", None);
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect();
    let fields = answer.fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect();
    let head = Head { start: format!("HTTP/2 {} ", answer.status), fields };
    Message { head, body: answer.body, trailers: Vec::new() }
}
