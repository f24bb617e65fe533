use super::*;
use crate::testing::{conn, get};

fn rules(text: &str) -> HeaderRules {
    toml::from_str(text).unwrap()
}

fn lines(fields: &Fields) -> Vec<String> {
    fields.iter().map(|field| format!("{field:?}")).collect()
}

fn request_after(rules_text: &str, fields: &[(&str, &str)]) -> Request {
    let (mut request, facts) = get("/");
    fields.iter().for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
    Rules::new(&rules(rules_text)).unwrap().apply_to_request(&conn(), &mut request, &facts);
    request
}

#[test]
fn rules_are_done_in_their_order() {
    let request = request_after(
        r#"
        remove = ["Cookie", "x-gone"]
        [set]
        X-Real-IP = "{client_ip}"
        x-kept = "new"
        [default]
        Accept = "*/*"
        X-Missing = "there"
        [add]
        X-Many = ["{scheme}", "two"]
        Cookie = "ours=1"
        "#,
        &[
            ("cookie", "a=1"),
            ("X-Kept", "old"),
            ("x-kept", "older"),
            ("ACCEPT", "text/html"),
            ("X-Gone", "1"),
        ],
    );
    assert_eq!(
        lines(&request.fields),
        [
            "X-Kept: new",
            "ACCEPT: text/html",
            "X-Real-IP: 192.0.2.7",
            "Cookie: ours=1",
            "X-Many: https",
            "X-Many: two",
            "X-Missing: there",
        ]
    );
}

#[test]
fn a_star_takes_out_all_that_begin_so() {
    let fields =
        [("X-Internal-A", "1"), ("x-internal-", "2"), ("X-Intern", "3"), ("Host", "h"), ("TE", "trailers")];
    let request = request_after("remove = [\"x-internal-*\", \"h*\", \"t*\"]", &fields);
    assert_eq!(lines(&request.fields), ["X-Intern: 3", "Host: h", "TE: trailers"]);
}

#[test]
fn an_empty_value_takes_the_field_away() {
    let request =
        request_after("set = { X-User = \"{user}\" }\nadd = { X-More = \"{user}\" }", &[("x-user", "root")]);
    assert!(request.fields.is_empty());
}

#[test]
fn a_value_of_the_client_stays_one_line() {
    let (mut request, mut facts) = get("/");
    facts.user = Some("a\r\nX-Admin: yes".into());
    let rules = Rules::new(&rules("set = { X-User = \"u={user}\" }")).unwrap();
    rules.apply_to_request(&conn(), &mut request, &facts);
    assert_eq!(lines(&request.fields), ["X-User: u=aX-Admin: yes"]);
}

#[test]
fn the_host_of_a_request_is_its_authority_too() {
    let request = request_after("set = { host = \"app.internal:8080\" }", &[("Host", "example.com")]);
    assert_eq!(request.authority(), Some(&b"app.internal:8080"[..]));
    assert_eq!(lines(&request.fields), ["Host: app.internal:8080"]);
    let without = request_after("set = { Host = \"app.internal\" }", &[]);
    assert_eq!(without.authority(), Some(&b"app.internal"[..]));
    assert!(without.fields.is_empty());
    let nasty = request_after("set = { Host = \"{header:X-H}\" }", &[("X-H", "a/b@c")]);
    assert_eq!(nasty.authority(), Some(&b"example.com"[..]));
}

#[test]
fn a_response_may_speak_of_its_request() {
    let (request, facts) = get("/a");
    let mut response = Response::with_status(404);
    response.fields.push(b"Server", b"x");
    let rules =
        Rules::new(&rules("remove = [\"server\"]\nset = { X-Seen = \"{status} {path} {response:server}\" }"));
    rules.unwrap().apply_to_response(&conn(), &request, &mut response, &facts);
    // Without the space that the missing field leaves.
    assert_eq!(lines(&response.fields), ["X-Seen: 404 /a"]);
}

#[test]
fn what_frames_a_message_is_out_of_reach() {
    let wrong = |text: &str| toml::from_str::<HeaderRules>(text).unwrap_err().to_string();
    for name in
        ["content-length", "Transfer-Encoding", "connection", "te", "Upgrade", "trailer", "keep-alive"]
    {
        for action in [
            "set = { NAME = \"x\" }",
            "add = { NAME = \"x\" }",
            "default = { NAME = \"x\" }",
            "remove = [\"NAME\"]",
        ] {
            let error = wrong(&action.replace("NAME", name));
            assert!(error.contains("no rule can change"), "{error}");
        }
    }
    assert!(wrong("remove = [\"Host\"]").contains("`set`"));
    assert!(wrong("add = { host = \"x\" }").contains("`set`"));
    assert!(wrong("set = { \"a b\" = \"x\" }").contains("no name of a field"));
    assert!(wrong("set = { a = \"x\\r\\ny\" }").contains("control characters"));
    assert!(wrong("set = { a = \"{nobody}\" }").contains("unknown variable"));
}

#[test]
fn no_rules_are_nothing() {
    assert!(Rules::new(&HeaderRules::default()).is_none());
    assert!(Rules::new(&rules("remove = \"a\"")).is_some());
}
