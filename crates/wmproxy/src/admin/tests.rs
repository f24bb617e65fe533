//! The admin server in this process, asked by raw requests and by its own client.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use wmproxy_net::addr::{Address, AddressSpec, Protocol};
use wmproxy_net::record::ListenerMetrics;
use wmproxy_wire::units::Secret;

use super::bind::Bound;
use super::client::{Client, ClientError};
use super::command::{Action, wait_for_end};
use super::server::MAX_CONNECTIONS;
use super::status::Status;
use super::{Control, ReloadFailure, Reloaded, STATUS_PATH};
use crate::config::{self, Format};
use crate::observe::scratch::{Scratch, group};
use crate::observe::snapshot::Snapshot;

/// A process that only pretends.
#[derive(Default)]
struct Fake {
    token: Option<Secret>,
    broken_config: AtomicBool,
    reloads: AtomicU64,
    stops: Mutex<Vec<bool>>,
}

impl Control for Fake {
    fn snapshot(&self) -> Snapshot {
        let address = Address::Inet("127.0.0.1:53".parse().unwrap());
        let listener = ListenerMetrics::new("dns".into(), Protocol::Udp, address, 1);
        listener.blocks.local().accepted.add(5);
        listener.blocks.local().closed.add(2);
        Snapshot {
            started: SystemTime::now() - Duration::from_secs(90),
            config: Some("/etc/wmproxy.toml".into()),
            generation: 1 + self.reloads.load(Ordering::Relaxed),
            workers: 2,
            tasks: 3,
            panics: 0,
            draining: false,
            reloads_ok: 0,
            reloads_failed: 0,
            log_dropped: 0,
            log_failed: 0,
            listeners: vec![Arc::new(listener)],
            traffic: vec![],
            groups: vec![group("up", &["10.0.0.5:53"])],
            users: Vec::new(),
            logins: Default::default(),
            denials: Vec::new(),
            tunnels: Default::default(),
            certificates: BTreeMap::new(),
        }
    }

    fn token(&self) -> Option<Secret> {
        self.token.clone()
    }

    fn reload(&self) -> oneshot::Receiver<Result<Reloaded, ReloadFailure>> {
        let (answer, receiver) = oneshot::channel();
        let result = if self.broken_config.load(Ordering::Relaxed) {
            let problems = config::load_text("a.toml", "admni = 3", Format::Toml).unwrap_err();
            Err(ReloadFailure::config(&problems))
        } else {
            let generation = 2 + self.reloads.fetch_add(1, Ordering::Relaxed);
            Ok(Reloaded { generation, warnings: vec!["workers needs a restart".into()] })
        };
        answer.send(result).unwrap();
        receiver
    }

    fn stop(&self, now: bool) {
        self.stops.lock().unwrap().push(now);
    }
}

/// The server on a thread of its own; stopped and waited for when it is dropped.
struct Running {
    address: Address,
    control: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(listen: &str, control: Fake) -> Running {
        Running::start_with(listen, control, Duration::from_secs(30))
    }

    fn start_with(listen: &str, control: Fake, header_timeout: Duration) -> Running {
        let listen: AddressSpec = listen.parse().unwrap();
        let control = Arc::new(control);
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let served = control.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut bound = Bound::bind(&listen).await.unwrap();
                bound.header_timeout = header_timeout;
                tell.send(bound.address().clone()).unwrap();
                bound.serve(served, async { drop(stopped.await) }).await;
            });
        });
        Running { address: told.recv().unwrap(), control, stop: Some(stop), thread: Some(thread) }
    }

    fn tcp() -> Running {
        Running::start("127.0.0.1:0", Fake::default())
    }

    fn connect(&self) -> TcpStream {
        let Address::Inet(address) = self.address else { panic!("a unix socket") };
        let stream = TcpStream::connect::<SocketAddr>(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends bytes and reads to the end: head and body.
    fn raw(&self, request: &str) -> (String, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// A request with these further header lines: its status and body.
    fn ask(&self, line: &str, headers: &str) -> (u16, serde_json::Value) {
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let (head, body) = self.raw(&format!("{line} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n"));
        (status_of(&head), serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
    }

    fn client(&self) -> Client {
        let spec = self.address.to_string().parse().unwrap();
        Client::new(spec, self.control.token.clone(), Duration::from_secs(30))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

fn status_of(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn status_and_metrics_show_the_snapshot() {
    let server = Running::tcp();
    let (code, status) = server.ask("GET /api/v1/status", "");
    assert_eq!(code, 200);
    assert_eq!(
        (&status["generation"], &status["workers"], &status["draining"]),
        (&1.into(), &2.into(), &false.into())
    );
    assert_eq!(status["pid"], std::process::id());
    assert!((90..100).contains(&status["uptime_seconds"].as_u64().unwrap()));
    let listener = &status["listeners"][0];
    assert_eq!((&listener["name"], &listener["protocol"]), (&"dns".into(), &"udp".into()));
    assert_eq!((&listener["accepted"], &listener["active"]), (&5.into(), &3.into()));
    let peer = &status["upstreams"][0]["peers"][0];
    assert_eq!((&peer["state"], &peer["connect_errors"]["refused"]), (&"ejected".into(), &4.into()));

    let (head, body) = server.raw("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(body.contains("wmproxy_connections_active{listener=\"dns\"") && body.ends_with("# EOF\n"));
}

#[test]
fn unknown_paths_and_methods_are_errors_in_json() {
    let server = Running::tcp();
    let (code, body) = server.ask("GET /", "");
    assert_eq!(code, 404);
    assert!(body["error"].is_string());
    assert_eq!(server.ask("GET /api/v1/nothing", "").0, 404);
    for (line, allowed) in [
        ("GET /api/v1/reload", "post"),
        ("GET /api/v1/stop", "post"),
        ("POST /api/v1/status", "get"),
        ("DELETE /metrics", "get"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (head, body) = server.raw(&request);
        assert_eq!(status_of(&head), 405, "{line}");
        assert!(head.contains(&format!("allow: {allowed}")), "{line}: {head}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].is_string());
    }
    assert_eq!(server.control.reloads.load(Ordering::Relaxed), 0);
    assert!(server.control.stops.lock().unwrap().is_empty());
}

#[test]
fn strangers_are_turned_away_before_anything_happens() {
    let server = Running::tcp();
    for (headers, code) in [
        ("Host: evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
    ] {
        assert_eq!(server.ask("POST /api/v1/reload", headers).0, code, "{headers}");
    }
    let (head, _) = server.raw("POST /api/v1/reload HTTP/1.0\r\n\r\n");
    assert_eq!(status_of(&head), 400);
    assert_eq!(server.control.reloads.load(Ordering::Relaxed), 0);
}

#[test]
fn without_the_token_there_is_nothing_to_see() {
    let token = Secret::new("s3cret").unwrap();
    let server = Running::start("127.0.0.1:0", Fake { token: Some(token), ..Fake::default() });
    for line in
        ["GET /api/v1/status", "GET /metrics", "GET /nothing", "POST /api/v1/stop", "PUT /api/v1/stop"]
    {
        let (head, body) = server.raw(&format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cre\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!(status_of(&head), 401, "{line}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(!body.contains("s3cret"));
    }
    assert!(server.control.stops.lock().unwrap().is_empty());
    assert_eq!(server.ask("GET /api/v1/status", "Authorization: Bearer s3cret\r\n").0, 200);
    assert_eq!(server.client().get(STATUS_PATH).unwrap().code, 200);
}

#[test]
fn too_much_is_refused() {
    let server = Running::tcp();
    let (code, _) = server.ask("POST /api/v1/stop", "Content-Length: 100000\r\n");
    assert_eq!(code, 413);
    let filler = "a".repeat(70_000);
    let chunked =
        format!("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{filler}\r\n0", filler.len());
    let (head, _) =
        server.raw(&format!("POST /api/v1/stop HTTP/1.1\r\nHost: localhost\r\n{chunked}\r\n\r\n"));
    assert_eq!(status_of(&head), 413);
    let (head, _) =
        server.raw(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(20_000)));
    assert_eq!(status_of(&head), 431);
    assert!(server.control.stops.lock().unwrap().is_empty());
}

#[test]
fn a_stop_is_with_or_without_a_drain() {
    let server = Running::tcp();
    let (code, body) = server.ask("POST /api/v1/stop", "");
    assert_eq!((code, &body["active"]), (202, &3.into()));
    assert_eq!(server.ask("POST /api/v1/stop?now=true", "").0, 202);
    assert_eq!(server.ask("POST /api/v1/stop?later", "").0, 400);
    let client = server.client();
    assert_eq!(client.post("/api/v1/stop", r#"{"now":true}"#).unwrap().code, 202);
    assert_eq!(client.post("/api/v1/stop", r#"{"then":true}"#).unwrap().code, 400);
    assert_eq!(*server.control.stops.lock().unwrap(), [false, true, true]);
}

#[test]
fn the_commands_print_what_came_of_them() {
    let server = Running::tcp();
    let client = server.client();
    let printed = Action::Reload.run(&client, false);
    assert_eq!(printed.out, "reloaded: generation 2\nwarning: workers needs a restart\n");
    server.control.broken_config.store(true, Ordering::Relaxed);
    let printed = Action::Reload.run(&client, false);
    assert!(!printed.done);
    assert!(printed.err.contains("a.toml:1:1"), "{}", printed.err);
    assert!(
        printed.err.ends_with("\n\nerror: nothing was changed: the config has problems\n"),
        "{}",
        printed.err
    );
    let printed = Action::Reload.run(&client, true);
    let json: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert!(!printed.done && printed.err.is_empty());
    assert_eq!(json["problems"][0]["line"], 1, "{json}");
    assert!(json["rendered"].as_str().unwrap().contains("admni"));
    let printed = Action::Status.run(&client, false);
    assert!(printed.done && printed.out.contains("dns       udp://127.0.0.1:53       3"), "{}", printed.out);
    let printed = Action::Status.run(&client, true);
    assert_eq!(serde_json::from_str::<Status>(&printed.out).unwrap().generation, 2);
}

#[test]
fn a_stop_that_waits_returns_when_nobody_answers() {
    let mut server = Running::tcp();
    let client = server.client();
    let (tell, told) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        assert_eq!(client.get(STATUS_PATH).unwrap().code, 200);
        tell.send(()).unwrap();
        // The process here is this test, which does not end.
        wait_for_end(&client, std::process::id(), Duration::ZERO);
        client.get(STATUS_PATH).unwrap_err()
    });
    told.recv().unwrap();
    assert!(!waiting.is_finished());
    drop(server.stop.take());
    assert!(matches!(waiting.join().unwrap(), ClientError::Absent(..)));
}

#[test]
fn a_unix_socket_is_for_its_owner_and_goes_with_the_server() {
    let dir = Scratch::new("admin-unix");
    let path = dir.path("admin.sock");
    // Left behind by a process that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let server = Running::start(&listen, Fake::default());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(server.client().get(STATUS_PATH).unwrap().code, 200);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let second = runtime.block_on(Bound::bind(&listen.parse().unwrap())).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(server.client().get(STATUS_PATH).unwrap().code, 200);
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(runtime.block_on(Bound::bind(&listen.parse().unwrap())).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let server = Running::start_with("127.0.0.1:0", Fake::default(), Duration::from_millis(30));
    for sent in ["", "GET /api/v1/status HTTP/1.1\r\nHost: local"] {
        let mut slow = server.connect();
        slow.write_all(sent.as_bytes()).unwrap();
        let mut answer = Vec::new();
        slow.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());
    }
}

#[test]
fn clients_that_say_nothing_leave_room_for_others() {
    let server = Running::tcp();
    let silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.write_all(b"GET /api/v1/status HTT").unwrap();
    assert_eq!(server.ask("GET /api/v1/status", "").0, 200);
    drop(silent);
    // Stopping does not wait for the half request.
    drop(server);
    let mut rest = Vec::new();
    let _ = half.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", rest.escape_ascii());
}

#[test]
fn silent_clients_on_every_place_make_room_and_those_that_asked_stay() {
    let server = Running::start_with("127.0.0.1:0", Fake::default(), Duration::from_secs(600));
    let mut kept = server.connect();
    let mut ask_kept = || {
        kept.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut start = [0; 12];
        kept.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        // The rest of the answer ends with the closing brace of its object.
        let mut text = String::from_utf8_lossy(&start).into_owned();
        while !text.ends_with("]}") {
            let mut more = [0; 4096];
            let n = kept.read(&mut more).unwrap();
            assert!(n > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&more[..n]));
        }
    };
    ask_kept();
    let silent: Vec<_> = (0..2 * MAX_CONNECTIONS).map(|_| server.connect()).collect();
    assert_eq!(server.ask("GET /api/v1/status", "").0, 200);
    ask_kept();
    let mut byte = [0];
    assert!(matches!((&silent[0]).read(&mut byte), Ok(0) | Err(_)), "the oldest one is closed");
}
