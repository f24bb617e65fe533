//! The servers behind the judge: one of our own that forgives nothing, and those that people run.

use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use wmproxy_testkit::exec::Service;
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Conn, Origin, TempDir, eventually};

use super::judge::{Judge, REFUSED};
use crate::interop::http::nginx;
use crate::interop::{asked, program};

#[test]
fn a_strict_server_sees_what_we_saw() {
    let origin = Origin::start(|call| {
        call.read_body()?;
        let echo = format!("{} {}", call.head.method(), call.head.target());
        if call.head.method() == "HEAD" {
            return call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", echo.len()));
        }
        call.reply(&Reply::new(200, echo))
    });
    let violations = Mutex::new(Vec::new());
    let seen = || {
        let mut violations = violations.lock().unwrap();
        violations.extend(origin.take_violations());
        let requests = origin.requests();
        let seen =
            requests.iter().map(|request| format!("{} {}", request.head.method(), request.head.target()));
        seen.chain(violations.iter().map(|violation| format!("violation: {violation}"))).collect()
    };
    Judge::new(origin.addr(), seen).strictly().run();
}

#[test]
fn hyper_sees_what_we_saw() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    let shared = seen.clone();
    let handle = runtime.handle().clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = shared.clone();
            handle.spawn(async move {
                let answer = service_fn(|request| echo(request, &seen));
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                // It refuses targets that others take, which smuggles nothing.
                if let Err(error) = served.await
                    && error.is_parse()
                    && !error.to_string().contains("URI")
                {
                    seen.lock().unwrap().push(format!("violation: {error}"));
                }
            });
        }
    });
    Judge::new(addr, || seen.lock().unwrap().clone()).run();
}

async fn echo(
    mut request: Request<Incoming>,
    seen: &Mutex<Vec<String>>,
) -> Result<Response<String>, hyper::Error> {
    let line = format!("{} {}", request.method(), request.uri());
    seen.lock().unwrap().push(line.clone());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(request.body_mut()).poll_frame(cx)).await {
        frame?;
    }
    Ok(Response::new(line))
}

#[test]
fn nginx_sees_what_we_saw() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let port = free_port();
    let log = dir.join("seen.log");
    let http = format!(
        "log_format seen escape=none '$request'; default_type text/plain; keepalive_requests 1000000;\n\
         server {{ listen 127.0.0.1:{port}; access_log {} seen; location / {{ return 200 \"$request_method $request_uri\"; }} }}",
        log.display()
    );
    let _service = nginx(&dir, &http, port);
    // nginx logs a request that it does not understand as it came.
    Judge::new(format!("127.0.0.1:{port}"), || {
        lines(&log, |line| line.strip_suffix(" HTTP/1.1").unwrap_or(line))
    })
    .run();
}

#[test]
fn haproxy_sees_what_we_saw() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let port = free_port();
    let config = format!(
        "global\n log stdout format raw local0\ndefaults\n mode http\n log global\n option dontlognull\n\
         timeout client 30s\n timeout server 30s\n timeout connect 5s\n\
         log-format \"seen %HM %HU\"\nfrontend f\n bind 127.0.0.1:{port}\n \
         http-request return status 200 content-type text/plain lf-string \"%[method] %[url]\"\n"
    );
    let path = dir.write("haproxy.cfg", &config);
    let log = dir.join("haproxy.log");
    let _service = Service::start(Command::new(program("haproxy")).arg("-db").arg("-f").arg(path), &log);
    listening(port);
    let seen = || {
        let all = lines(&log, |line| line);
        let seen = all.iter().filter_map(|line| line.strip_prefix("seen "));
        // Its log escapes these two.
        seen.map(|line| line.replace("<BADREQ> <BADREQ>", REFUSED).replace("#22", "\"").replace("#23", "#"))
            .collect()
    };
    Judge::new(format!("127.0.0.1:{port}"), seen).run();
}

/// A server on h11, which uvicorn and others stand on.
const PYTHON: &str = r#"
import asyncio, sys, h11

log = open(sys.argv[2], "a", buffering=1)

async def serve(reader, writer):
    conn = h11.Connection(h11.SERVER)
    line = None
    try:
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                conn.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                line = event.method.decode() + " " + event.target.decode("latin-1")
                log.write(line + "\n")
            elif isinstance(event, h11.EndOfMessage):
                body = line.encode("latin-1")
                head = h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))])
                parts = [head] + ([] if line.startswith("HEAD ") else [h11.Data(data=body)]) + [h11.EndOfMessage()]
                writer.write(b"".join(conn.send(part) or b"" for part in parts))
                await writer.drain()
                conn.start_next_cycle()
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
    except h11.RemoteProtocolError as error:
        # An upload that ends with its connection is none of the proxy's inventions.
        if "peer closed connection" not in str(error) and "unexpectedly closed" not in str(error):
            log.write("violation: %s\n" % error)
    except (h11.LocalProtocolError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()

asyncio.run(main())
"#;

#[test]
fn a_python_server_sees_what_we_saw() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let (port, log) = (free_port(), dir.join("seen.log"));
    let script = dir.write("server.py", PYTHON);
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(port.to_string()).arg(&log);
    let _service = Service::start(&mut command, &dir.join("python.log"));
    listening(port);
    Judge::new(format!("127.0.0.1:{port}"), || lines(&log, |line| line)).run();
}

fn listening(port: u16) {
    eventually("the server", || Conn::try_connect(&Addr::local(port)).is_ok());
}

fn lines(log: &Path, edit: impl Fn(&str) -> &str) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    text.lines().map(|line| edit(line).to_owned()).collect()
}
