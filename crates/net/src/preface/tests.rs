use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use wmproxy_wire::proxy_protocol::{Command, TlvList, Tlvs, Transport, encode_v2, kind};

use super::*;
use crate::addr::{Address, Protocol};
use crate::record::ListenerMetrics;

/// Longer than any test waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connected pair: the far end blocking, ours ready to be a [`Stream`].
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    (far, near)
}

fn stream_of(near: TcpStream) -> Stream {
    Stream::new(near.into(), true).unwrap()
}

fn runtime() -> LocalRuntime {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap()
}

/// Sends `pieces` one by one, each after the other was read, then ends, and says what `read` made of it and what the
/// stream then still yields.
fn hear<T>(
    pieces: &[&[u8]],
    read: impl AsyncFn(&Stream) -> Result<T, Outcome>,
) -> (Result<T, Outcome>, Vec<u8>) {
    runtime().block_on(async {
        let (mut far, near) = pair();
        far.set_nodelay(true).unwrap();
        let stream = stream_of(near);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sender = std::thread::spawn(move || {
            for piece in pieces {
                far.write_all(&piece).unwrap();
            }
            far.shutdown(std::net::Shutdown::Write).unwrap();
            far
        });
        let read = read(&stream).await;
        let mut rest = Vec::new();
        while read.is_ok() && read_more(&stream, &mut rest).await.unwrap() > 0 {}
        drop(sender.join().unwrap());
        (read, rest)
    })
}

fn record(client: Option<&str>, listener: Address) -> Record {
    let metrics = Arc::new(ListenerMetrics::new("t".into(), Protocol::Tcp, listener, 1));
    Record::open(metrics, None, client.map(|text| text.parse().unwrap()))
}

fn inet(text: &str) -> Address {
    Address::Inet(text.parse().unwrap())
}

/// A ClientHello for `a.example` that offers `h2`.
fn hello() -> Vec<u8> {
    let sni = b"\0\0\0\x0e\0\x0c\0\0\x09a.example";
    let alpn = b"\0\x10\0\x05\0\x03\x02h2";
    let extensions = [&sni[..], alpn].concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[test]
fn a_header_is_consumed_and_what_follows_is_not() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.9 4242 443\r\n";
    let whole = [&line[..], b"GET /"].concat();
    let pieces: Vec<&[u8]> = whole.chunks(1).collect();
    for pieces in [&[&whole[..]][..], &[line, b"GET /"], &pieces] {
        let (read, rest) = hear(pieces, read_proxy_header);
        let addresses = ("192.0.2.1:4242".parse().unwrap(), "198.51.100.9:443".parse().unwrap());
        assert_eq!(read, Ok(Proxied { addresses: Some(addresses), tlvs: [].into() }));
        assert_eq!(rest, b"GET /");
    }
}

#[test]
fn a_connection_without_a_whole_header_is_refused() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Outcome::BadProxyHeader),
        (b"PROXY TCP4 192.0.2.1", Outcome::BadProxyHeader),
        (b"PROXY TCP4 garbage\r\n", Outcome::BadProxyHeader),
        (&[b'x'; 20_000], Outcome::BadProxyHeader),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", Outcome::BadProxyHeader),
        (b"", Outcome::ClientLeft),
    ] {
        assert_eq!(hear(&[bytes], read_proxy_header).0.unwrap_err(), expected);
    }
}

#[test]
fn only_internet_addresses_name_another_client() {
    let mut local = Vec::new();
    encode_v2(&mut local, Command::Local, &Endpoints::Unknown, &TlvList::new(), false);
    let mut unix = Vec::new();
    let endpoints = Endpoints::Unix { transport: Transport::Stream, source: b"/a", destination: b"/b" };
    let mut tlvs = TlvList::new();
    tlvs.push(kind::UNIQUE_ID, b"17");
    encode_v2(&mut unix, Command::Proxy, &endpoints, &tlvs, true);
    for (bytes, unique_id) in [(&local[..], None), (&unix, Some(&b"17"[..])), (b"PROXY UNKNOWN\r\n", None)] {
        let proxied = hear(&[bytes], read_proxy_header).0.unwrap();
        assert_eq!(Tlvs::new(&proxied.tlvs).get(kind::UNIQUE_ID), unique_id);
        assert_eq!(proxied.addresses, None);
        let mut record = record(Some("10.0.0.1:1"), inet("127.0.0.1:1"));
        proxied.note(&mut record);
        assert_eq!(record.client, Some("10.0.0.1:1".parse().unwrap()));
    }
}

#[test]
fn a_hello_is_read_and_all_of_it_kept() {
    let hello = hello();
    let whole = [&hello[..], b"more"].concat();
    let pieces: Vec<&[u8]> = whole.chunks(1).collect();
    for pieces in [&[&whole[..]][..], &pieces] {
        let (read, rest) = hear(pieces, read_client_hello);
        let mut preface = Preface::default();
        note_hello(&mut preface, &read.unwrap());
        assert_eq!((preface.sni.as_deref(), preface.alpn.as_deref()), (Some("a.example"), Some("h2")));
        assert_eq!(rest, whole);
    }
    for (bytes, expected) in [
        (&b"SSH-2.0-x\r\n"[..], Outcome::NotTls),
        (&hello[..40], Outcome::BadClientHello),
        (b"\x16\x03\x01\x40\x00\x01\x00\x40\x00", Outcome::BadClientHello),
        (b"", Outcome::ClientLeft),
    ] {
        assert_eq!(hear(&[bytes], read_client_hello).0.unwrap_err(), expected);
    }
}

#[test]
fn an_introduction_names_the_client_and_where_it_went() {
    let v1 = |record: &Record| {
        let header = Introduction::new(ProxyVersion::V1, record);
        String::from_utf8(header.as_bytes().to_vec()).unwrap()
    };
    let mut plain = record(Some("192.0.2.1:4242"), inet("0.0.0.0:443"));
    plain.local = Some("198.51.100.9".parse().unwrap());
    assert_eq!(v1(&plain), "PROXY TCP4 192.0.2.1 198.51.100.9 4242 443\r\n");
    // As it came, so it goes on.
    plain.preface_mut().destination = Some("[2001:db8::1]:8443".parse().unwrap());
    assert_eq!(v1(&plain), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 4242 8443\r\n");
    let unix = record(None, Address::Unix("/run/x".into()));
    assert_eq!(v1(&unix), "PROXY UNKNOWN\r\n");
    let proxied = record(Some("192.0.2.1:4242"), Address::Unix("/run/x".into()));
    assert_eq!(v1(&proxied), "PROXY TCP4 192.0.2.1 0.0.0.0 4242 0\r\n");
    assert_eq!(Introduction::own(ProxyVersion::V1).as_bytes(), b"PROXY UNKNOWN\r\n");

    let bytes = Introduction::new(ProxyVersion::V2, &unix).0;
    let Ok(proxy_protocol::Parsed::Header(header, _)) = proxy_protocol::parse(&bytes, MAX_HEADER) else {
        panic!()
    };
    let endpoints = Endpoints::Unix { transport: Transport::Stream, source: b"", destination: b"/run/x" };
    assert_eq!(header.endpoints, endpoints);
}

#[test]
fn an_introduction_passes_on_what_came_and_adds_what_is_known() {
    let mut came = TlvList::new();
    came.push(kind::AUTHORITY, b"first.example");
    came.push(kind::CRC32C, &[0; 4]);
    came.push(0xe0, b"x");
    let mut header = Vec::new();
    encode_v2(&mut header, Command::Proxy, &Endpoints::Unknown, &came, false);
    let mut record = record(Some("192.0.2.1:1"), inet("127.0.0.1:2"));
    let told = |record: &Record| {
        let bytes = Introduction::new(ProxyVersion::V2, record).0;
        match proxy_protocol::parse(&bytes, MAX_HEADER) {
            Ok(proxy_protocol::Parsed::Header(header, used)) if used == bytes.len() => {
                header.tlvs.to_string()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(&record), "");
    record.preface_mut().sni = Some("a.example".into());
    record.preface_mut().alpn = Some("h2,http/1.1".into());
    assert_eq!(told(&record), "authority=a.example");
    record.preface_mut().alpn = Some("h2".into());
    record.preface_mut().proxy_tlvs = header[16..].into();
    assert_eq!(told(&record), "authority=first.example,0xe0=0x78,alpn=h2");
}

#[test]
fn a_header_and_the_first_data_are_one_write() {
    runtime().block_on(async {
        let (mut client, near) = pair();
        let (mut server, towards) = pair();
        let (near, towards) = (stream_of(near), stream_of(towards));
        let mut record = record(Some("192.0.2.1:1"), inet("127.0.0.1:2"));
        let header = Introduction::new(ProxyVersion::V1, &record);
        near.unread(b"GET /".to_vec());
        header.clone().send_with_data(&near, &towards, PATIENCE, &mut record).await.unwrap();
        let expected = [header.as_bytes(), b"GET /"].concat();
        let mut got = [0; 200];
        let n = server.read(&mut got).unwrap();
        assert_eq!(got[..n], expected);
        // Who says nothing yet is not waited for.
        header.clone().send_with_data(&near, &towards, PATIENCE, &mut record).await.unwrap();
        let n = server.read(&mut got).unwrap();
        assert_eq!(&got[..n], header.as_bytes());
        client.write_all(b"later").unwrap();
        let mut later = Vec::new();
        read_more(&near, &mut later).await.unwrap();
        assert_eq!(later, b"later");
    });
}

#[test]
fn a_peer_that_takes_no_header_is_not_waited_for() {
    runtime().block_on(async {
        let (client, near) = pair();
        // Of a unix socket that is full nothing is under way, so that it stays so.
        let (server, mut towards) = UnixStream::pair().unwrap();
        towards.set_nonblocking(true).unwrap();
        while towards.write(&[0; 1 << 16]).is_ok() {}
        let (near, towards) = (stream_of(near), Stream::new(towards.into(), false).unwrap());
        near.unread(b"GET /".to_vec());
        let mut record = record(Some("192.0.2.1:1"), inet("127.0.0.1:2"));
        let header = Introduction::new(ProxyVersion::V1, &record);
        let soon = Duration::from_millis(20);
        let sent = header.send_with_data(&near, &towards, soon, &mut record).await;
        assert_eq!(sent, Err(Outcome::ConnectTimeout));
        assert_eq!(record.metrics().blocks.sum(|block| &block.bytes_in), 0);
        drop((client, server));
    });
}

#[test]
fn a_name_is_refused_with_an_alert() {
    runtime().block_on(async {
        let (mut far, near) = pair();
        let near = stream_of(near);
        far.write_all(&hello()).unwrap();
        read_client_hello(&near).await.unwrap();
        refuse_name(&near);
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, UNRECOGNIZED_NAME);
    });
}

#[test]
fn a_header_that_may_be_there_is_read_and_anything_else_stays() {
    let optional = |pieces: &[&[u8]]| hear(pieces, read_optional_header);
    let (header, rest) = optional(&[b"PROXY TCP4 192.0.2.7 ", b"10.0.0.1 4711 80\r\nGET /"]);
    let client = header.unwrap().and_then(|proxied| proxied.addresses).map(|(source, _)| source.to_string());
    assert_eq!((client.as_deref(), &*rest), (Some("192.0.2.7:4711"), &b"GET /"[..]));
    for text in ["PRI * HTTP/2.0\r\n", "POST / HTTP/1.1\r\n", "GET", "\x16\x03\x01"] {
        let (header, rest) = optional(&[text.as_bytes()]);
        assert_eq!((header, &*rest), (Ok(None), text.as_bytes()));
    }
    let (cut_off, _) = optional(&[b"PROXY TCP4 "]);
    assert_eq!(cut_off, Err(Outcome::BadProxyHeader));
    assert_eq!(optional(&[]).0, Err(Outcome::ClientLeft));
}
