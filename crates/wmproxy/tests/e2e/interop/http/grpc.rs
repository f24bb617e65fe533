//! gRPC by grpcio through the proxy: HTTP/2 on both sides, all four kinds of streams, status in the trailers; with TLS and without.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::run;
use wmproxy_testkit::{Authority, TempDir};

use super::asked;
use crate::http::{http, route};
use crate::start;

/// Server and client in one: the server listens, says its port, and the client comes once it is told the proxy's.
const SERVER: &str = r#"
import sys, threading, time
from concurrent import futures
import grpc

def unary(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
    context.set_trailing_metadata((("x-trailer", "at the end"),))
    return request[::-1]
def fan_out(request, context):
    for number in range(100):
        yield b"%s %d" % (request, number)
def fan_in(requests, context):
    return b"%d" % sum(len(request) for request in requests)
def chat(requests, context):
    for request in requests:
        yield request.upper()
def slow(request, context):
    time.sleep(30)
    return b""

class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/s/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/s/FanOut": grpc.unary_stream_rpc_method_handler(fan_out),
            "/s/FanIn": grpc.stream_unary_rpc_method_handler(fan_in),
            "/s/Chat": grpc.stream_stream_rpc_method_handler(chat),
            "/s/Slow": grpc.unary_unary_rpc_method_handler(slow),
        }.get(call.method)

server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers([Handler()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with open(sys.argv[1] + ".next", "w") as file:
    file.write(str(port))
import os
os.rename(sys.argv[1] + ".next", sys.argv[1])
server.wait_for_termination()
"#;

const CLIENT: &str = r#"
import sys
import grpc

options = [("grpc.max_receive_message_length", -1)]
if len(sys.argv) > 2:
    with open(sys.argv[2], "rb") as file:
        trust = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(sys.argv[1], trust, options=options)
else:
    channel = grpc.insecure_channel(sys.argv[1], options=options)
unary = channel.unary_unary("/s/Unary")
answer, call = unary.with_call(b"hello", timeout=10)
assert answer == b"olleh", answer
assert dict(call.trailing_metadata())["x-trailer"] == "at the end"
big = b"0123456789" * 1000000
assert unary(big, timeout=30) == big[::-1]
try:
    unary(b"fail", timeout=10)
    raise SystemExit("it did not fail")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "as you wish", error
answers = list(channel.unary_stream("/s/FanOut")(b"n", timeout=10))
assert answers == [b"n %d" % number for number in range(100)]
assert channel.stream_unary("/s/FanIn")(iter([b"x" * 1000] * 500), timeout=10) == b"500000"

import queue
questions = queue.Queue()
answers = channel.stream_stream("/s/Chat")(iter(questions.get, None), timeout=10)
for number in range(50):
    # Each answer comes before the next question is asked.
    questions.put(b"word %d" % number)
    assert next(answers) == b"WORD %d" % number
questions.put(None)
assert list(answers) == []
try:
    channel.unary_unary("/s/Slow")(b"", timeout=0.5)
    raise SystemExit("it was not slow")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
try:
    channel.unary_unary("/s/None")(b"", timeout=5)
    raise SystemExit("it was there")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
calls = [unary.future(b"%d" % number, timeout=20) for number in range(500)]
for number, call in enumerate(calls):
    assert call.result() == (b"%d" % number)[::-1]
print("all is well")
"#;

#[test]
fn all_kinds_of_calls_pass() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let (server, client) = (dir.write("server.py", SERVER), dir.write("client.py", CLIENT));
    let port = dir.join("port");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(server).arg(&port);
    let _service = wmproxy_testkit::exec::Service::start(&mut command, &dir.join("server.log"));
    wmproxy_testkit::eventually("the server's port", || port.exists());
    let port = std::fs::read_to_string(port).unwrap();
    let endpoint = route(&format!("reverse_proxy = \"h2c://127.0.0.1:{port}\""));
    let authority = Authority::new();
    let tls = format!("tls = {}", authority.issue("grpc", &["127.0.0.1"]).toml());
    let secure = http(&tls, &endpoint).replace("name = \"h\"", "name = \"s\"");
    let proxy = start(&(http("", &endpoint) + &secure));
    for (listener, trust) in [("h", None), ("s", Some(authority.ca()))] {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(&client).arg(proxy.tcp(listener).to_string()).args(trust);
        let said = run(&mut command, Duration::from_secs(60)).success();
        assert!(said.stdout.contains("all is well"), "{listener}: {}", said.text());
    }
}
