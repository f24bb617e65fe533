//! The check over HTTP/1.1: one request on a connection of its own, and as much of the answer as decides.

mod response;

use wmproxy_net::stream::Stream;

pub(super) use response::HttpError;
use response::Response;

use super::exchange::{CheckError, Stage, receive, send};
use super::options::HttpSpec;

/// Sends the request and judges the answer. `host` is what the peer is called, unless the options say otherwise.
pub(super) async fn check(
    stream: &Stream,
    spec: &HttpSpec,
    host: &str,
    stage: &mut Stage,
) -> Result<(), CheckError> {
    send(stream, request(spec, host).as_bytes(), stage).await?;
    let mut response = Response::new(spec);
    let mut buffer = [0; 4096];
    loop {
        match receive(stream, &mut buffer, stage).await? {
            0 => return Ok(response.end()?),
            n if response.take(&buffer[..n])? => return Ok(()),
            _ => {}
        }
    }
}

fn request(spec: &HttpSpec, host: &str) -> String {
    let HttpSpec { method, path, .. } = spec;
    let host = spec.host.as_deref().unwrap_or(host);
    let agent = concat!("wmproxy/", env!("CARGO_PKG_VERSION"), " (health check)");
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
}
