//! SOCKS 5: associations of datagrams.

mod limits;
mod passing;
mod places;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use wmproxy_forward::options::ForwardOptions;
use wmproxy_net::record::UdpDrop;
use wmproxy_testkit::tcp::Conn;
use wmproxy_wire::socks::{Parsed, Target, datagram, v5};
use wmproxy_wire::units::HumanDuration;

use super::gateway::Doorman;
use super::house::{House, eventually};

/// A client with an association, or what it was told instead.
struct Client {
    control: Conn,
    socket: UdpSocket,
    relay: SocketAddr,
}

impl Client {
    /// Asks for an association and says that it will send from `announced`.
    fn ask(control: Conn, announced: SocketAddr) -> Result<(Conn, SocketAddr), u8> {
        control.send(&[5, 1, 0]);
        assert_eq!(control.recv(2), [5, 0]);
        let mut request = vec![5, 3, 0];
        request.extend_from_slice(&datagram::header(announced)[3..]);
        control.send(&request);
        let mut reply = control.recv(10);
        if reply[1] != 0 {
            control.expect_end();
            return Err(reply[1]);
        }
        if reply[3] == 4 {
            reply.extend(control.recv(12));
        }
        match v5::parse_reply(&reply) {
            Ok(Parsed::Done(v5::Reply { bound: Target::Address(relay), .. }, _)) => Ok((control, relay)),
            other => panic!("{other:?}"),
        }
    }

    fn try_new(house: &House) -> Result<Client, u8> {
        let (control, relay) = Client::ask(house.connect(), nowhere())?;
        let socket = UdpSocket::bind((control.local().ip(), 0)).unwrap();
        Ok(Client::with(control, socket, relay))
    }

    fn new(house: &House) -> Client {
        Client::try_new(house).unwrap()
    }

    fn with(control: Conn, socket: UdpSocket, relay: SocketAddr) -> Client {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client { control, socket, relay }
    }

    fn send_raw(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.relay).unwrap();
    }

    fn send(&self, to: impl Into<Where>, data: &[u8]) {
        self.send_raw(&[&to.into().0[..], data].concat());
    }

    /// The next datagram, and from where it comes by its header.
    fn recv(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = vec![0; 65_536];
        let (n, from) = self.socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, self.relay);
        let (header, length) = datagram::parse(&buffer[..n]).unwrap();
        assert_eq!((&buffer[..2], header.fragment), (&[0, 0][..], 0));
        let Target::Address(source) = header.target else { panic!("a name as source") };
        (source, buffer[length..n].to_vec())
    }

    /// Sends data to a server that echoes it, and hears it back.
    fn echo(&self, server: SocketAddr, data: &[u8]) {
        self.send(server, data);
        assert!(self.recv() == (server, data.to_vec()), "{} bytes", data.len());
    }

    /// Whether nobody hears what is sent to the relay any more.
    fn is_deaf(&self) -> bool {
        let probe = UdpSocket::bind((self.socket.local_addr().unwrap().ip(), 0)).unwrap();
        probe.connect(self.relay).unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let _ = probe.send(b"anybody?");
        probe.recv(&mut [0; 8]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// A header.
struct Where(Vec<u8>);

impl From<SocketAddr> for Where {
    fn from(address: SocketAddr) -> Where {
        Where(datagram::header(address).to_vec())
    }
}

impl From<(&str, u16)> for Where {
    fn from((name, port): (&str, u16)) -> Where {
        let mut header = Vec::new();
        datagram::write_header(&mut header, &Target::Name(name.as_bytes(), port)).unwrap();
        Where(header)
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
}

fn house(change: impl FnOnce(&mut ForwardOptions)) -> House {
    House::with(Doorman::default(), change)
}

/// Associations end after so long in silence.
fn idle_after(options: &mut ForwardOptions, time: Duration) {
    options.udp.idle_timeout = HumanDuration::from_millis(time.as_millis() as u64);
}

/// Waits until so many datagrams were dropped for this.
fn wait_dropped(house: &House, why: UdpDrop, count: u64) {
    eventually(|| house.dropped(why) >= count);
    assert_eq!(house.dropped(why), count, "{why:?}");
}
