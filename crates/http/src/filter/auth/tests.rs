use std::future::poll_fn;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::testing::get;

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("wmproxy-users-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Perhaps the test has removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn line(name: &str, password: &str) -> String {
    format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
}

fn auth(file: &Scratch) -> BasicAuth {
    BasicAuth::new(Arc::new(Store::open(&file.0).unwrap()), "the \"realm\"").unwrap()
}

fn ask(auth: &BasicAuth, value: &str) -> Answer {
    let (mut request, _) = get("/");
    request.fields.push_known(Known::Authorization, value.as_bytes());
    auth.ask(&request)
}

/// Who that is, when it has been compared.
fn who(auth: &BasicAuth, name: &str, password: &str) -> Option<Arc<str>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            return match ask(auth, &authorization(name, password)) {
                Answer::Known(user) => Some(user),
                Answer::Refused => None,
                Answer::Check(mut check) => poll_fn(|cx| check.poll(cx)).await,
                // The limit is that of the process: other tests may be at it.
                Answer::Busy => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
        }
    })
}

#[test]
fn a_right_password_is_compared_once() {
    let file = Scratch::new("once", &(line("alice", "sec:ret") + "# nobody\n\n" + &line("bob", "b")));
    let auth = auth(&file);
    assert_eq!(who(&auth, "alice", "sec:ret").as_deref(), Some("alice"));
    assert!(matches!(ask(&auth, &authorization("alice", "sec:ret")), Answer::Known(_)));
    assert!(matches!(ask(&auth, &authorization("alice", "sec:reT")), Answer::Check(_)));
    assert_eq!(who(&auth, "alice", "b"), None);
    assert_eq!(who(&auth, "bob", "b").as_deref(), Some("bob"));
}

#[test]
fn a_name_that_nobody_has_costs_the_same_work() {
    let file = Scratch::new("nobody", &line("alice", "secret"));
    let auth = auth(&file);
    assert!(matches!(ask(&auth, &authorization("mallory", "secret")), Answer::Check(_)));
    assert_eq!(who(&auth, "mallory", "secret"), None);
    // Nor is it remembered as if it had been right.
    assert!(matches!(ask(&auth, &authorization("mallory", "secret")), Answer::Check(_)));
}

#[test]
fn what_is_no_name_and_password_is_refused_at_once() {
    let file = Scratch::new("malformed", &line("alice", "secret"));
    let auth = auth(&file);
    use base64::Engine as _;
    let colonless = base64::engine::general_purpose::STANDARD.encode("alice");
    for value in [
        "",
        "Basic",
        "Basic =",
        "Basic !!!",
        "Bearer abc",
        &format!("Basic {colonless}"),
        &authorization("alice", "se\0cret"),
        &authorization("al\nice", "secret"),
        &authorization("alice", &"x".repeat(600)),
    ] {
        assert!(matches!(ask(&auth, value), Answer::Refused), "{value}");
    }
    assert!(matches!(auth.ask(&get("/").0), Answer::Refused));
    let (mut twice, _) = get("/");
    twice.fields.push_known(Known::Authorization, authorization("alice", "secret").as_bytes());
    twice.fields.push_known(Known::Authorization, authorization("alice", "other").as_bytes());
    assert!(matches!(auth.ask(&twice), Answer::Refused));
    let lower = authorization("alice", "secret").replacen("Basic", "bAsIc", 1);
    assert!(matches!(ask(&auth, lower.trim_end_matches('=')), Answer::Check(_)));
}

#[test]
fn a_changed_file_counts_and_a_broken_one_does_not() {
    let file = Scratch::new("changed", &line("alice", "old"));
    let auth = auth(&file);
    assert!(who(&auth, "alice", "old").is_some());
    std::fs::write(&file.0, line("alice", "new")).unwrap();
    auth.store.renew().unwrap();
    assert_eq!(who(&auth, "alice", "old"), None, "what was remembered of the old file is gone");
    assert!(who(&auth, "alice", "new").is_some());
    std::fs::write(&file.0, "alice:plain\n").unwrap();
    assert!(auth.store.renew().is_err());
    auth.store.renew().expect("told once");
    std::fs::remove_file(&file.0).unwrap();
    assert!(auth.store.renew().is_err());
    auth.store.renew().expect("told once");
    assert!(who(&auth, "alice", "new").is_some());
    std::fs::write(&file.0, line("carol", "c")).unwrap();
    auth.store.renew().unwrap();
    assert_eq!((who(&auth, "alice", "new"), who(&auth, "carol", "c").is_some()), (None, true));
}

#[test]
fn a_wrong_line_is_named() {
    for (text, line, reason) in [
        ("alice:$apr1$x$y\n", 1, "MD5"),
        (&*(line("alice", "a") + "# bob\n\nbob\n"), 4, "NAME:HASH"),
        (&*(line("alice", "a") + &line("alice", "b")), 2, "there before"),
        (&*line("", "a"), 1, "not empty"),
    ] {
        let file = Scratch::new("wrong", text);
        let error = Store::open(&file.0).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line {line}: ")) && error.contains(reason), "{error}");
    }
}

#[test]
fn a_storm_of_logins_is_turned_away_at_a_limit() {
    let file = Scratch::new("storm", &line("alice", "secret"));
    let auth = auth(&file);
    let answers: Vec<_> = (0..200).map(|i| ask(&auth, &authorization("alice", &i.to_string()))).collect();
    let busy = answers.iter().filter(|answer| matches!(answer, Answer::Busy)).count();
    // Other tests may be at it at the same time.
    assert!((200 - 64..200).contains(&busy), "{busy}");
    drop(answers);
    assert!(who(&auth, "alice", "secret").is_some());
}

#[test]
fn the_challenge_is_well_formed() {
    let file = Scratch::new("realm", &line("alice", "secret"));
    let mut response = Response::with_status(200);
    auth(&file).challenge(&mut response);
    let expected = &b"Basic realm=\"the \\\"realm\\\"\", charset=\"UTF-8\""[..];
    assert_eq!((response.status, response.fields.get(Known::WwwAuthenticate)), (401, Some(expected)));
    let store = Arc::new(Store::open(&file.0).unwrap());
    assert!(matches!(BasicAuth::new(store, "a\r\nb"), Err(AuthError::Realm)));
}

#[test]
fn a_list_of_users_is_as_good_as_a_file() {
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let users = [("alice".to_owned(), hash("a")), ("bob".to_owned(), hash("b"))];
    let auth = BasicAuth::new(Arc::new(Store::listed(&users).unwrap()), "r").unwrap();
    assert_eq!(who(&auth, "bob", "b").as_deref(), Some("bob"));
    assert_eq!(who(&auth, "bob", "a"), None);
    auth.store.renew().unwrap();
    assert!(Store::listed(&[("alice".to_owned(), "plain".to_owned())]).is_err());
    assert!(Store::listed(&[("a\nb".to_owned(), hash("a"))]).is_err());
}
