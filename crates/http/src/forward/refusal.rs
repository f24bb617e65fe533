//! What a client of a forward proxy is told when its request leads nowhere: the one place where faults become statuses.

use std::borrow::Cow;
use std::time::Duration;

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::record::Outcome;
use wmproxy_wire::destination::BadHost;
use wmproxy_wire::head::{Known, Method, usual_reason};

use super::Unknown;
use crate::exchange::{End, Exchange, Passage, Trouble};
use crate::reply::Failure;
use crate::service::distrust;

/// Why a request leads nowhere.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is nobody to tell.
    Gone(Outcome),
    /// The client is told so.
    Told(Told),
}

/// What a client is told.
#[derive(Debug)]
pub(super) struct Told {
    status: u16,
    /// What happened and what to do, in plain words; empty where the status says it.
    text: Cow<'static, str>,
    /// How the request has ended, where that is not as requests end that are answered.
    outcome: Option<Outcome>,
    /// When to ask again.
    later: Option<Duration>,
}

/// What asks for a name and a password (RFC 7617 section 2).
pub(super) fn challenge(realm: &str) -> Box<[u8]> {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    format!("Basic realm=\"{quoted}\", charset=\"UTF-8\"").into_bytes().into()
}

impl Refusal {
    fn told(status: u16, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Told(Told { status, text: text.into(), outcome: None, later: None })
    }

    /// One that the status says all of.
    pub(super) fn status(status: u16) -> Refusal {
        Refusal::told(status, "")
    }

    /// A request that nobody could serve.
    pub(super) fn bad(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::told(400, text)
    }

    /// A host that is none.
    pub(super) fn no_host(bad: BadHost) -> Refusal {
        Refusal::bad(sentence(&bad.to_string()))
    }

    /// A whole request for a site by TLS, which the client would have to trust the proxy with.
    pub(super) fn https() -> Refusal {
        Refusal::told(
            501,
            "Sites with https are reached through this proxy by CONNECT, which keeps what you say to them between you and \
             them. Browsers, curl and other clients do so by themselves.",
        )
    }

    /// A request to the proxy as if it were a site.
    pub(super) fn not_a_site() -> Refusal {
        Refusal::told(
            400,
            "This is a proxy and no web site. To use it, name its address and port as the HTTP proxy in the settings of \
             your browser or system, or as in: curl -x http://ADDRESS:PORT http://example.com/",
        )
    }

    /// A request that has been here before.
    pub(super) fn came_round() -> Refusal {
        Refusal::told(
            508,
            "This request has come through this proxy before: it goes in a circle. Some proxy on the way sends it back \
             here.",
        )
    }

    /// A server that behaves as only a proxy may.
    pub(super) fn false_proxy() -> Refusal {
        Refusal::told(502, "The server asks for the password of a proxy (407), which only a proxy may.")
    }

    /// Tells the client, if it can still be told. Who has to say who they are gets the `challenge`.
    pub(super) async fn tell(self, ex: &mut Exchange<'_, '_>, challenge: &[u8]) -> End {
        let told = match self {
            Refusal::Gone(outcome) => return End::Cut(outcome),
            Refusal::Told(_) if ex.has_begun => return End::Cut(Outcome::PeerReset),
            Refusal::Told(told) => told,
        };
        let body = told.write(ex, challenge);
        if ex.request.method == Method::Connect && ex.front.has_ahead() {
            // Bytes for the far end of the tunnel, perhaps, and no request.
            ex.is_persistent = false;
        }
        distrust(ex, told.status);
        End::from(ex.respond(body.as_bytes(), Passage::default()).await)
    }
}

impl Told {
    /// Writes the response, and gives its body.
    fn write(&self, ex: &mut Exchange<'_, '_>, challenge: &[u8]) -> String {
        ex.facts.outcome = self.outcome;
        let response = &mut *ex.response;
        response.clear();
        response.set_status(self.status);
        let fields = &mut response.fields;
        fields.push_known(Known::ContentType, b"text/plain; charset=utf-8");
        // What went wrong now is nothing to keep.
        fields.push_known(Known::CacheControl, b"no-store");
        if self.status == 407 {
            fields.push_known(Known::ProxyAuthenticate, challenge);
        }
        if let Some(later) = self.later {
            // A part of a second is one to be waited for.
            let seconds = later.as_secs() + u64::from(later.subsec_nanos() > 0);
            fields.push_known(Known::RetryAfter, seconds.to_string().as_bytes());
        }
        let mut body = format!("{} {}\n", self.status, usual_reason(self.status));
        if !self.text.is_empty() {
            body.push('\n');
            body.push_str(&self.text);
            body.push('\n');
        }
        body
    }
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Refusal {
        let status = match error.fault {
            Fault::Denied => 403,
            Fault::Limited => 429,
            Fault::TimedOut => 504,
            Fault::Resources | Fault::NoWay => 503,
            Fault::Unsupported => 501,
            Fault::Unresolved
            | Fault::Refused
            | Fault::NetworkUnreachable
            | Fault::HostUnreachable
            | Fault::Reset
            | Fault::Tls
            | Fault::Unauthorized
            | Fault::Broken
            | Fault::HopDown
            | Fault::Other => 502,
        };
        let text = format!("{}{}", sentence(&error.text), advice(error.fault));
        Refusal::Told(Told { status, text: text.into(), outcome: Some(error.fault.outcome()), later: None })
    }
}

/// What may be done about it.
fn advice(fault: Fault) -> &'static str {
    match fault {
        Fault::Denied => "\nWhoever runs this proxy decides where it goes.",
        Fault::Limited => "\nAsk again when other transfers have ended, or whoever runs this proxy.",
        Fault::Unresolved => "\nIs the name spelt as it should be?",
        Fault::Refused => "\nNobody listens there: is the port right, and does the server run?",
        Fault::NetworkUnreachable | Fault::HostUnreachable => "\nThere is no way there from this proxy.",
        Fault::TimedOut => "\nIt may be down, or something on the way drops what is sent to it.",
        Fault::Resources | Fault::NoWay => "\nThis is a trouble of the proxy itself, not of the server.",
        Fault::Tls | Fault::Unauthorized | Fault::Broken | Fault::HopDown => {
            "\nThis is a trouble between this proxy and the next one on the way; its log says more."
        }
        Fault::Reset | Fault::Unsupported | Fault::Other => "",
    }
}

/// A text as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Refusal {
        match unknown {
            Unknown::Unauthenticated => Refusal::told(
                407,
                "This proxy wants to know who you are: a name and a password that it knows, in the settings of your client.",
            ),
            Unknown::Later(wait) => Refusal::Told(Told {
                status: 429,
                text: "Too many wrong passwords have come from your address, or too many are being checked. Wait, then try \
                       again with the right one."
                    .into(),
                outcome: Some(Outcome::RateLimited),
                later: Some(wait),
            }),
            Unknown::Limited(text) => Refusal::Told(Told {
                status: 429,
                text: sentence(text).into(),
                outcome: Some(Outcome::Denied),
                later: None,
            }),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        match failure {
            Failure::Gone(outcome) => Refusal::Gone(outcome),
            Failure::Status(502) => {
                Refusal::told(502, "The server closed the connection, or gave an answer that is none.")
            }
            Failure::Status(504) => {
                Refusal::told(504, "The server took the request, and has not answered in time.")
            }
            Failure::Status(429) => {
                Refusal::told(429, "You have used up the bytes that you may have through this proxy.")
            }
            Failure::Status(status) => Refusal::status(status),
        }
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Refusal {
        Failure::from(trouble).into()
    }
}
