//! The PROXY header that is sent to a peer: who the client is.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Poll, ready};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use wmproxy_wire::proxy_protocol::{
    Command, Endpoints, TlvList, Tlvs, Transport, encode_v1, encode_v2, kind,
};

use super::CHUNK;
use crate::addr::{Address, Protocol};
use crate::record::{Outcome, Record};
use crate::stream::Stream;
use crate::tls;

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text: the addresses alone, of tcp only.
    V1,
    /// Binary: also the server name, and whatever else came in.
    V2,
}

/// A header for a peer, to be sent before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction(pub(super) Vec<u8>);

impl Introduction {
    /// Of the client of a record. With version 2 goes what came in a header of the same version, and of the client's TLS
    /// what is known; with [`Protocol::Udp`] version 1 can only say that it knows nothing.
    pub fn new(version: ProxyVersion, record: &Record) -> Introduction {
        let local = record.local_address();
        let destination = record.destination();
        let transport = match record.metrics().protocol {
            Protocol::Tcp => Transport::Stream,
            Protocol::Udp => Transport::Datagram,
        };
        let endpoints = match (record.client, destination, &local) {
            (Some(source), Some(destination), _) => Endpoints::inet(transport, source, destination),
            (None, _, Address::Unix(path)) => {
                Endpoints::Unix { transport, source: b"", destination: path.as_os_str().as_encoded_bytes() }
            }
            // A header that came over a unix socket and did not say where its client had gone.
            (Some(source), None, _) => Endpoints::inet(transport, source, nowhere(source)),
            (None, ..) => Endpoints::Unknown,
        };
        let mut header = Vec::new();
        match version {
            ProxyVersion::V1 => encode_v1(&mut header, &endpoints),
            ProxyVersion::V2 => encode_v2(&mut header, Command::Proxy, &endpoints, &tlvs(record), false),
        }
        Introduction(header)
    }

    /// Of nobody: for a connection that is made on our own behalf, as for a health check.
    pub fn own(version: ProxyVersion) -> Introduction {
        let mut header = Vec::new();
        match version {
            ProxyVersion::V1 => encode_v1(&mut header, &Endpoints::Unknown),
            ProxyVersion::V2 => {
                encode_v2(&mut header, Command::Local, &Endpoints::Unknown, &TlvList::new(), false);
            }
        }
        Introduction(header)
    }

    /// The header's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Sends the header alone.
    ///
    /// # Errors
    /// The peer takes no more.
    pub async fn send(&self, peer: &Stream) -> std::io::Result<()> {
        write_all(peer, &self.0, &mut 0).await
    }

    /// Sends the header to a peer, and what the client has said already with it: one packet instead of two. What of that
    /// is sent is noted in the record. The client is not waited for, and the peer no longer than `patience`.
    ///
    /// # Errors
    /// One of the two is gone, or the peer takes too long.
    pub async fn send_with_data(
        self,
        client: &Stream,
        peer: &Stream,
        patience: Duration,
        record: &mut Record,
    ) -> Result<(), Outcome> {
        let Introduction(mut first) = self;
        let header = first.len();
        poll_fn(|cx| {
            let mut chunk = [0; CHUNK];
            Poll::Ready(match client.poll_read(cx, &mut chunk) {
                // An end is seen by the relay once more.
                Poll::Ready(Ok(n)) => {
                    first.extend_from_slice(&chunk[..n]);
                    Ok(())
                }
                Poll::Ready(Err(error)) if tls::is_failure(&error) => Err(Outcome::ClientTls),
                Poll::Ready(Err(_)) => Err(Outcome::ClientReset),
                Poll::Pending => Ok(()),
            })
        })
        .await?;
        let mut written = 0;
        let sent = timeout(patience, write_all(peer, &first, &mut written)).await;
        record.add_bytes(written.saturating_sub(header) as u64, 0);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Outcome::PeerReset),
            Err(_) => Err(Outcome::ConnectTimeout),
        }
    }
}

/// What an onward header of version 2 says besides the addresses.
fn tlvs(record: &Record) -> TlvList {
    let mut list = TlvList::new();
    let Some(preface) = &record.preface else { return list };
    let came = Tlvs::new(&preface.proxy_tlvs);
    for tlv in came.iter().filter(|tlv| !matches!(tlv.kind, kind::CRC32C | kind::NOOP)) {
        list.push(tlv.kind, tlv.value);
    }
    let mut add = |kind, value: Option<&str>| {
        if let Some(value) = value.filter(|_| came.get(kind).is_none()) {
            list.push(kind, value.as_bytes());
        }
    };
    add(kind::AUTHORITY, preface.sni.as_deref());
    // Of several that are offered nobody knows yet which it will be.
    add(kind::ALPN, preface.alpn.as_deref().filter(|alpn| !alpn.contains(',')));
    list
}

/// The unspecified address of the same family.
fn nowhere(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Writes all of it, and counts in `written` how much of it has gone.
async fn write_all(stream: &Stream, bytes: &[u8], written: &mut usize) -> std::io::Result<()> {
    poll_fn(|cx| {
        while *written < bytes.len() {
            *written += ready!(stream.poll_write(cx, &bytes[*written..]))?;
        }
        Poll::Ready(Ok(()))
    })
    .await
}
