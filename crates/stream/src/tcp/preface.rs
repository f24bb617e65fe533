//! What a connection has to say before its data, in fixed order and under one deadline: the PROXY header, then allow and
//! deny, then the TLS handshake, or the ClientHello to route by.

use std::sync::Arc;
use std::task::{Context, Waker};

use wmproxy_net::limit::Permit;
use wmproxy_net::preface;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls;
use wmproxy_upstream::Group;

use super::TcpService;

impl TcpService {
    /// Whether connections have anything to say before their data. Those that do not pay nothing for it.
    pub(super) fn has_preface(&self) -> bool {
        self.spec.trusted.is_some() || self.tls.is_some() || !self.routes.is_plain()
    }

    /// Reads the preface, and says to which group the connection goes.
    ///
    /// # Errors
    /// How the connection ends instead.
    pub(super) async fn preface(
        &self,
        stream: &Stream,
        record: &mut Record,
        permit: &mut Permit,
    ) -> Result<&Arc<Group>, Outcome> {
        let reading = self.read_preface(stream, record, permit);
        tokio::time::timeout(self.spec.preface_timeout, reading).await.unwrap_or(Err(Outcome::PrefaceTimeout))
    }

    async fn read_preface(
        &self,
        stream: &Stream,
        record: &mut Record,
        permit: &mut Permit,
    ) -> Result<&Arc<Group>, Outcome> {
        if self.is_trusted(record.client) {
            preface::read_proxy_header(stream).await?.note(record);
            // Only now is it known whose place it takes.
            record.client.map_or(Ok(()), |client| permit.admit(client.ip()))?;
        }
        self.check_client(record)?;
        if let Some(acceptor) = &self.tls {
            let info = tls::accept(stream, acceptor).await.map_err(|error| {
                tracing::debug!(listener = %self.spec.name, %error, "no TLS with a client");
                error.client_outcome()
            })?;
            note_session(record, info);
        } else if !self.routes.is_plain() {
            let hello = preface::read_client_hello(stream).await?;
            preface::note_hello(record.preface_mut(), &hello);
            let name = hello.server_name.as_deref();
            return self.routes.find(name, hello.alpn.iter()).ok_or(Outcome::NoRoute);
        }
        self.route(record).ok_or(Outcome::NoRoute)
    }

    /// By what is known of a session that was agreed on; the default for a connection without one.
    fn route(&self, record: &Record) -> Option<&Arc<Group>> {
        let preface = record.preface.as_deref();
        let name = preface.and_then(|preface| preface.sni.as_deref());
        let protocol = preface.and_then(|preface| preface.alpn.as_deref());
        self.routes.find(name, protocol.map(str::as_bytes))
    }

    /// Tells a client that is turned away why, where its protocol has a word for it. False if it is to be reset instead,
    /// for a FIN would look like an answer without content.
    pub(super) fn say_goodbye(&self, stream: &Stream, outcome: Outcome) -> bool {
        match outcome {
            Outcome::NoRoute if self.tls.is_some() => {
                let mut cx = Context::from_waker(Waker::noop());
                // A word of the session's own, if there is room for it at once.
                let _ = stream.poll_shutdown_write(&mut cx);
                true
            }
            Outcome::NoRoute => {
                preface::refuse_name(stream);
                true
            }
            // The handshake has said it already.
            Outcome::ClientTls => true,
            _ => false,
        }
    }
}

fn note_session(record: &mut Record, info: tls::TlsInfo) {
    let preface = record.preface_mut();
    preface.sni = info.sni.map(Into::into);
    preface.alpn = info.alpn.map(|protocol| String::from_utf8_lossy(&protocol).into());
}
