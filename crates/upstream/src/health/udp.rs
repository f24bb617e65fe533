//! The check over UDP: a datagram, and what comes back.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::udp;

use super::exchange::{CheckError, Stage, contains};

/// Sends `datagram` and waits for one that contains `expect`. Without that any will do, and so will silence for as
/// long as `patience`: then only the network's answer that nobody listens there speaks against the peer.
///
/// One datagram is sent, and a lost one fails the check: `fall` is what tells loss from death.
pub(super) async fn check(
    peer: SocketAddr,
    options: &PeerSocket,
    datagram: &[u8],
    expect: Option<&[u8]>,
    patience: Duration,
    stage: &mut Stage,
) -> Result<(), CheckError> {
    let socket = open(peer, options).map_err(CheckError::connect)?;
    *stage = Stage::Sending;
    socket.send(datagram).await.map_err(CheckError::connect)?;
    *stage = Stage::Receiving(vec![]);
    match expect {
        Some(expect) => answer(&socket, expect, stage).await,
        None => match tokio::time::timeout(patience, answer(&socket, b"", stage)).await {
            Ok(answered) => answered,
            Err(_) => Ok(()),
        },
    }
}

/// A socket like those of flows, which hears nobody else and what ICMP says.
fn open(peer: SocketAddr, options: &PeerSocket) -> io::Result<UdpSocket> {
    // A flow's own stays on its thread, and a check may be on any.
    let descriptor = udp::UdpSocket::connect(peer, options, None)?.as_fd().try_clone_to_owned()?;
    UdpSocket::from_std(descriptor.into())
}

async fn answer(socket: &UdpSocket, expect: &[u8], stage: &mut Stage) -> Result<(), CheckError> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error makes a socket neither readable nor closed, only erroneous.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(CheckError::Broken)?;
        if ready.is_error() {
            if let Some(error) = socket.take_error().map_err(CheckError::Broken)? {
                return Err(CheckError::PortClosed(error));
            }
            // Nothing to see: the mark is cleared, or it would come again at once.
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        match socket.try_recv(&mut buffer) {
            Ok(n) if expect.is_empty() || contains(&buffer[..n], expect, 0) => return Ok(()),
            // Another may come: an answer to a question from before, say.
            Ok(n) => {
                *stage = Stage::Receiving(vec![]);
                stage.received(&buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(CheckError::PortClosed(error)),
        }
    }
}
