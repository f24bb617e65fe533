//! How much a connection of QUIC may take, and how long it may be silent.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
};
use socket2::SockRef;

/// How much may be on its way in one stream: 1 Gbit/s over 50 ms. A visitor who does not read costs this.
const STREAM_WINDOW: u32 = 6 << 20;

/// How much of a login may be on its way. All that is said there takes a few hundred bytes.
const LOGIN_WINDOW: u32 = 16 << 10;

/// How much of what was written may wait for its acknowledgement, in all streams: what the other side's window of one stream
/// takes, twice, so that one stream that fills its own holds up nobody.
const SEND_WINDOW: u64 = 2 * STREAM_WINDOW as u64;

/// How many bytes of datagrams wait for their reader or for the network before the oldest are dropped: some ms of 1 Gbit/s.
const DATAGRAMS: usize = 1 << 20;

/// How often a silent client sends something. NAT forgets flows of UDP after 30 s at the earliest (RFC 4787 asks for 2 minutes,
/// and is not heard everywhere); but only who sends hears that the server has started anew and knows of no connection.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Three of those are lost before the other side counts as gone.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(30_000);

/// What the kernel is asked to hold each way: 16 ms of 1 Gbit/s. It gives what net.core.rmem_max allows.
const SOCKET_BUFFER: usize = 2 << 20;

/// Connections whose handshake has not begun. The listener looks at each at once, so that few wait.
const MAX_INCOMING: usize = 256;

/// What may come of one of them meanwhile, and of all.
const INCOMING_BUFFER: (u64, u64) = (16 << 10, 1 << 20);

fn transport(keep_alive: Option<Duration>) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        // Controllers that take each loss for congestion leave datagrams a fifth of their rate at one loss in a hundred.
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LOGIN_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .keep_alive_interval(keep_alive)
        .max_idle_timeout(Some(IdleTimeout::from(IDLE_TIMEOUT)));
    transport
}

/// What a listener's connections have in common. Who comes with a connection of the process before this one is told that it is
/// over (RFC 9000 section 10.3), where both have the same secret; without that clients would wait for their own patience to end.
pub(super) fn endpoint(secret: Option<[u8; 32]>) -> EndpointConfig {
    let Some(secret) = secret else { return EndpointConfig::default() };
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    // By default ids that another process gave out are taken for noise.
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Gives connections ids of random bytes, which say nothing about who gave them.
#[derive(Debug)]
struct RandomIds;

/// So long that nobody guesses one, and none is given twice.
const ID_LEN: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_LEN];
        // Without random numbers there is no TLS either.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn client(tls: Arc<rustls::ClientConfig>) -> io::Result<ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(Some(KEEP_ALIVE))));
    Ok(config)
}

pub(super) fn server(tls: Arc<rustls::ServerConfig>) -> io::Result<ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(None)))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER.0)
        .incoming_buffer_size_total(INCOMING_BUFFER.1);
    Ok(config)
}

/// Asks the kernel to hold more datagrams each way. It may give less, and then fast senders lose some.
pub fn raise_buffers(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    for (set, which) in [
        (socket.set_recv_buffer_size(SOCKET_BUFFER), "receive"),
        (socket.set_send_buffer_size(SOCKET_BUFFER), "send"),
    ] {
        if let Err(error) = set {
            tracing::debug!(%error, which, "could not raise a socket's buffer");
        }
    }
}
