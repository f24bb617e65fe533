//! Sends a payload, and compares what the server behind the proxy saw with what the proxy says it saw.

use std::io;

use serde_json::Value;
use wmproxy_testkit::http::Reader;
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Client, Conn, PATIENCE, Proxy};

use super::{Payload, Verdict, corpus};
use crate::http::{http, route};
use crate::{ACCESS_LOG, start};

/// The proxy between, and the means to ask the server behind it what it saw.
pub(super) struct Judge<'a> {
    proxy: Proxy,
    /// Method and target of each request so far, in any order, those that it refused included.
    seen: Box<dyn Fn() -> Vec<String> + 'a>,
    /// Whether the server takes all that RFC 9112 allows, so that a refusal is ours.
    takes_all: bool,
}

/// What a server's log says of a request that it understood too little of to name it.
pub(super) const REFUSED: &str = "refused";

/// What came back: the statuses of whole answers, and how that ended.
#[derive(Debug, Default)]
struct Answers {
    statuses: Vec<u16>,
    bodies: Vec<String>,
    end: Option<io::Error>,
}

impl<'a> Judge<'a> {
    /// Judges with the server at this address.
    pub(super) fn new(server: impl std::fmt::Display, seen: impl Fn() -> Vec<String> + 'a) -> Self {
        let routes = [
            route("path = \"/local\"\nrespond = { status = 200, body = \"local\" }"),
            route("host = [\"a.example\"]\nreverse_proxy = \"g\""),
            route("path = \"/any-host\"\nreverse_proxy = \"g\""),
        ]
        .concat();
        // One worker: all clients meet in one pool. A peer that a payload makes fail stays.
        let upstream = crate::group("g", &[server.to_string()], "max_fails = 0");
        let proxy = start(&format!("workers = 1\n{ACCESS_LOG}{upstream}{}", http("", &routes)));
        Judge { proxy, seen: Box::new(seen), takes_all: false }
    }

    /// Judges refusals of what is right, too: the server takes it.
    pub(super) fn strictly(mut self) -> Self {
        self.takes_all = true;
        self
    }

    /// Judges the whole corpus; the findings of all payloads at once.
    pub(super) fn run(&self) {
        let findings: Vec<String> = corpus().iter().filter_map(|payload| self.judge(payload)).collect();
        assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    }

    fn judge(&self, payload: &Payload) -> Option<String> {
        let (seen_before, logged_before) = ((self.seen)().len(), self.proxy.file_lines("access.log").len());
        let answers = self.send(&payload.bytes);
        let canary = self.canary();
        let mut finding = canary.err();
        // The proxy's own account: what it passed on for this payload, and the canary.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let agree = holds_within(PATIENCE / 10, || {
            ours = self.logged(logged_before);
            theirs = (self.seen)()[seen_before..].to_vec();
            agree(&ours, &theirs)
        });
        if !agree {
            finding = finding.or(Some(format!("we say {ours:?}, the server {theirs:?}")));
        }
        let served = ours.iter().filter(|request| request.is_served && request.line != "GET /canary").count();
        let good = answers.statuses.iter().filter(|status| **status < 400).count();
        let refusal = answers.statuses.last().is_some_and(|status| *status >= 400);
        let names = |lines: &[String], name: &str| lines.iter().any(|line| line.contains(name));
        let served_lines: Vec<String> = ours.iter().map(|request| request.line.clone()).collect();
        let followed = payload.bytes.windows(9).any(|part| part == b"GET /next");
        let wrong = match payload.verdict {
            _ if names(&served_lines, "/smuggled") || names(&theirs, "/smuggled") => Some("it smuggles"),
            Verdict::Refused if served > 0 => Some("it was passed on"),
            Verdict::Refused if !refusal => Some("no refusal came back"),
            Verdict::Passes if !self.takes_all => None,
            Verdict::Passes if refusal || good == 0 => Some("it was refused"),
            Verdict::Passes if followed && !names(&theirs, "/next") => Some("what follows it was not served"),
            _ => None,
        };
        let finding = finding.or(wrong.map(str::to_owned))?;
        Some(format!(
            "{}: {finding}\n    {answers:?}\n    {:?}",
            payload.name,
            String::from_utf8_lossy(&payload.bytes[..payload.bytes.len().min(300)])
        ))
    }

    /// Sends the bytes and no more, and reads what comes to its end.
    fn send(&self, bytes: &[u8]) -> Answers {
        let conn = Conn::connect(&self.proxy.tcp("h"));
        // It may have refused and closed before all is sent.
        let _ = conn.try_send(bytes);
        conn.finish();
        let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        let mut reader = Reader::new(conn);
        let mut answers = Answers::default();
        loop {
            let method = if answers.statuses.is_empty() { method.as_str() } else { "GET" };
            match next(&mut reader, method) {
                Ok(Some((status, _))) if (100..200).contains(&status) => {}
                Ok(Some((status, body))) => {
                    answers.statuses.push(status);
                    answers.bodies.push(body);
                }
                Ok(None) => return answers,
                Err(error) => {
                    answers.end = Some(error);
                    return answers;
                }
            }
        }
    }

    /// A client that means well, on a connection of its own.
    fn canary(&self) -> Result<(), String> {
        let mut client = Client::connect(&self.proxy.tcp("h"));
        client.send("GET /canary HTTP/1.1\r\nHost: a.example\r\n\r\n");
        match client.try_response_to("GET") {
            Ok(answer) if answer.status() == 200 && answer.body.starts_with(b"GET /canary") => Ok(()),
            other => Err(format!("the next client got {other:?}")),
        }
    }

    /// Each request that the log says went to the server, behind so many lines.
    fn logged(&self, behind: usize) -> Vec<Logged> {
        let lines = self.proxy.file_lines("access.log");
        let lines = lines.iter().skip(behind).filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["peer"].is_string())
            .map(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or("?").to_owned();
                let is_served = line["status"].as_u64().is_some_and(|status| (200..400).contains(&status));
                Logged { line: format!("{} {}", text("method"), text("uri")), is_served }
            })
            .collect()
    }
}

/// A request of the log.
#[derive(Debug, Clone)]
struct Logged {
    /// Its method and its target.
    line: String,
    /// Whether it was answered well. Others were refused, perhaps before a byte of them went out, perhaps on the way.
    is_served: bool,
}

/// Whether the server saw every request that was served, the canary with them, and none that we do not know of.
fn agree(ours: &[Logged], theirs: &[String]) -> bool {
    let mut left = theirs.to_vec();
    let mut all_served = true;
    for request in ours {
        // What is right for us may be wrong for the server, which then has no name for it.
        let is_it = |seen: &String| *seen == request.line || (!request.is_served && seen == REFUSED);
        match left.iter().position(is_it) {
            Some(at) => drop(left.remove(at)),
            None => all_served &= !request.is_served,
        }
    }
    all_served && left.is_empty() && ours.iter().any(|request| request.line == "GET /canary")
}

fn next(reader: &mut Reader<Conn>, method: &str) -> io::Result<Option<(u16, String)>> {
    let Some(head) = reader.head()? else { return Ok(None) };
    let mut body = Vec::new();
    reader.body(head.response_framing(method)?, |part| body.extend_from_slice(part))?;
    Ok(Some((head.status(), String::from_utf8_lossy(&body).into_owned())))
}
