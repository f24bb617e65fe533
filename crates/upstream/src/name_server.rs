//! A name server on loopback, for tests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::lookup::Resolver;

/// What the name server says about one name: addresses with a TTL, or nothing but an error.
type Zone = HashMap<String, Result<(Vec<IpAddr>, u32), ResponseCode>>;

/// A name server on loopback.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    zone: Mutex<Zone>,
    /// How many questions came.
    pub(crate) asked: AtomicU32,
    /// Moves with every question answered.
    pub(crate) answered: watch::Sender<u32>,
}

impl Server {
    async fn start() -> (Arc<Server>, impl Future<Output = ()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Server {
            addr: socket.local_addr().unwrap(),
            zone: Mutex::default(),
            asked: AtomicU32::new(0),
            answered: watch::Sender::new(0),
        });
        (Arc::clone(&server), async move { server.serve(socket).await })
    }

    async fn serve(&self, socket: UdpSocket) {
        let mut buffer = [0; 1500];
        loop {
            let (n, client) = socket.recv_from(&mut buffer).await.unwrap();
            self.asked.fetch_add(1, Ordering::Relaxed);
            let reply = self.answer(&Message::from_vec(&buffer[..n]).unwrap());
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
            self.answered.send_modify(|count| *count += 1);
        }
    }

    fn answer(&self, question: &Message) -> Message {
        let query = question.queries[0].clone();
        let name = query.name().to_ascii();
        let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.recursion_available = true;
        match self.zone.lock().unwrap().get(name.trim_end_matches('.')) {
            None => reply.metadata.response_code = ResponseCode::NXDomain,
            Some(Err(code)) => reply.metadata.response_code = *code,
            Some(Ok((addresses, ttl))) => {
                let wanted = |ip: &&IpAddr| ip.is_ipv4() == (query.query_type() == RecordType::A);
                for ip in addresses.iter().filter(wanted) {
                    reply.add_answer(Record::from_rdata(query.name().clone(), *ttl, RData::from(*ip)));
                }
            }
        }
        reply.add_query(query);
        reply
    }

    pub(crate) fn set(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.zone.lock().unwrap().insert(name.into(), Ok((addresses, ttl)));
    }

    pub(crate) fn fail(&self, name: &str) {
        self.zone.lock().unwrap().insert(name.into(), Err(ResponseCode::ServFail));
    }

    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        Arc::new(Resolver::new(&[self.addr]).with_hosts_file("/nonexistent".into()))
    }
}

/// Runs `test` beside the name server.
pub(crate) async fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Arc<Server>) -> F) {
    let (server, serving) = Server::start().await;
    tokio::select! {
        () = serving => unreachable!("the server runs for ever"),
        () = test(server) => {}
    }
}
