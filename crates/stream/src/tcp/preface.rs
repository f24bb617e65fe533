//! What a connection has to say before its data, in fixed order and under one deadline: the PROXY header, then allow and
//! deny, then the TLS handshake, or the ClientHello to route by.

use std::sync::Arc;
use std::task::{Context, Waker};

use wmproxy_net::limit::Permit;
use wmproxy_net::preface::{self, Heard, Welcome};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_upstream::Group;

use super::TcpService;

impl TcpService {
    /// Whether connections have anything to say before their data. Those that do not pay nothing for it.
    pub(super) fn has_preface(&self) -> bool {
        self.spec.trusted.is_some() || self.tls.is_some() || !self.routes.is_plain()
    }

    /// What a connection has to say before its data.
    pub(super) fn rules(&self) -> Welcome<'_> {
        Welcome {
            proxy_header: self.spec.trusted.as_ref(),
            optional_header: None,
            acl: &self.spec.acl,
            tls: self.tls.as_deref(),
            tls_optional: false,
            wants_hello: !self.routes.is_plain(),
            timeout: self.spec.preface_timeout,
        }
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
        let group = match preface::welcome(stream, record, permit, self.rules()).await? {
            Heard::Hello(hello) => self.routes.find(hello.server_name.as_deref(), hello.alpn.iter()),
            Heard::Session(_) | Heard::Nothing => self.route(record),
        };
        group.ok_or(Outcome::NoRoute)
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
