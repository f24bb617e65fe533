//! The command line, run as a user does.

use serde_json::Value;
use wmproxy_testkit::exec::{Finished, run_in};
use wmproxy_testkit::{Backend, Conn, TempDir, eventually};

use crate::{BIN, stream};

fn wmproxy(args: &[&str]) -> Finished {
    let dir = TempDir::new();
    run_in(dir.path(), BIN, args)
}

/// Runs `args` in a directory that holds these files.
fn with_files(files: &[(&str, &str)], args: &[&str]) -> Finished {
    let dir = TempDir::new();
    for (name, text) in files {
        dir.write(name, text);
    }
    run_in(dir.path(), BIN, args)
}

#[test]
fn version_names_the_version() {
    let finished = wmproxy(&["version"]).success();
    assert!(finished.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", finished.stdout);
}

#[test]
fn help_lists_the_commands() {
    let finished = wmproxy(&["--help"]).success();
    for command in [
        "run",
        "check",
        "reload",
        "stop",
        "status",
        "stream",
        "reverse-proxy",
        "file-server",
        "ws-proxy",
        "schema",
        "completions",
        "version",
    ] {
        assert!(finished.stdout.contains(command), "{command} is missing in\n{}", finished.stdout);
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [&["no-such-command"][..], &["run", "--no-such-flag"], &["check"], &["stream"]] {
        let finished = wmproxy(args);
        let wanted = if args == ["check"] { [Some(1), Some(2)] } else { [Some(2), Some(2)] };
        assert!(wanted.contains(&finished.code), "{args:?}: {:?}\n{}", finished.code, finished.text());
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn check_accepts_a_good_file_in_every_form() {
    let toml = stream("t", "127.0.0.1:0", "127.0.0.1:9", "idle_timeout = \"5s\"");
    let yaml =
        "stream:\n  - name: t\n    listen: 127.0.0.1:0\n    upstream: 127.0.0.1:9\n    idle_timeout: 5s\n";
    let json =
        r#"{"stream":[{"name":"t","listen":"127.0.0.1:0","upstream":"127.0.0.1:9","idle_timeout":"5s"}]}"#;
    let mut printed = Vec::new();
    for (name, text) in [("c.toml", toml.as_str()), ("c.yaml", yaml), ("c.json", json)] {
        with_files(&[(name, text)], &["check", "-c", name]).success();
        printed.push(with_files(&[(name, text)], &["check", "-c", name, "--print"]).success().stdout);
    }
    assert!(printed[0].contains("127.0.0.1:9"), "{}", printed[0]);
    assert!(printed.iter().all(|text| *text == printed[0]), "the same tree in three forms: {printed:#?}");
}

#[test]
fn what_check_prints_is_a_config() {
    let text = stream("t", "127.0.0.1:0", "127.0.0.1:9", "");
    let printed = with_files(&[("c.toml", &text)], &["check", "-c", "c.toml", "--print"]).success().stdout;
    with_files(&[("again.toml", &printed)], &["check", "-c", "again.toml"]).success();
}

#[test]
fn check_lists_the_problems_as_json() {
    let text =
        "[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\nupstrem = \"x\"\nidle_timeout = \"soon\"\n";
    let finished = with_files(&[("c.toml", text)], &["check", "-c", "c.toml", "--json"]);
    assert_eq!(finished.code, Some(1));
    let problems: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.text()));
    let list = problems.as_array().or_else(|| problems["problems"].as_array()).expect("a list of problems");
    assert!(list.len() >= 2, "{problems}");
    let lines: Vec<u64> = list.iter().filter_map(|problem| problem["line"].as_u64()).collect();
    assert!(lines.contains(&4) && lines.contains(&5), "{problems}");
}

#[test]
fn check_underlines_and_hints() {
    let text = "[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\nupstrem = \"127.0.0.1:9\"\n";
    let finished = with_files(&[("c.toml", text)], &["check", "-c", "c.toml"]);
    assert_eq!(finished.code, Some(1));
    for part in ["c.toml:4:1", "upstrem", "^^^^^^^", "did you mean", "upstream"] {
        assert!(finished.stderr.contains(part), "{part:?} is missing in\n{}", finished.stderr);
    }
}

#[test]
fn environment_and_includes_are_resolved() {
    let main = "include = [\"conf.d/*.toml\"]\n[[stream]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n\
                upstream = \"${WMPROXY_TEST_NOT_SET:-127.0.0.1:7001}\"\n";
    let more = stream("b", "127.0.0.1:0", "127.0.0.1:7002", "");
    let files = [("c.toml", main), ("conf.d/more.toml", more.as_str())];
    let printed = with_files(&files, &["check", "-c", "c.toml", "--print"]).success().stdout;
    assert!(printed.contains("127.0.0.1:7001") && printed.contains("127.0.0.1:7002"), "{printed}");
    let bad = stream("b", "127.0.0.1:0", "nowhere", "");
    let finished = with_files(&[("c.toml", main), ("conf.d/more.toml", &bad)], &["check", "-c", "c.toml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("more.toml:4:"), "the included file is named:\n{}", finished.stderr);
    let unset = stream("a", "127.0.0.1:0", "${WMPROXY_TEST_NOT_SET}", "");
    let finished = with_files(&[("c.toml", &unset)], &["check", "-c", "c.toml"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("WMPROXY_TEST_NOT_SET"), "{}", finished.stderr);
}

#[test]
fn a_printed_config_hides_its_secrets() {
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n{}",
        stream("t", "127.0.0.1:0", "127.0.0.1:9", "")
    );
    let files = [("c.toml", text.as_str()), ("token", "hunter2\n")];
    let finished = with_files(&files, &["check", "-c", "c.toml", "--print"]).success();
    assert!(!finished.text().contains("hunter2"), "{}", finished.text());
}

#[test]
fn the_schema_is_json_and_knows_the_tables() {
    let schema: Value = serde_json::from_str(&wmproxy(&["schema"]).success().stdout).unwrap();
    for table in ["stream", "upstream", "log", "access_log", "admin", "resolver"] {
        assert!(schema["properties"][table].is_object(), "{table} is missing");
    }
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = wmproxy(&["completions", shell]).success();
        assert!(finished.stdout.contains("wmproxy") && finished.stdout.contains("reload"), "{shell}");
    }
}

#[test]
fn commands_without_a_running_instance_fail_with_the_reason() {
    let dir = TempDir::new();
    let admin = format!("unix:{}", dir.join("nobody.sock").display());
    for command in ["reload", "stop", "status"] {
        let finished = run_in(dir.path(), BIN, &[command, "--admin", &admin]);
        assert_eq!(finished.code, Some(1), "{command}: {}", finished.text());
        assert!(finished.stderr.contains("nobody.sock"), "{command}: {}", finished.stderr);
    }
}

#[test]
fn a_stream_in_one_line() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let dir = TempDir::new();
    let port = wmproxy_testkit::tcp::free_port();
    let admin = wmproxy_testkit::Addr::Unix(dir.join("admin.sock"));
    let mut command = std::process::Command::new(BIN);
    command
        .args(["stream", &format!("tcp://127.0.0.1:{port}={},{}", first.addr(), second.addr())])
        .args(["--admin", &admin.to_string()])
        .current_dir(dir.path());
    let _service = wmproxy_testkit::exec::Service::start(&mut command, &dir.join("log"));
    eventually("the proxy", || wmproxy_testkit::admin::exchange(&admin, "GET", "/api/v1/status").is_ok());
    let addr = format!("127.0.0.1:{port}").parse().unwrap();
    let mut names: Vec<String> = (0..8).map(|_| Conn::connect(&addr).line()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["first", "second"]);
    run_in(dir.path(), BIN, &["stop", "--admin", &admin.to_string()]).success();
}

#[test]
fn run_takes_yaml_and_json() {
    let backend = Backend::named("peer");
    let tree =
        format!(r#"{{"stream":[{{"name":"t","listen":"127.0.0.1:0","upstream":"{}"}}]}}"#, backend.addr());
    for name in ["c.json", "c.yaml"] {
        let dir = TempDir::new();
        dir.write(name, &tree);
        let admin = wmproxy_testkit::Addr::Unix(dir.join("admin.sock"));
        let mut command = std::process::Command::new(BIN);
        command.args(["run", "-c", name, "--admin", &admin.to_string()]).current_dir(dir.path());
        let _service = wmproxy_testkit::exec::Service::start(&mut command, &dir.join("log"));
        let status = || wmproxy_testkit::admin::exchange(&admin, "GET", "/api/v1/status");
        eventually("the proxy", || status().is_ok());
        let status: Value = serde_json::from_str(&status().unwrap().body).unwrap();
        let addr = status["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
        assert_eq!(Conn::connect(&addr).line(), "peer", "{name}");
    }
}

#[test]
fn bare_wmproxy_runs_the_file_that_is_there() {
    let backend = Backend::named("peer");
    let dir = TempDir::new();
    dir.write("wmproxy.toml", &stream("t", "unix:./t.sock", backend.addr(), ""));
    // A relative path would depend on where the process starts; the contract wants absolute ones.
    let refused = run_in(dir.path(), BIN, &["--no-admin"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    let path = dir.join("t.sock");
    dir.write("wmproxy.toml", &stream("t", &format!("unix:{}", path.display()), backend.addr(), ""));
    let mut command = std::process::Command::new(BIN);
    command.arg("--no-admin").current_dir(dir.path());
    let _service = wmproxy_testkit::exec::Service::start(&mut command, &dir.join("log"));
    let addr = wmproxy_testkit::Addr::Unix(path);
    eventually("the proxy", || Conn::try_connect(&addr).is_ok());
    assert_eq!(Conn::connect(&addr).line(), "peer");
}
