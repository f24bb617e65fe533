use std::time::Duration;

use super::*;

/// Deserializes from JSON, the one format that is at hand here.
fn options(json: &str) -> Result<GroupOptions, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn problems(json: &str) -> Vec<String> {
    let problems = options(json).unwrap().spec("g").unwrap_err();
    problems.into_iter().map(|(place, message)| format!("{place}: {message}")).collect()
}

#[test]
fn the_example_of_the_contract_reads() {
    let spec = options(
        r#"{ "servers": ["10.0.0.1:80", { "address": "app.internal:80", "weight": 3, "max_connections": 100,
             "backup": true, "down": false }], "balance": "hash", "hash_key": "client_addr",
             "connect_timeout": "2s", "retries": 2, "max_fails": 3, "fail_timeout": "1m" }"#,
    )
    .unwrap()
    .spec("web")
    .unwrap();
    assert_eq!(&*spec.name, "web");
    assert_eq!(spec.servers[0], ServerSpec::new("10.0.0.1:80".parse().unwrap()));
    assert_eq!(spec.servers[1].target.to_string(), "app.internal:80");
    let second = &spec.servers[1];
    assert_eq!((second.weight, second.max_connections, second.backup, second.down), (3, 100, true, false));
    assert_eq!(spec.balance, Balance::Hash(HashKey::ClientAddr));
    assert_eq!((spec.connect_timeout.as_secs(), spec.fail_timeout.as_secs()), (2, 60));
    assert_eq!((spec.retries, spec.max_fails), (2, 3));
}

#[test]
fn the_defaults_are_those_of_an_inline_group() {
    let spec = options(r#"{ "servers": ["a:1-3", "unix:/run/x"] }"#).unwrap().spec("g").unwrap();
    let targets = ["a:1", "a:2", "a:3", "unix:/run/x"].map(|text| text.parse().unwrap());
    assert_eq!(spec, GroupSpec::inline("g", targets.into()));
    assert_eq!((spec.retries, spec.max_fails), (1, 1));
    assert_eq!((spec.connect_timeout.as_secs(), spec.fail_timeout.as_secs()), (5, 10));
    let hashed = options(r#"{ "servers": ["a:1"], "balance": "hash" }"#).unwrap().spec("g").unwrap();
    assert_eq!(hashed.balance, Balance::Hash(HashKey::ClientIp));
}

#[test]
fn all_problems_are_reported_each_at_its_place() {
    let found = problems(
        r#"{ "servers": [{ "address": "10.0.0.1:80", "weight": 0 }, ":80", "10.0.0.2:0", "10.0.0.1:79-81",
             { "address": "10.0.0.3:1", "weight": 65536 }],
             "hash_key": "client_ip", "connect_timeout": "0s", "fail_timeout": "0s", "max_fails": 1001 }"#,
    );
    let starts = [
        "servers[0].weight: must be from 1 to 65535; to take a server out, say down = true",
        "servers[1]: a target needs a host",
        "servers[2]: port 0",
        "servers[3]: 10.0.0.1:80 is already in servers[0]",
        "servers[4].weight: must be from 1 to 65535",
        "hash_key: has no effect without",
        "connect_timeout: ",
        "fail_timeout: must be more than 0; to never eject",
        "max_fails: at most 1000",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (problem, start) in found.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn a_group_needs_a_server_that_is_no_backup() {
    assert!(problems(r#"{ "servers": [] }"#)[0].starts_with("servers: at least one server is needed"));
    assert!(problems("{}")[0].starts_with("servers: at least one server is needed"));
    let backups = r#"{ "servers": [{ "address": "a:1", "backup": true }] }"#;
    assert!(problems(backups)[0].starts_with("servers: every server is a backup"));
    let many = problems(r#"{ "servers": ["a:1-3000", "b:1-3000"] }"#);
    assert_eq!(many, ["servers: these are 6000 servers; at most 4096 fit in a group"]);
}

#[test]
fn unknown_keys_and_wrong_forms_are_refused() {
    for (json, expected) in [
        (r#"{ "server": [] }"#, "unknown field `server`"),
        (r#"{ "servers": [{ "address": "a:1", "wieght": 2 }] }"#, "unknown field `wieght`"),
        (r#"{ "servers": [{ "weight": 2 }] }"#, "missing field `address`"),
        (r#"{ "servers": [5] }"#, "expected an address like \"10.0.0.1:80\", or a table"),
        (r#"{ "servers": ["a"] }"#, "no port"),
        (r#"{ "servers": ["a:1"], "balance": "fair" }"#, "unknown variant `fair`"),
    ] {
        let error = options(json).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_schema_takes_addresses_and_tables_and_has_the_defaults() {
    let schema = serde_json::to_value(schemars::schema_for!(GroupOptions)).unwrap();
    let servers = &schema["properties"]["servers"];
    assert_eq!(servers["items"]["anyOf"][0]["type"], "string");
    assert_eq!(servers["items"]["anyOf"][1]["$ref"], "#/$defs/Server");
    assert_eq!(schema["$defs"]["Server"]["required"], serde_json::json!(["address"]));
    assert_eq!(schema["additionalProperties"], false);
    for (key, default) in [
        ("balance", serde_json::json!("round_robin")),
        ("connect_timeout", serde_json::json!("5s")),
        ("retries", serde_json::json!(1)),
        ("max_fails", serde_json::json!(1)),
        ("fail_timeout", serde_json::json!("10s")),
    ] {
        assert_eq!(schema["properties"][key]["default"], default, "{key}");
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
}

#[test]
fn both_hashes_take_a_key_and_the_others_none() {
    let balance = |method: &str, key: &str| {
        let json = format!(r#"{{ "servers": ["a:1"], "balance": "{method}", "hash_key": "{key}" }}"#);
        options(&json).unwrap().spec("g").map(|spec| spec.balance)
    };
    assert_eq!(balance("hash", "sni"), Ok(Balance::Hash(HashKey::Sni)));
    assert_eq!(balance("maglev", "quic_cid"), Ok(Balance::Maglev(HashKey::QuicCid)));
    for method in ["round_robin", "least_connections", "random_two", "peak_ewma"] {
        let problems = balance(method, "client_ip").unwrap_err();
        assert!(problems[0].1.starts_with("has no effect without balance"), "{problems:?}");
    }
    let unkeyed = options(r#"{ "servers": ["a:1"], "balance": "maglev" }"#).unwrap().spec("g").unwrap();
    assert_eq!(unkeyed.balance, Balance::Maglev(HashKey::ClientIp));
}

#[test]
fn idle_connections_are_few_and_short_lived_unless_said_otherwise() {
    let keepalive = |json: &str| options(json).unwrap().spec("g").map(|spec| spec.keepalive);
    let default = keepalive(r#"{ "servers": ["a:1"] }"#).unwrap();
    assert_eq!((default.max_idle, default.idle_timeout), (64, Duration::from_secs(60)));
    let some = keepalive(r#"{ "servers": ["a:1"], "keepalive": { "max_idle": 3, "idle_timeout": "5s" } }"#);
    assert_eq!(some.unwrap(), KeepaliveSpec { max_idle: 3, idle_timeout: Duration::from_secs(5) });
    assert_eq!(
        problems(r#"{ "servers": ["a:1"], "keepalive": { "idle_timeout": "0s" } }"#),
        ["keepalive.idle_timeout: must be more than 0; to keep nothing, say max_idle = 0"]
    );
}

#[test]
fn failures_by_status_are_those_that_are_named() {
    let spec = |json: &str| options(json).unwrap().spec("g").unwrap();
    let plain = spec(r#"{ "servers": ["a:1"] }"#);
    assert!(!plain.is_failure(500) && !plain.is_failure(503));
    let some = spec(r#"{ "servers": ["a:1"], "fail_status": "500,502-504" }"#);
    assert_eq!(
        [500, 501, 502, 504, 505].map(|status| some.is_failure(status)),
        [true, false, true, true, false]
    );
}

#[test]
fn a_url_by_tls_has_to_be_proven() {
    let target = vec!["10.0.0.1:443".parse().unwrap()];
    let spec = GroupSpec::inline_by_tls("https://a.example:443", target.clone(), "a.example", &["h2"]);
    let tls = spec.tls.clone().unwrap();
    assert_eq!((tls.server_name.as_deref(), tls.insecure_skip_verify), (Some("a.example"), false));
    assert_eq!(tls.alpn, ["h2"]);
    assert_eq!(GroupSpec { tls: None, ..spec }, GroupSpec::inline("https://a.example:443", target));
}

#[test]
fn a_queue_needs_room_patience_and_something_to_wait_for() {
    let limited = r#""servers": [{ "address": "a:1", "max_connections": 2 }, "b:1"]"#;
    let spec = options(&format!(r#"{{ {limited}, "queue": {{ "max": 7 }} }}"#)).unwrap().spec("g").unwrap();
    assert_eq!(spec.queue, Some(QueueSpec { max: 7, timeout: Duration::from_secs(5) }));
    assert_eq!(
        problems(&format!(r#"{{ {limited}, "queue": {{ "max": 0, "timeout": "0s" }} }}"#)),
        [
            "queue.max: must be at least 1; to refuse at once, leave queue out",
            "queue.timeout: must be more than 0; to refuse at once, leave queue out",
        ]
    );
    assert_eq!(
        problems(r#"{ "servers": ["a:1"], "queue": {} }"#),
        ["queue: nobody waits unless a server has max_connections; add that or remove this"]
    );
}

#[test]
fn what_can_not_pass_through_a_chain_is_refused() {
    let spec = options(r#"{ "servers": ["a.test:1"], "via": "c", "health": { "type": "http" } }"#);
    assert_eq!(spec.unwrap().spec("g").unwrap().via.as_deref(), Some("c"));
    let found = problems(
        r#"{ "servers": ["a.test:1", "unix:/run/x"], "via": "c", "health": { "type": "udp", "send": "x" },
             "source": "10.0.0.5", "interface": "eth0", "mark": 1, "dscp": "ef", "tcp_fast_open": true, "mptcp": true }"#,
    );
    for start in [
        "via: unix:/run/x is on this machine",
        "health.type: datagrams do not pass",
        "source: has no effect with `via`",
        "interface: has no effect",
        "mark: has no effect",
        "dscp: has no effect",
        "tcp_fast_open: has no effect",
        "mptcp: has no effect",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(start)), "{start} in {found:#?}");
    }
}
