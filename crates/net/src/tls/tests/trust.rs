//! Whom a side believes, what it exports, and what it resumes.

use rustls::client::UnbufferedClientConnection;
use rustls::{HandshakeKind, NamedGroup, ServerConnection, StreamOwned};

use super::*;

/// A handshake and a byte from the server, behind which the tickets have come; how the client says that it went.
async fn kind(acceptor: &Acceptor, connector: &Connector) -> Result<HandshakeKind, TlsError> {
    let name = connector.name_for("a.test").unwrap();
    shaken(acceptor, connector.begin(name).unwrap()).await.map(|(kind, _)| kind)
}

/// The same of a client that has begun, with the exchange of keys that was agreed on.
async fn shaken(
    acceptor: &Acceptor,
    unbuffered: UnbufferedClientConnection,
) -> Result<(HandshakeKind, NamedGroup), TlsError> {
    let (client, server) = pair();
    let mut session = Session::client(unbuffered, vec![], None);
    let taking = async {
        accept(&server, acceptor).await?;
        write(&server, b"x").await;
        Ok::<_, TlsError>(())
    };
    let making = async {
        let shaken = session.handshake(&client, &mut None).await;
        if shaken.is_err() {
            session.send_alert(&client);
        }
        shaken?;
        poll_fn(|cx| session.poll_read(cx, &client, &mut [0; 1])).await.unwrap();
        let group = session.state().negotiated_key_exchange_group().unwrap().name();
        Ok((session.state().handshake_kind().unwrap(), group))
    };
    tokio::join!(taking, making).1
}

/// A spec that trusts nothing but this certificate.
fn pinning(acceptor: &Acceptor) -> ConnectorSpec {
    ConnectorSpec {
        fingerprints: vec![acceptor.fingerprint().unwrap()],
        tls13_only: true,
        ..ConnectorSpec::default()
    }
}

#[test]
fn who_is_not_believed_is_told_from_others_in_words() {
    let authority = Authority::new();
    let serve = |name: &str, params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let file = authority.directory.write(&format!("{name}.pem"), &cert.pem());
        let key = authority.directory.write(&format!("{name}.key"), &key.serialize_pem());
        let certs = vec![CertSpec::Files { cert: file.clone(), key }];
        (acceptor(AcceptorSpec { certs, ..AcceptorSpec::default() }), file)
    };
    let mut own = params(&["a.test"]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut of_a_client = params(&["a.test"]);
    of_a_client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    run(async {
        for (name, params, trusts_it, reason) in [
            ("plain", params(&["a.test"]), false, "no authority that is trusted here has issued it"),
            ("own", own, true, "unless told `basicConstraints=CA:FALSE` (CaUsedAsEndEntity)"),
            ("client", of_a_client, true, "client authentication"),
        ] {
            let (acceptor, file) = serve(name, params);
            let ca = if trusts_it { file } else { authority.ca() };
            let connector = connector(ConnectorSpec { ca: Some(ca), ..ConnectorSpec::default() });
            let said = kind(&acceptor, &connector).await.unwrap_err().to_string();
            assert!(said.starts_with("invalid peer certificate: ") && said.contains(reason), "{said}");
        }
    });
}

#[test]
fn a_pinned_certificate_is_believed_and_any_other_is_not() {
    let authority = Authority::new();
    run(async {
        let accepts = authority.accepts(&["elsewhere.test"]);
        let pinned = acceptor(AcceptorSpec { tls13_only: true, ..accepts });
        let other = acceptor(authority.accepts(&["a.test"]));
        assert_ne!(pinned.fingerprint(), other.fingerprint());
        let mut spec = pinning(&pinned);
        spec.fingerprints.insert(0, [7; 32]);
        let connector = connector(ConnectorSpec { ca: Some(authority.ca()), ..spec });
        assert_eq!(kind(&pinned, &connector).await.unwrap(), HandshakeKind::Full);
        let error = kind(&other, &connector).await.unwrap_err();
        assert!(error.is_untrusted(), "that its authority is known counts for nothing: {error}");
        let found = Fingerprint(other.fingerprint().unwrap()).to_string();
        assert!(error.to_string().contains(&found), "{error}");
    });
}

#[test]
fn who_knows_only_the_older_version_is_refused_where_the_newer_is_wanted() {
    let authority = Authority::new();
    run(async {
        let accepts = authority.accepts(&["a.test"]);
        let acceptor = acceptor(AcceptorSpec { tls13_only: true, ..accepts });
        let mut config = rustls::ClientConfig::builder_with_provider(files::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::clone(
                &files::load_roots(&authority.ca()).unwrap(),
            ))
            .with_no_client_auth();
        config.enable_sni = true;
        let (client, server) = pair();
        let old = UnbufferedClientConnection::new(Arc::new(config), "a.test".try_into().unwrap()).unwrap();
        let mut session = Session::client(old, vec![], None);
        let mut asked = None;
        let (taken, made) = tokio::join!(accept(&server, &acceptor), session.handshake(&client, &mut asked));
        assert!(taken.is_err() && made.is_err());
    });
}

#[test]
fn a_session_is_resumed_by_the_same_trust_only() {
    let authority = Authority::new();
    run(async {
        let accepts = authority.accepts(&["a.test"]);
        let (first, second) = (acceptor(accepts.clone()), acceptor(accepts));
        let store = Store::new();
        let connector = |spec: &ConnectorSpec| store.connector(spec, &mut Renewal::new()).unwrap();
        let spec = pinning(&first);
        let believing = connector(&spec);
        assert_eq!(kind(&first, &believing).await.unwrap(), HandshakeKind::Full);
        assert_eq!(kind(&first, &believing).await.unwrap(), HandshakeKind::Resumed);
        // The next generation's.
        assert_eq!(kind(&first, &connector(&spec)).await.unwrap(), HandshakeKind::Resumed);
        let doubting = connector(&ConnectorSpec { fingerprints: vec![[7; 32]], ..spec.clone() });
        assert!(kind(&first, &doubting).await.unwrap_err().is_untrusted());
        // Tickets that another server has given are of no use, and do no harm.
        assert_eq!(kind(&second, &believing).await.unwrap(), HandshakeKind::Full);
    });
}

#[test]
fn a_further_connection_is_lighter_and_never_without_the_secret_of_one_before() {
    let authority = Authority::new();
    run(async {
        let accepts = AcceptorSpec { tls13_only: true, ..authority.accepts(&["a.test"]) };
        let (first, restarted) = (acceptor(accepts.clone()), acceptor(accepts));
        let connector = connector(pinning(&first));
        let name = || connector.name_for("a.test").unwrap();
        let lasting = NamedGroup::X25519MLKEM768;
        let again = async || {
            let (begun, has_ticket) = connector.begin_again(name()).unwrap();
            (has_ticket, shaken(&first, begun).await.unwrap())
        };
        assert_eq!(again().await, (false, (HandshakeKind::Full, lasting)));
        for _ in 0..3 {
            assert_eq!(again().await, (true, (HandshakeKind::Resumed, NamedGroup::X25519)));
        }
        // Whoever asks for no less gets no less.
        let heavy = shaken(&first, connector.begin(name()).unwrap()).await.unwrap();
        assert_eq!(heavy, (HandshakeKind::Resumed, lasting));

        let (client, server) = pair();
        let (_, connected) =
            tokio::join!(accept(&server, &restarted), connect_again(&client, &connector, name()));
        assert!(matches!(connected, Err(TlsError::Forgotten)), "{connected:?}");
        let (begun, has_ticket) = connector.begin_again(name()).unwrap();
        assert!(!has_ticket, "none is left of those that are of no use");
        assert_eq!(shaken(&restarted, begun).await.unwrap(), (HandshakeKind::Full, lasting));
        let (client, server) = pair();
        let (_, connected) =
            tokio::join!(accept(&server, &restarted), connect_again(&client, &connector, name()));
        assert_eq!(connected.unwrap().version, "TLSv1.3");
        let material = client.export_keying_material(b"EXPORTER-x", b"");
        assert!(material.is_some() && material == server.export_keying_material(b"EXPORTER-x", b""));
    });
}

#[test]
fn tickets_are_kept_within_bounds() {
    let authority = Authority::new();
    run(async {
        let acceptor = acceptor(authority.accepts(&["a.test"]));
        let connector = connector(pinning(&acceptor));
        for _ in 0..40 {
            // Each brings two, and takes none.
            let unbuffered =
                UnbufferedClientConnection::new(connector.config(), "a.test".try_into().unwrap());
            shaken(&acceptor, unbuffered.unwrap()).await.unwrap();
        }
        let kept = std::iter::from_fn(|| {
            connector.begin_again("a.test".try_into().unwrap()).unwrap().1.then_some(())
        });
        assert_eq!(kept.count(), 64);
    });
}

#[test]
fn sessions_are_resumed_on_any_thread() {
    let authority = Authority::new();
    let acceptor = acceptor(authority.accepts(&["a.test"]));
    let connector = connector(pinning(&acceptor));
    let kind = || run(kind(&acceptor, &connector)).unwrap();
    assert_eq!(kind(), HandshakeKind::Full);
    let kinds = std::thread::scope(|scope| [(); 2].map(|()| scope.spawn(kind)).map(|on| on.join().unwrap()));
    assert_eq!(kinds, [HandshakeKind::Resumed; 2]);
}

#[test]
fn both_ends_export_the_same_and_each_session_its_own() {
    let authority = Authority::new();
    run(async {
        let accepts = authority.accepts(&["a.test"]);
        let only = acceptor(AcceptorSpec { tls13_only: true, ..accepts.clone() });
        let any = acceptor(accepts);
        let connector = connector(pinning(&only));
        let mut before = vec![];
        for _ in 0..2 {
            let (client, server, accepted, connected) = shake(&only, &connector, "a.test").await;
            assert!(accepted.is_ok() && connected.is_ok());
            for (label, context) in
                [(&b"EXPORTER-x"[..], &b""[..]), (b"EXPORTER-y", b""), (b"EXPORTER-x", b"c")]
            {
                let material = client.export_keying_material(label, context).unwrap();
                assert_eq!(server.export_keying_material(label, context), Some(material));
                assert!(!before.contains(&material));
                before.push(material);
            }
            assert_eq!(client.export_keying_material(&[b'x'; 250], b""), None, "no label is so long");
            // It goes along to another worker.
            let moved = server.dismantle().unwrap().assemble().unwrap();
            assert!(before.contains(&moved.export_keying_material(b"EXPORTER-x", b"").unwrap()));
        }
        let (client, server, ..) = shake(&any, &connector, "a.test").await;
        assert_eq!(server.export_keying_material(b"EXPORTER-x", b""), None, "it may speak TLS 1.2");
        assert!(client.export_keying_material(b"EXPORTER-x", b"").is_some());
        let (plain, _) = pair();
        assert_eq!(plain.export_keying_material(b"EXPORTER-x", b""), None);
    });
}

#[test]
fn what_is_exported_is_what_others_export() {
    let authority = Authority::new();
    let acceptor = acceptor(authority.accepts(&["a.test"]));
    let connector = connector(pinning(&acceptor));
    for suite in [0, 1, 2] {
        // Hashes of both lengths come about, and each kind of cipher.
        let mut provider = rustls::crypto::CryptoProvider::clone(&files::provider());
        provider.cipher_suites = vec![provider.cipher_suites[suite]];
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(acceptor.config().cert_resolver.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = std::thread::spawn(move || {
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(connection, listener.accept().unwrap().0);
            stream.write_all(b"x").unwrap();
            stream.conn.export_keying_material([0; 32], b"EXPORTER-x", Some(b"context")).unwrap()
        });
        let ours = run(async {
            let socket = TcpStream::connect(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            let stream = Stream::new(socket.into(), true).unwrap();
            connect(&stream, &connector, connector.name_for("a.test").unwrap()).await.unwrap();
            read_exactly(&stream, 1).await.unwrap();
            stream.export_keying_material(b"EXPORTER-x", b"context")
        });
        assert_eq!(ours, Some(theirs.join().unwrap()), "suite {suite}");
    }
}

#[test]
fn quic_gets_configurations_of_its_own_with_the_same_trust() {
    let authority = Authority::new();
    let acceptor = acceptor(AcceptorSpec { alpn: vec!["t/1".into()], ..authority.accepts(&["a.test"]) });
    let connector = connector(pinning(&acceptor));
    let (server, client) = (acceptor.quic_config(), connector.quic_config());
    assert!(Arc::ptr_eq(&server, &acceptor.quic_config()) && Arc::ptr_eq(&client, &connector.quic_config()));
    assert_eq!(server.alpn_protocols, [b"t/1"]);
    assert!(
        !client.key_log.will_log("EXPORTER_SECRET") && connector.config().key_log.will_log("EXPORTER_SECRET")
    );
}
