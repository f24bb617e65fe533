//! Python at both ends: an ASGI application on uvicorn behind the proxy, `websockets` and `h2` before it.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, Service, run};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Client, Conn, TempDir, eventually};

use super::asked;
use crate::http::site;
use crate::start;

/// Debian's: its packages bring the libraries.
const PYTHON: &str = "/usr/bin/python3";

const APP: &str = r#"
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if event.get("text") is not None:
                await send({"type": "websocket.send", "text": event["text"].upper()})
            else:
                await send({"type": "websocket.send", "bytes": event["bytes"][::-1]})
    if scope["type"] != "http":
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"text/plain"), (b"x-for", headers.get("x-forwarded-for", "-").encode())]})
    total, more = 0, True
    while more:
        event = await receive()
        total += len(event.get("body", b""))
        more = event.get("more_body", False)
    if scope["path"] == "/stream":
        for number in range(5):
            await send({"type": "http.response.body", "body": b"tick %d\n" % number, "more_body": True})
            await asyncio.sleep(0.01)
    text = "%s %s %d" % (scope["method"], scope["raw_path"].decode(), total)
    await send({"type": "http.response.body", "body": text.encode()})
"#;

const WEBSOCKETS: &str = r#"
import asyncio, os, sys, websockets

async def main():
    async with websockets.connect(sys.argv[1], max_size=None, subprotocols=None) as socket:
        for text in ["hello", "", "x" * 100000]:
            await socket.send(text)
            assert await socket.recv() == text.upper()
        data = os.urandom(5_000_000)
        await socket.send(data)
        assert await socket.recv() == data[::-1]
        await asyncio.wait_for(await socket.ping(), 5)
    sockets = await asyncio.gather(*[websockets.connect(sys.argv[1]) for _ in range(50)])
    for number, socket in enumerate(sockets):
        await socket.send("socket %d" % number)
    for number, socket in enumerate(sockets):
        assert await socket.recv() == "SOCKET %d" % number
    await asyncio.gather(*[socket.close() for socket in sockets])
    print("all is well")

asyncio.run(main())
"#;

const H2: &str = r#"
import socket, sys
import h2.connection, h2.events

host, port = sys.argv[1].split(":")
sock = socket.create_connection((host, int(port)))
sock.settimeout(20)
conn = h2.connection.H2Connection()
conn.initiate_connection()
answers, total = {}, 200
def ask(number):
    stream = conn.get_next_available_stream_id()
    conn.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":authority", "a.example"),
                               (":path", "/n%d" % number)])
    conn.send_data(stream, b"x" * number, end_stream=True)
    answers[stream] = [number, b"", None]
asked = 0
while True:
    while asked < total and conn.open_outbound_streams < 20:
        ask(asked)
        asked += 1
    sock.sendall(conn.data_to_send())
    if asked == total and conn.open_outbound_streams == 0:
        break
    data = sock.recv(65536)
    assert data, "the connection ended"
    for event in conn.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            answers[event.stream_id][2] = dict(event.headers)[":status"] if ":status" in dict(event.headers) else dict(event.headers)[b":status"].decode()
        elif isinstance(event, h2.events.DataReceived):
            answers[event.stream_id][1] += event.data
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            raise SystemExit(repr(event))
for number, body, status in answers.values():
    assert status == "200" and body == b"POST /n%d %d" % (number, number), (number, body, status)
print("all is well")
"#;

/// uvicorn with the application, in a directory of its own.
struct Asgi {
    dir: TempDir,
    port: u16,
    _service: Service,
}

impl Asgi {
    fn start() -> Self {
        let (dir, port) = (TempDir::new(), free_port());
        dir.write("application.py", APP);
        let mut command = Command::new(PYTHON);
        command.args([
            "-m",
            "uvicorn",
            "application:app",
            "--port",
            &port.to_string(),
            "--log-level",
            "warning",
        ]);
        // No limit of its own on messages: what passes is ours to decide.
        command.args(["--ws-max-size", "100000000"]).current_dir(dir.path());
        let service = Service::start(&mut command, &dir.join("uvicorn.log"));
        eventually("uvicorn", || Conn::try_connect(&Addr::local(port)).is_ok());
        Asgi { dir, port, _service: service }
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs a script with one argument.
    fn script(&self, text: &str, argument: &str) -> Finished {
        let path = self.dir.write("client.py", text);
        run(Command::new(PYTHON).arg(path).arg(argument), Duration::from_secs(60)).success()
    }
}

#[test]
fn an_asgi_application_is_served() {
    if !asked() {
        return;
    }
    let asgi = Asgi::start();
    let proxy = start(&site(asgi.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let answer = client.post("/a%20b", &[b'x'; 300_000]);
    assert_eq!(answer.text(), "POST /a%20b 300000");
    assert_eq!(answer.head.get("x-for"), Some("127.0.0.1"));
    let ticks: String = (0..5).map(|number| format!("tick {number}\n")).collect();
    assert_eq!(client.get("/stream").text(), format!("{ticks}GET /stream 0"));
    client.expect_idle();
}

#[test]
fn pythons_websockets_pass() {
    if !asked() {
        return;
    }
    let asgi = Asgi::start();
    let proxy = start(&site(asgi.addr()));
    let said = asgi.script(WEBSOCKETS, &format!("ws://{}/chat", proxy.tcp("h"))).stdout;
    assert!(said.contains("all is well"), "{said}");
}

#[test]
fn pythons_h2_is_answered() {
    if !asked() {
        return;
    }
    let asgi = Asgi::start();
    let proxy = start(&site(asgi.addr()));
    let said = asgi.script(H2, &proxy.tcp("h").to_string()).stdout;
    assert!(said.contains("all is well"), "{said}");
}
