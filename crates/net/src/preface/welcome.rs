//! The usual beginning of a connection: PROXY header, allow and deny, then TLS or a look at the ClientHello, in this order and
//! under one deadline.

use std::time::Duration;

use wmproxy_wire::client_hello::ClientHello;

use super::{Trusted, note_hello, read_client_hello, read_first, read_optional_header, read_proxy_header};
use crate::acl::Acl;
use crate::limit::Permit;
use crate::record::{Outcome, Record};
use crate::stream::Stream;
use crate::tls::{self, Acceptor, TlsError, TlsInfo};

/// What a record of TLS begins with that begins a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// What a listener wants from a connection before its data.
#[derive(Debug, Clone, Copy)]
pub struct Welcome<'a> {
    /// Who has to begin with a PROXY header.
    pub proxy_header: Option<&'a Trusted>,
    /// Who may begin with one, and is believed then.
    pub optional_header: Option<&'a Trusted>,
    /// Who may come.
    pub acl: &'a Acl,
    /// What ends the client's TLS.
    pub tls: Option<&'a Acceptor>,
    /// Whether clients may come without TLS all the same: the first byte tells.
    pub tls_optional: bool,
    /// Whether a connection of which the TLS is not ended here has to begin with it all the same, so that its ClientHello
    /// can be read.
    pub wants_hello: bool,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What a connection has said last of all.
#[derive(Debug)]
pub enum Heard {
    /// Nothing that matters.
    Nothing,
    /// What the TLS session agreed on that was made.
    Session(TlsInfo),
    /// The ClientHello of a session that is not ours, which stays in the stream.
    Hello(Box<ClientHello>),
}

impl Welcome<'_> {
    /// Whether a connection has nothing to say before its data: then [`check`](Welcome::check) is all that there is to do.
    pub fn is_silent(&self, record: &Record) -> bool {
        self.tls.is_none() && !self.wants_hello && !self.wants_header(record) && !self.takes_header(record)
    }

    /// Whether who comes may come.
    ///
    /// # Errors
    /// The outcome, if not.
    pub fn check(&self, record: &Record) -> Result<(), Outcome> {
        let may_come = record.client.is_none_or(|client| self.acl.permits(client.ip()));
        if may_come { Ok(()) } else { Err(Outcome::Denied) }
    }

    fn wants_header(&self, record: &Record) -> bool {
        self.proxy_header.is_some_and(|trusted| trusted.covers(record.client))
    }

    fn takes_header(&self, record: &Record) -> bool {
        self.optional_header.is_some_and(|trusted| trusted.covers(record.client))
    }
}

/// Hears what a connection has to say before its data, and notes it in the record.
///
/// # Errors
/// How the connection ends instead. Of TLS the client was told why.
pub async fn welcome(
    stream: &Stream,
    record: &mut Record,
    permit: &mut Permit,
    rules: Welcome<'_>,
) -> Result<Heard, Outcome> {
    let hearing = hear(stream, record, permit, rules);
    tokio::time::timeout(rules.timeout, hearing).await.unwrap_or(Err(Outcome::PrefaceTimeout))
}

async fn hear(
    stream: &Stream,
    record: &mut Record,
    permit: &mut Permit,
    rules: Welcome<'_>,
) -> Result<Heard, Outcome> {
    let header = if rules.wants_header(record) {
        Some(Some(read_proxy_header(stream).await?))
    } else if rules.takes_header(record) {
        Some(read_optional_header(stream).await?)
    } else {
        None
    };
    if let Some(header) = header {
        if let Some(proxied) = header {
            proxied.note(record);
        }
        // Only now is it known whose place it takes.
        record.client.map_or(Ok(()), |client| permit.admit(client.ip()))?;
    }
    rules.check(record)?;
    let Some(acceptor) = rules.tls else {
        if !rules.wants_hello {
            return Ok(Heard::Nothing);
        }
        let hello = read_client_hello(stream).await?;
        note_hello(record.preface_mut(), &hello);
        return Ok(Heard::Hello(Box::new(hello)));
    };
    if rules.tls_optional {
        let first = read_first(stream).await?;
        let is_tls = first.first() == Some(&HANDSHAKE);
        stream.unread(first);
        if !is_tls {
            return Ok(Heard::Nothing);
        }
    }
    let info = tls::accept(stream, acceptor).await.map_err(|error| {
        tracing::debug!(listener = %record.metrics().name, %error, "no TLS with a client");
        if let TlsError::UnknownName(Some(name)) = &error {
            record.preface_mut().sni = Some(name.as_str().into());
        }
        error.client_outcome()
    })?;
    let preface = record.preface_mut();
    preface.sni = info.sni.clone().map(Into::into);
    preface.alpn = info.alpn.as_deref().map(|protocol| String::from_utf8_lossy(protocol).into());
    Ok(Heard::Session(info))
}
