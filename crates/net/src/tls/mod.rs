//! TLS as a layer inside a [`Stream`]: whoever reads and writes one does not see it.
//!
//! What lives here: taking a client's handshake ([`accept`] with an [`Acceptor`]), making one with a peer ([`connect`]
//! with a [`Connector`]), the certificates of both and their files, and the session that encrypts and decrypts
//! afterwards. What must not: when a handshake is due and how long it may take; the caller says that.
//!
//! A session owns no buffer while it is idle. Ciphertext passes through the worker's scratch: what one read brought is
//! decrypted at once, what one write takes is encrypted as a whole and sent in one call. Kept is only the beginning of
//! a record that has not come whole, and what a full socket did not take.
//!
//! A stream that has a session takes another handshake: the new session then lies upon the one before, as deep as is wanted.
//!
//! An end without close_notify is a truncation (RFC 8446 section 6.1) and comes as an error, never as an end: what
//! was cut off must not pass for the whole.

mod acceptor;
mod below;
mod certificate;
mod connector;
mod engine;
mod exporter;
mod files;
mod identity;
mod options;
mod reason;
mod renewal;
mod resolver;
mod scratch;
mod self_signed;
mod session;
mod tickets;
mod verifier;
mod watch;

use std::io;

use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

pub use acceptor::{Acceptor, AcceptorSpec};
pub use certificate::{CertificateInfo, ClientCertificate, Fingerprint, NoFingerprint};
pub use connector::{Connector, ConnectorSpec};
pub use files::{CertSpec, Fault, Field};
pub use options::{CertOptions, ListenerTls, PeerTls, PeerTlsOptions};
pub use renewal::Renewal;
pub use self_signed::{SELF_SIGNED, state_directory};
pub(crate) use session::Session;
pub use watch::Store;

use crate::record::Outcome;
use crate::stream::Stream;
use reason::Reason;

/// A record's header, which rustls counts in when it limits the size of one.
const HEADER: usize = 5;

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client asked for, in lower case.
    pub sni: Option<String>,
    /// The protocol of the application layer (RFC 7301).
    pub alpn: Option<Vec<u8>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Who the client has proven to be, where it was asked.
    pub client: Option<ClientCertificate>,
}

/// Why a handshake failed, or a session after it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The connection itself failed.
    #[error(transparent)]
    Io(io::Error),
    /// The other side closed in the middle of the handshake.
    #[error("the connection was closed in the middle of the handshake")]
    Unfinished,
    /// The other side closed without saying that it was done: what came may not be all.
    #[error("the connection was closed without close_notify")]
    Truncated,
    /// The server has forgotten the session that was to be resumed.
    #[error("the server has forgotten the session that was to be resumed")]
    Forgotten,
    /// There is no certificate for the name that the client asks for, if it asks for any, and none may stand in.
    #[error("there is no certificate for the name that the client asks for")]
    UnknownName(Option<String>),
    /// The server's certificate is none of those that are pinned.
    #[error("the certificate's fingerprint is {0}, which is not what was expected")]
    Unpinned(Fingerprint),
    /// The other side broke the protocol, refused what was agreed on, or proved not to be who it should.
    #[error("{}", Reason(.0))]
    Protocol(rustls::Error),
}

impl TlsError {
    /// Whether the other side's certificate was not accepted.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, TlsError::Unpinned(_) | TlsError::Protocol(rustls::Error::InvalidCertificate(_)))
    }

    /// How a connection ended whose handshake with the client failed so.
    pub fn client_outcome(&self) -> Outcome {
        match self {
            TlsError::Io(_) => Outcome::ClientReset,
            TlsError::Unfinished => Outcome::ClientLeft,
            TlsError::UnknownName(_) => Outcome::NoRoute,
            _ => Outcome::ClientTls,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        match verifier::unpinned(&error) {
            Some(found) => TlsError::Unpinned(found),
            None => TlsError::Protocol(error),
        }
    }
}

impl From<TlsError> for io::Error {
    /// The form in which a stream's reads and writes tell it; see [`is_failure`].
    fn from(error: TlsError) -> io::Error {
        match error {
            TlsError::Io(error) => error,
            error @ TlsError::Truncated => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Whether an error of a stream is TLS's own, and not that of the socket below it.
pub fn is_failure(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TlsError>())
}

/// Does the server's part of a handshake. From then on the stream's reads and writes are of what was encrypted. Bytes
/// that the stream has unread come first. On a stream with TLS this is TLS inside it.
///
/// Sets no deadline of its own: drop the future, and the stream with it, to give up.
///
/// # Errors
/// As the handshake failed. The client was told by an alert, where there was one to tell; the stream is of no more use.
pub async fn accept(stream: &Stream, acceptor: &Acceptor) -> Result<TlsInfo, TlsError> {
    let server = UnbufferedServerConnection::new(acceptor.config())?;
    let mut session = Box::new(Session::server(server, stream.take_unread(), stream.take_session()));
    let mut sni = None;
    match session.handshake(stream, &mut sni).await {
        Ok(()) => {}
        // What rustls says when it was given no certificate.
        Err(TlsError::Protocol(rustls::Error::General(_))) if acceptor.refuses(sni.as_deref()) => {
            session.send_unrecognized_name(stream);
            return Err(TlsError::UnknownName(sni));
        }
        Err(error) => {
            session.send_alert(stream);
            return Err(error);
        }
    }
    let info = info(session.state(), sni);
    stream.set_session(session);
    Ok(info)
}

/// Does the client's part of a handshake, and sees that the other side is `name`; see [`accept`] for the rest.
///
/// # Errors
/// As [`accept`]; see [`TlsError::is_untrusted`] for a server that is not who it should be.
pub async fn connect(
    stream: &Stream,
    connector: &Connector,
    name: ServerName<'static>,
) -> Result<TlsInfo, TlsError> {
    let session = begin(connector, stream, name)?;
    let session = shake(stream, session).await?;
    let info = info(session.state(), None);
    stream.set_session(session);
    Ok(info)
}

/// Does [`connect`] once more with a server that a session of before is known with, and with less work, if that session can be
/// resumed and both ends speak TLS 1.3 only: the keys are as safe as those of the session before, whatever the exchange of keys
/// is worth alone.
///
/// # Errors
/// As `connect`; and [`TlsError::Forgotten`], after which another try begins from the start.
pub async fn connect_again(
    stream: &Stream,
    connector: &Connector,
    name: ServerName<'static>,
) -> Result<TlsInfo, TlsError> {
    let (session, has_ticket) = begin_again(connector, stream, name.clone())?;
    let session = shake(stream, session).await?;
    if has_ticket && session.state().handshake_kind() != Some(HandshakeKind::Resumed) {
        connector.forget(&name);
        return Err(TlsError::Forgotten);
    }
    let info = info(session.state(), None);
    stream.set_session(session);
    Ok(info)
}

/// A client's session. Apart, for its parts would make the future large that they are a part of.
fn begin(
    connector: &Connector,
    stream: &Stream,
    name: ServerName<'static>,
) -> Result<Box<Session>, TlsError> {
    let client = connector.begin(name)?;
    Ok(Box::new(Session::client(client, stream.take_unread(), stream.take_session())))
}

/// The same for a session to be resumed; and whether there is one.
fn begin_again(
    connector: &Connector,
    stream: &Stream,
    name: ServerName<'static>,
) -> Result<(Box<Session>, bool), TlsError> {
    let (client, has_ticket) = connector.begin_again(name)?;
    Ok((Box::new(Session::client(client, stream.take_unread(), stream.take_session())), has_ticket))
}

/// Goes through a client's handshake.
async fn shake(stream: &Stream, mut session: Box<Session>) -> Result<Box<Session>, TlsError> {
    if let Err(error) = session.handshake(stream, &mut None).await {
        session.send_alert(stream);
        return Err(error);
    }
    Ok(session)
}

fn info(state: &CommonState, sni: Option<String>) -> TlsInfo {
    TlsInfo {
        sni,
        alpn: state.alpn_protocol().map(<[u8]>::to_vec),
        version: match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            // rustls knows no others.
            _ => "TLSv1.3",
        },
        client: state.peer_certificates().and_then(|chain| chain.first()).map(ClientCertificate::new),
    }
}

#[cfg(test)]
mod tests;
