use super::*;

/// Reads JSON, the one format that is at hand here.
fn read(json: &str) -> Result<HealthOptions, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn spec_of(json: &str, targets: &[&str]) -> Result<HealthSpec, Vec<String>> {
    let targets: Vec<TargetSpec> = targets.iter().map(|text| text.parse().unwrap()).collect();
    let problem = |(key, message)| format!("{key}: {message}");
    read(json)
        .unwrap()
        .spec(targets.iter(), Beginning::default())
        .map_err(|found| found.into_iter().map(problem).collect())
}

fn spec(json: &str) -> HealthSpec {
    spec_of(json, &["10.0.0.1:80"]).unwrap()
}

fn problems(json: &str) -> Vec<String> {
    spec_of(json, &["10.0.0.1:80"]).unwrap_err()
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let plain = spec("{}");
    assert_eq!((plain.interval, plain.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!(plain.thresholds, Thresholds { rise: 2, fall: 3 });
    assert_eq!((plain.port, plain.probe), (None, ProbeSpec::Tcp { send: [].into(), expect: None }));
    let short = spec(r#"{ "interval": "500ms" }"#);
    assert_eq!(short.timeout, Duration::from_millis(500), "a timeout that nobody wrote is no problem");
}

#[test]
fn every_type_reads() {
    let http = spec(
        r#"{ "type": "http", "interval": "10s", "timeout": "3s", "rise": 1, "fall": 1, "port": 8080,
             "method": "POST", "path": "/healthz?x=1", "host": "a.example:80", "expect_status": "200, 204,300-399",
             "expect_body": "ok" }"#,
    );
    let ProbeSpec::Http(request) = http.probe else { panic!("{http:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/healthz?x=1"));
    assert_eq!((request.host.as_deref(), request.body.as_deref()), (Some("a.example:80"), Some("ok")));
    assert_eq!(request.statuses.to_string(), "200,204,300-399");
    for (status, passes) in [(200, true), (201, false), (204, true), (299, false), (399, true), (400, false)]
    {
        assert_eq!(request.statuses.contains(status), passes, "{status}");
    }
    let udp = spec(r#"{ "type": "udp", "send": { "hex": "00 ff0A" }, "expect": "pong" }"#);
    assert_eq!(udp.probe, ProbeSpec::Udp { send: [0, 255, 10].into(), expect: Some((*b"pong").into()) });
    let number = spec(r#"{ "type": "http", "expect_status": 204 }"#);
    let ProbeSpec::Http(request) = number.probe else { panic!("{number:?}") };
    assert_eq!(request.statuses.to_string(), "204");
}

#[test]
fn all_problems_are_reported_each_at_its_key() {
    let found = problems(
        r#"{ "type": "http", "interval": "1s", "timeout": "2s", "rise": 0, "fall": 1001, "port": 0, "send": "x",
             "method": "GET /", "path": "x y", "host": "a/b", "expect_body": "" }"#,
    );
    let starts = [
        "timeout: must be at most `interval`, which is \"1s\"",
        "rise: must be from 1 to 1000",
        "fall: must be from 1 to 1000",
        "port: port 0",
        "send: has no effect with type = \"http\"",
        "method: a method is a word",
        "path: a path begins with \"/\"",
        "host: a host is like",
        "expect_body: is empty",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (problem, start) in found.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn what_can_not_work_together_is_refused() {
    for (json, expected) in [
        (r#"{ "interval": "0s" }"#, "interval: must be more than 0"),
        (r#"{ "timeout": "0s" }"#, "timeout: no server answers in no time"),
        (r#"{ "path": "/" }"#, "path: has no effect with type = \"tcp\"; it is for type = \"http\""),
        (r#"{ "type": "udp" }"#, "send: type = \"udp\" needs `send`"),
        (r#"{ "send": "" }"#, "send: is empty"),
        (r#"{ "type": "http", "method": "HEAD", "expect_body": "x" }"#, "expect_body: the answer to HEAD"),
        (r#"{ "type": "http", "method": "CONNECT" }"#, "method: CONNECT"),
    ] {
        let found = problems(json);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{json}: {found:?}");
    }
    let long = format!(r#"{{ "send": "{}" }}"#, "x".repeat(1233));
    assert_eq!(problems(&long), ["send: these are 1233 bytes; at most 1232 are sent and expected"]);
    let unix = spec_of(r#"{ "type": "udp", "send": "x", "port": 1 }"#, &["a:1", "unix:/run/x"]).unwrap_err();
    assert_eq!(unix, ["port: unix:/run/x has no port", "type: unix:/run/x takes no datagrams"]);
}

#[test]
fn wrong_forms_are_refused_with_what_would_be_right() {
    for (json, expected) in [
        (r#"{ "type": "ping" }"#, "unknown variant `ping`"),
        (r#"{ "intervall": "1s" }"#, "unknown field `intervall`"),
        (r#"{ "send": 5 }"#, "expected text, or bytes like"),
        (r#"{ "send": { "hex": "abc" } }"#, "two hexadecimal digits"),
        (r#"{ "send": { "hex": "+a" } }"#, "two hexadecimal digits"),
        (r#"{ "send": { "text": "a" } }"#, "unknown field `text`"),
        (r#"{ "expect_status": "ok" }"#, "expected statuses from 200 to 599"),
        (r#"{ "expect_status": "" }"#, "expected statuses from 200 to 599"),
        (r#"{ "expect_status": "399-200" }"#, "expected statuses from 200 to 599"),
        (r#"{ "expect_status": "+200" }"#, "expected statuses from 200 to 599"),
        (r#"{ "expect_status": 100 }"#, "expected statuses from 200 to 599"),
        (r#"{ "expect_status": -1 }"#, "expected statuses from 200 to 599"),
    ] {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let json = r#"{"type":"udp","interval":"5s","send":{"hex":"00ff"},"expect":"a"}"#;
    assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
    let json = r#"{"type":"http","path":"/x","expect_status":"200-299,304"}"#;
    assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
}

#[test]
fn bytes_to_send_may_be_said_by_a_key_of_their_own() {
    let short = spec(r#"{ "type": "udp", "hex": "0a 0b" }"#);
    assert_eq!(short.probe, spec(r#"{ "type": "udp", "send": { "hex": "0a0b" } }"#).probe);
    for wrong in [r#""hex": "0a0""#, r#""hex": "", "expect": "x""#, r#""hex": "0a", "send": "x""#] {
        let found = problems(&format!(r#"{{ "type": "tcp", {wrong} }}"#));
        assert!(found.len() == 1 && found[0].starts_with("hex: "), "{wrong}: {found:?}");
    }
}
