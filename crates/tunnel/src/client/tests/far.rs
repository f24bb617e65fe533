//! A server's end, written by hand: it says what a test has it say.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{self, Acceptor, AcceptorSpec, CertSpec};
use wmproxy_testkit::TempDir;
use wmproxy_wire::tunnel::codec::LIMIT;
use wmproxy_wire::tunnel::message::{
    ALPN, Challenge, Form, Hello, Message, Nonce, Placed, Purpose, Register, Registered, SessionId, Start,
    VERSION, Welcome,
};

use super::{secret, within};
use crate::auth::{self, Exporter};
use crate::carrier::speech::{SpeechError, read_message, write_message};

/// A listener.
pub(super) struct Far {
    listener: TcpListener,
    tls: Arc<Acceptor>,
    key: &'static str,
    dir: TempDir,
}

/// A connection on which TLS stands.
pub(super) struct Arrived {
    pub(super) stream: Stream,
    pub(super) exporter: Exporter,
}

/// A session's control connection.
pub(super) struct FarSession {
    pub(super) stream: Stream,
    pub(super) hello: Hello,
    id: SessionId,
    secret: Nonce,
}

/// An identity of its own, in a directory.
pub(super) fn acceptor(dir: &TempDir) -> Arc<Acceptor> {
    let spec = AcceptorSpec {
        certs: vec![CertSpec::Identity { file: dir.join("identity.pem") }],
        alpn: vec![ALPN.to_owned()],
        tls13_only: true,
        ..AcceptorSpec::default()
    };
    Arc::new(Acceptor::load(spec).unwrap().0)
}

impl Far {
    pub(super) async fn start() -> Far {
        let dir = TempDir::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Far { listener, tls: acceptor(&dir), key: "the key", dir }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(super) fn with_key(mut self, key: &'static str) -> Far {
        self.key = key;
        self
    }

    /// Shows another certificate from now on, as who stands in between would.
    pub(super) fn change_identity(&mut self) {
        self.dir = TempDir::new();
        self.tls = acceptor(&self.dir);
    }

    pub(super) async fn accept(&self) -> Arrived {
        within("a connection", async {
            loop {
                let (socket, _) = self.listener.accept().await.unwrap();
                let stream = Stream::new(socket.into_std().unwrap().into(), true).unwrap();
                // One that left is none.
                if tls::accept(&stream, &self.tls).await.is_ok() {
                    let exporter = stream.export_keying_material(auth::EXPORTER_LABEL, &[]).unwrap();
                    return Arrived { stream, exporter };
                }
            }
        })
        .await
    }

    /// The next connection, on which nothing is said.
    pub(super) async fn accept_without_tls(&self) -> tokio::net::TcpStream {
        within("a connection", self.listener.accept()).await.unwrap().0
    }

    /// Takes a login on the next connection.
    pub(super) async fn login(&self) -> FarSession {
        self.login_on(self.accept().await, |_| {}).await
    }

    pub(super) async fn login_on(&self, arrived: Arrived, change: impl FnOnce(&mut Welcome)) -> FarSession {
        let Arrived { stream, exporter } = arrived;
        let Message::Hello(hello) = hear(&stream).await else { panic!("no hello") };
        let challenge = Challenge { version: VERSION, capabilities: 0, nonce: auth::nonce() };
        say(&stream, Message::Challenge(challenge.clone())).await;
        let Message::Proof(proof) = hear(&stream).await else { panic!("no proof") };
        let key = secret(self.key);
        assert!(
            self.key != "the key"
                || auth::is_same(&proof, &auth::client_proof(&key, &exporter, &hello, &challenge))
        );
        let mut welcome = Welcome {
            session: [7; 16],
            secret: auth::nonce(),
            mac: auth::server_proof(&key, &exporter, &hello, &challenge),
            heartbeat_ms: 5000,
            max_pool: 64,
            agent: "by hand".to_owned(),
        };
        change(&mut welcome);
        say(&stream, Message::Welcome(welcome.clone())).await;
        FarSession { stream, hello, id: welcome.session, secret: welcome.secret }
    }

    /// The next connection, which has to join the session to wait.
    pub(super) async fn joined(&self, session: &FarSession) -> Stream {
        self.joined_for(session, Purpose::Wait).await
    }

    pub(super) async fn joined_for(&self, session: &FarSession, purpose: Purpose) -> Stream {
        let Arrived { stream, exporter } = self.accept().await;
        let Message::Join(join) = hear(&stream).await else { panic!("no join") };
        assert_eq!((join.session, join.purpose), (session.id, purpose));
        assert!(auth::is_same(&join.mac, &auth::join_proof(&session.secret, &exporter, purpose)));
        stream
    }
}

impl FarSession {
    /// The next message that is neither a ping nor a pong; pings are answered.
    pub(super) async fn hear(&self) -> Message {
        within("a message", async {
            loop {
                match hear(&self.stream).await {
                    Message::Ping(number) => say(&self.stream, Message::Pong(number)).await,
                    Message::Pong(_) => {}
                    message => return message,
                }
            }
        })
        .await
    }

    pub(super) async fn say(&self, message: Message) {
        say(&self.stream, message).await;
    }

    /// Takes a registration and grants all of it.
    pub(super) async fn register(&self) -> Register {
        let Message::Register(register) = self.hear().await else { panic!("no registration") };
        let granted = |id| Placed { id, result: Ok(vec![format!("tcp://far:{id}")]) };
        let results = register.services.iter().map(|service| granted(service.id)).collect();
        self.say(Message::Registered(Registered { epoch: register.epoch, results })).await;
        register
    }

    /// Hears until the client has closed the connection.
    pub(super) async fn until_closed(&self) {
        within("the end", async {
            loop {
                match read_message(&self.stream, LIMIT).await {
                    Ok(Message::Ping(number)) => say(&self.stream, Message::Pong(number)).await,
                    Ok(_) => {}
                    Err(SpeechError::Ended | SpeechError::Io(_)) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
    }
}

pub(super) fn start(service: u32) -> Start {
    Start {
        service,
        form: Form::Bytes,
        visitor: Some(([192, 0, 2, 1], 999).into()),
        local: None,
        client: None,
    }
}

pub(super) async fn hear(stream: &Stream) -> Message {
    within("a message", read_message(stream, LIMIT)).await.unwrap()
}

pub(super) async fn say(stream: &Stream, message: Message) {
    within("a message's way", write_message(stream, &message)).await.unwrap();
}
