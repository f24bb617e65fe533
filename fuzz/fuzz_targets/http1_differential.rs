//! Whole connections, to our codec and to hyper's server: each request that we see, hyper sees, with the same method, target,
//! fields and body, and it begins at the same byte. Else one of us could be made to take a part of one request for another.
//!
//! Hyper sees more: it takes what we refuse.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use libfuzzer_sys::fuzz_target;
use wmproxy_wire::head::{Method, Request};
use wmproxy_wire::http1::{
    ChunkLimits, Chunks, HeadLimits, Length, Step, is_persistent, read_request, request_length,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 8000, target: 4000, fields: 90, any_host: false };

/// A request as either of us saw it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    method: Vec<u8>,
    target: Vec<u8>,
    /// Sorted by name, in lower case; the lines of one name are in order.
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    is_whole: bool,
}

fuzz_target!(|bytes: &[u8]| {
    let ours = ours(bytes);
    if ours.is_empty() {
        return;
    }
    let theirs = theirs(bytes);
    for (index, own) in ours.iter().enumerate() {
        // It holds targets to fewer characters than clients send, and refuses the others.
        if !own.target.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte)) {
            return;
        }
        assert_eq!(theirs.get(index), Some(own), "request {index} of {}", bytes.escape_ascii());
    }
});

fn ours(mut bytes: &[u8]) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut request = Request::new();
    while let Ok(Some(used)) = read_request(bytes, &LIMITS, &mut request) {
        let body = &bytes[used..];
        let Some((body, used)) = request_length(&request).ok().and_then(|length| take_body(length, body)) else {
            break;
        };
        bytes = &bytes[bytes.len() - used..];
        let mut fields: Vec<_> = request
            .fields
            .iter()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect();
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        let method = request.method_name().to_vec();
        let target = match (request.target(), request.scheme) {
            // To hyper, a server as a whole is its root, if it is named by a URI.
            (b"*", Some(_)) => b"/",
            (target, _) => target,
        };
        all.push(Seen { method, target: target.to_vec(), fields, body, is_whole: true });
        if !is_persistent(request.version, &request.fields) || request.method == Method::Connect {
            break;
        }
    }
    all
}

/// The body, and how many bytes are behind it.
fn take_body(length: Length, mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let len = match length {
        Length::None => 0,
        Length::Known(len) => usize::try_from(len).ok()?,
        Length::UntilClose => panic!("a request has an end"),
        Length::Chunked => {
            let mut chunks = Chunks::new(ChunkLimits::with(&LIMITS));
            let mut body = Vec::new();
            loop {
                match chunks.next(bytes).ok()? {
                    Step::More => return None,
                    Step::End(used) => return Some((body, bytes.len() - used)),
                    Step::Data(at) => {
                        body.extend_from_slice(&bytes[at.clone()]);
                        bytes = &bytes[at.end..];
                    }
                }
            }
        }
    };
    let body = bytes.get(..len)?;
    Some((body.to_vec(), bytes.len() - len))
}

fn theirs(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, mut body) = request.into_parts();
            let mut fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            let target = match (head.uri.path_and_query(), head.uri.authority()) {
                (Some(_), _) => {
                    let query = head.uri.query().map_or_else(String::new, |query| format!("?{query}"));
                    format!("{}{query}", head.uri.path())
                }
                (None, authority) => authority.map_or_else(String::new, |authority| authority.to_string()),
            };
            let (method, target) = (head.method.as_str().into(), target.into_bytes());
            let index = seen.borrow().len();
            seen.borrow_mut().push(Seen { method, target, fields, ..Seen::default() });
            loop {
                match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            seen.borrow_mut()[index].body.extend_from_slice(&data);
                        }
                    }
                    Some(Err(_)) => break,
                    None => {
                        seen.borrow_mut()[index].is_whole = true;
                        break;
                    }
                }
            }
            Ok::<_, Infallible>(hyper::Response::new(Nothing))
        }
    });
    let connection = Builder::new().half_close(true).serve_connection(Pipe(bytes.to_vec(), 0), service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    // It wakes itself after each message; what comes to a stand waits for nothing that could come.
    for _ in 0..bytes.len() + 100 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    let mut seen = seen.borrow_mut();
    std::mem::take(&mut *seen)
}

/// All that the client says, and where to we have come. What it is told is thrown away.
struct Pipe(Vec<u8>, usize);

impl Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &self.0[self.1..];
        let len = rest.len().min(into.remaining());
        into.put_slice(&rest[..len]);
        self.1 += len;
        Poll::Ready(Ok(()))
    }
}

impl Write for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of each response.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
