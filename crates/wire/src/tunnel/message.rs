//! The messages of the tunnel's protocol.

use std::fmt;
use std::net::SocketAddr;

/// The version of the protocol that this program speaks.
pub const VERSION: u16 = 1;

/// How both ends name the protocol to each other in TLS (RFC 7301).
pub const ALPN: &str = "wmproxy-tunnel/1";

/// What is proven with a key: an HMAC-SHA256.
pub type Mac = [u8; 32];

/// Random bytes that are used once.
pub type Nonce = [u8; 32];

/// Names a session. It opens nothing: who comes with it has to prove that they hold the session's secret.
pub type SessionId = [u8; 16];

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client to server, first on a connection that is to carry a session.
    Hello(Hello),
    /// Server to client, in answer to it, whether the name is known or not.
    Challenge(Challenge),
    /// Client to server, in answer to it: the proof that it has the key.
    Proof(Mac),
    /// Server to client: the session is made.
    Welcome(Welcome),
    /// Either way: no, and why. Nothing else follows.
    Refused(Refusal),
    /// Client to server, first on a further connection of a session.
    Join(Join),
    /// Client to server: everything that the client offers from now on.
    Register(Register),
    /// Server to client: what became of it.
    Registered(Registered),
    /// Client to server: a service is able to serve, or is not.
    State(State),
    /// Either way: are you there?
    Ping(u64),
    /// In answer to it, with its number.
    Pong(u64),
    /// Server to client: so many more connections are waited for.
    Need(u32),
    /// Server to client, first on a stream: a visitor has come. The visitor's bytes, or datagrams, follow at once.
    Start(Start),
    /// Client to server, first on a stream: it wants to visit a private service of another client.
    Visit(Visit),
    /// Owner to visitor, through the server: prove that you know the service's secret.
    Dare(Nonce),
    /// Visitor to owner, in answer to it.
    Answer(Answer),
    /// Owner to visitor: the owner knows the secret, too. Bytes, or datagrams, follow.
    Granted(Mac),
    /// Server to client: a visitor could not be served, as the client's log should say; or the other way round.
    Failed(Failed),
    /// Either way: this end is about to go. What runs may end, nothing new begins.
    Leaving,
}

/// See [`Message::Hello`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the client speaks.
    pub version: u16,
    /// What else it is able to do; a bit each, none of them is given out yet.
    pub capabilities: u64,
    /// Who it says that it is.
    pub name: String,
    /// The client's share in the proofs.
    pub nonce: Nonce,
    /// The program and its version, for the server's log.
    pub agent: String,
}

/// See [`Message::Challenge`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The version that is spoken from now on: the highest that both speak.
    pub version: u16,
    /// What both are able to do.
    pub capabilities: u64,
    /// The server's share in the proofs.
    pub nonce: Nonce,
}

/// See [`Message::Welcome`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Welcome {
    /// The session's name.
    pub session: SessionId,
    /// What proves that a further connection belongs to the session.
    pub secret: Nonce,
    /// The proof that the server has the client's key, too.
    pub mac: Mac,
    /// How long either end may be silent before the other asks, in milliseconds; after three times as long it is gone.
    pub heartbeat_ms: u32,
    /// The most connections that may wait in the session's pool.
    pub max_pool: u32,
    /// The program and its version, for the client's log.
    pub agent: String,
}

/// Without the secret, which no log may hold.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("session", &self.session)
            .field("heartbeat_ms", &self.heartbeat_ms)
            .field("max_pool", &self.max_pool)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// See [`Message::Refused`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of it, for programs.
    pub code: RefusalCode,
    /// The whole of it, for people. No secret is in it.
    pub text: String,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// Anything else, and what a newer end may say.
    Other = 0,
    /// No version is spoken by both.
    Version = 1,
    /// The name is unknown or the key is wrong: which of them is not told.
    Unauthenticated = 2,
    /// The session is over, or never was.
    NoSession = 3,
    /// As many as may be are there already, or it comes too often.
    Limit = 4,
    /// The client's grants do not allow it.
    NotGranted = 5,
    /// Somebody else has that name, port or host.
    InUse = 6,
    /// What was asked for makes no sense, or can't be had here.
    Invalid = 7,
    /// There is no such service, or none that this client may visit: which of them is not told.
    NoService = 8,
    /// Nobody who could serve it is there.
    Unavailable = 9,
    /// The system does not give it: a port, memory.
    System = 10,
    /// This end is about to go.
    Leaving = 11,
}

/// See [`Message::Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The session that it belongs to.
    pub session: SessionId,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The proof that who opened it holds the session's secret, on this connection.
    pub mac: Mac,
}

/// What a further connection of a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// To wait for a visitor, with a [`Start`].
    Wait = 0,
    /// To carry many streams, by yamux. Each begins as a connection of its own would.
    Many = 1,
    /// For one [`Visit`].
    Visit = 2,
}

/// See [`Message::Register`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// Numbers the registrations of a session, upwards. A later one replaces the one before it as a whole.
    pub epoch: u64,
    /// The services.
    pub services: Vec<Service>,
}

/// A service as it is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Names it in the session; the same as long as the service is the same.
    pub id: u32,
    /// Its name among the client's.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether it has no public place, and only visitors with its secret reach it.
    pub is_private: bool,
    /// The server's port; 0 lets the server pick one.
    pub port: u16,
    /// The hosts that lead to it; `*.` in front stands for any name below.
    pub hosts: Vec<String>,
    /// The beginnings of paths that lead to it; none is every path.
    pub paths: Vec<String>,
    /// The networks that visitors may come from; none is any.
    pub visitors: Vec<String>,
    /// The clients that may visit it, if it is private; none is any.
    pub clients: Vec<String>,
    /// Services of this group on the same port or host share the load.
    pub group: Option<String>,
    /// Whether it is able to serve now.
    pub is_up: bool,
    /// Whether the server ends TLS, for a service of https.
    pub terminate: bool,
    /// The most visitors at a time; 0 is no limit.
    pub max_connections: u32,
    /// Bytes a second from visitors; 0 is no limit.
    pub rate_up: u64,
    /// Bytes a second to visitors; 0 is no limit.
    pub rate_down: u64,
    /// What the server does to requests and answers, for http.
    pub http: HttpRules,
}

/// What a service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Connections.
    #[default]
    Tcp = 0,
    /// Datagrams.
    Udp = 1,
    /// Requests, told apart by host and path.
    Http = 2,
    /// TLS, told apart by the server name.
    Https = 3,
    /// Connections, which the client's side serves as a forward proxy.
    Proxy = 4,
}

impl Kind {
    /// The word for it in configuration, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Proxy => "proxy",
        }
    }
}

/// What the server does to requests and answers of a service.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpRules {
    /// Names and hashes of passwords, as `hash-password` makes them; none lets everybody in.
    pub users: Vec<(String, String)>,
    /// The host that the service sees instead of the visitor's.
    pub host: Option<String>,
    /// Fields that requests get, with their values.
    pub set_request: Vec<(String, String)>,
    /// Fields that are taken from requests.
    pub remove_request: Vec<String>,
    /// Fields that answers get, with their values.
    pub set_response: Vec<(String, String)>,
    /// Fields that are taken from answers.
    pub remove_response: Vec<String>,
    /// Whether the service speaks HTTP/2 without TLS.
    pub is_h2c: bool,
}

/// Without the hashes, which no log may hold, nor the values of fields, among which there may be keys.
impl fmt::Debug for HttpRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |list: &[(String, String)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("HttpRules")
            .field("users", &names(&self.users))
            .field("host", &self.host)
            .field("set_request", &names(&self.set_request))
            .field("remove_request", &self.remove_request)
            .field("set_response", &names(&self.set_response))
            .field("remove_response", &self.remove_response)
            .field("is_h2c", &self.is_h2c)
            .finish()
    }
}

/// See [`Message::Registered`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registered {
    /// The registration that it answers.
    pub epoch: u64,
    /// What became of each service, in their order.
    pub results: Vec<Placed>,
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which.
    pub id: u32,
    /// Where visitors reach it, for people and programs to read: `tcp://203.0.113.7:20022`, `http://nas.example.com`. Or why
    /// they don't.
    pub result: Result<Vec<String>, Refusal>,
}

/// See [`Message::State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Which service.
    pub id: u32,
    /// Whether it is able to serve.
    pub is_up: bool,
}

/// See [`Message::Start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The service.
    pub service: u32,
    /// What follows.
    pub form: Form,
    /// The visitor's address; none where it came by a unix socket, or is known by name only.
    pub visitor: Option<SocketAddr>,
    /// The address that it came to.
    pub local: Option<SocketAddr>,
    /// The client that it is, if it visits a private service.
    pub client: Option<String>,
}

/// What follows on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// Bytes as they are.
    Bytes = 0,
    /// Datagrams of many flows.
    Datagrams = 1,
}

/// See [`Message::Visit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The client and its service, as in `home/db`.
    pub service: String,
    /// What follows.
    pub form: Form,
    /// Who came to the visiting client's listener.
    pub visitor: Option<SocketAddr>,
}

/// See [`Message::Answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The proof that the visitor knows the service's secret.
    pub mac: Mac,
    /// The visitor's share in the owner's proof.
    pub nonce: Nonce,
}

/// See [`Message::Failed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which service.
    pub service: u32,
    /// Why.
    pub refusal: Refusal,
}
