//! Files that are wrong, and files that change.

use super::*;

#[test]
fn files_are_followed_once_they_fit() {
    let authority = Authority::new();
    let spec = authority.accepts(&["a.test"]);
    let acceptor = acceptor(spec);
    let first = acceptor.certificates();
    assert_eq!(acceptor.follow(), Ok(false), "nothing has changed");
    let key = std::fs::read_to_string(authority.directory.path().join("server.key")).unwrap();
    authority.issue("server", &["b.test"]);
    let next = std::fs::read_to_string(authority.directory.path().join("server.key")).unwrap();
    // The certificate is there already, its key is not.
    authority.directory.write("server.key", &key);
    assert_eq!(acceptor.follow(), Ok(false), "it may change further");
    let fault = acceptor.follow().unwrap_err();
    assert!(fault.message.contains("is not the key of"), "{fault}");
    assert_eq!(acceptor.follow(), Ok(false), "and is told once");
    assert_eq!(acceptor.certificates(), first, "what was loaded stays");
    authority.directory.write("server.key", &next);
    assert_eq!(acceptor.follow(), Ok(false));
    assert_eq!(acceptor.follow(), Ok(true));
    assert_eq!(acceptor.certificates()[0].names, ["b.test"]);
}

#[test]
fn what_could_not_be_loaded_is_tried_again_though_nothing_is_seen_of_its_repair() {
    let authority = Authority::new();
    let spec = authority.accepts(&["a.test"]);
    let acceptor = acceptor(spec);
    let key = authority.directory.path().join("server.key");
    authority.issue("server", &["b.test"]);
    let good = std::fs::read_to_string(&key).unwrap();
    let modified = std::fs::metadata(&key).unwrap().modified().unwrap();
    // As long as the good one, and as old: as if only the right to read it had come and gone.
    let replace = |text: &str| {
        let file = authority.directory.write("server.key", text);
        std::fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
    };
    replace(&"x".repeat(good.len()));
    assert_eq!(acceptor.follow(), Ok(false));
    assert!(acceptor.follow().is_err());
    assert_eq!(acceptor.follow(), Ok(false), "what is known is not told again");
    replace(&good);
    assert_eq!(acceptor.follow(), Ok(true));
    assert_eq!(acceptor.certificates()[0].names, ["b.test"]);
}

#[test]
fn a_renewal_shows_nothing_before_it_is_applied() {
    let authority = Authority::new();
    let spec = authority.accepts(&["a.test"]);
    let store = Store::new();
    let acceptor = store.acceptor(&spec, &mut Renewal::new()).unwrap();
    let first = acceptor.certificates();
    authority.issue("server", &["b.test"]);
    // One that comes to nothing leaves the change to be seen by whoever looks next.
    let mut dropped = Renewal::new();
    store.acceptor(&spec, &mut dropped).unwrap();
    assert_eq!(acceptor.certificates(), first);
    drop(dropped);
    let mut renewal = Renewal::new();
    store.acceptor(&spec, &mut renewal).unwrap();
    assert_eq!(acceptor.certificates(), first);
    renewal.apply();
    assert_eq!(acceptor.certificates()[0].names, ["b.test"]);
    assert_eq!((acceptor.follow(), acceptor.follow()), (Ok(false), Ok(false)), "they are the ones in use");
    // What can't be loaded is said each time, and changes nothing.
    authority.directory.write("server.key", "nonsense");
    for _ in 0..2 {
        assert!(store.acceptor(&spec, &mut Renewal::new()).is_err());
    }
    assert_eq!(acceptor.certificates()[0].names, ["b.test"]);
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.test"]);
    let CertSpec::Files { cert, key } = good.clone() else { unreachable!() };
    let file = |name: &str, text: &str| authority.directory.write(name, text);
    let (empty, noise) = (file("empty.pem", ""), file("noise.pem", "-----BEGIN CERTIFICATE----\n!\n"));
    let half = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        file(&format!("half-{}", path.file_name().unwrap().display()), &text[..text.len() / 2])
    };
    let (half_cert, half_key) = (half(&cert), half(&key));
    let sealed = file(
        "sealed.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let CertSpec::Files { key: other, .. } = authority.issue("other", &["a.test"]) else { unreachable!() };
    for (cert, key, field, message) in [
        (&PathBuf::from("/nowhere"), &key, Field::Cert(0), "can't read /nowhere: No such file"),
        (&authority.directory.path().to_owned(), &key, Field::Cert(0), "not a regular file"),
        (&empty, &key, Field::Cert(0), "no certificate in"),
        (&noise, &key, Field::Cert(0), "is no PEM file: a BEGIN line is broken"),
        (&half_cert, &key, Field::Cert(0), "is cut off: its last section has no END line"),
        (&cert, &half_key, Field::Key(0), "is cut off"),
        (&key, &key, Field::Cert(0), "no certificate in"),
        (&cert, &cert, Field::Key(0), "no private key in"),
        (&cert, &sealed, Field::Key(0), "is encrypted: write it in the clear"),
        (&cert, &other, Field::Key(0), "is not the key of"),
    ] {
        let spec = CertSpec::Files { cert: cert.clone(), key: key.clone() };
        let spec = AcceptorSpec { certs: vec![spec], ..AcceptorSpec::default() };
        let fault = Acceptor::load(spec.clone()).map(drop).unwrap_err();
        assert!(fault.field == field && fault.message.contains(message), "{fault:?}");
        assert_eq!(Acceptor::check(&spec), Err(fault));
    }
    let spec = AcceptorSpec { client_ca: Some(empty), ..authority.accepts(&["a.test"]) };
    assert_eq!(Acceptor::check(&spec).unwrap_err().field, Field::Ca);
}

#[test]
fn a_key_that_everybody_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new();
    let spec = authority.accepts(&["a.test"]);
    let key = authority.directory.path().join("server.key");
    let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    assert_eq!(Acceptor::check(&spec), Ok(vec![]));
    mode(0o644);
    let odd = Acceptor::check(&spec).unwrap();
    assert!(odd[0].is_warning && odd[0].field == Field::Key(0), "{odd:?}");
}
