//! Redis and PostgreSQL: long-lived connections, pipelining, large values, many short sessions.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Service, run};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Proxy, TempDir, eventually};

use super::{asked, call, program};
use crate::{start, tcp};

/// The port of the proxy's one listener, as text.
fn port(proxy: &Proxy) -> String {
    proxy.tcp("t").port().to_string()
}

#[test]
fn redis() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let own = free_port().to_string();
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--port", &own, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(dir.path());
    let _service = Service::start(&mut command, &dir.join("redis.log"));
    eventually("redis", || call("redis-cli", &["-p", &own, "ping"]).stdout.trim() == "PONG");
    let proxy = start(&tcp(format!("127.0.0.1:{own}"), ""));
    let through = port(&proxy);
    let cli = |args: &[&str]| {
        let args: Vec<&str> = ["-p", &through].iter().chain(args).copied().collect();
        call("redis-cli", &args).success().stdout.trim().to_owned()
    };
    assert_eq!(cli(&["ping"]), "PONG");
    assert_eq!(cli(&["set", "key", "value"]), "OK");
    assert_eq!(cli(&["get", "key"]), "value");
    // A large value both ways; the length as redis counted it, and as it comes back.
    let large = dir.write("large", &"0123456789abcdef".repeat(1 << 19));
    let store =
        format!("'{}' -p {through} -x set large <'{}'", program("redis-cli").display(), large.display());
    run(Command::new("sh").args(["-c", &store]), Duration::from_secs(30)).success();
    assert_eq!(cli(&["strlen", "large"]), (1 << 23).to_string());
    assert_eq!(cli(&["get", "large"]).len(), 1 << 23);
    for extra in [&["-P", "1"][..], &["-P", "32"], &["-d", "20000"]] {
        let mut args = vec!["-p", &through, "-q", "-n", "20000", "-c", "50", "-t", "set,get"];
        args.extend(extra);
        let finished = call("redis-benchmark", &args).success();
        assert!(finished.text().contains("GET") && !finished.text().contains("rror"), "{}", finished.text());
    }
    assert_eq!(cli(&["get", "key"]), "value");
}

/// Redis behind a bridge to it, behind a bridge from TCP: small questions, pipelines and large values.
#[test]
fn redis_over_two_bridges() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let own = free_port().to_string();
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--port", &own, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(dir.path());
    let _service = Service::start(&mut command, &dir.join("redis.log"));
    eventually("redis", || call("redis-cli", &["-p", &own, "ping"]).stdout.trim() == "PONG");
    let inner = start(&tcp(format!("127.0.0.1:{own}"), "bridge = \"ws2tcp\""));
    let url = "bridge = \"tcp2ws\"\nbridge_url = \"ws://localhost/redis\"";
    let outer = start(&tcp(inner.tcp("t"), url));
    let through = port(&outer);
    for extra in [&["-P", "1"][..], &["-P", "32"], &["-d", "20000"]] {
        let mut args = vec!["-p", &through, "-q", "-n", "20000", "-c", "50", "-t", "set,get"];
        args.extend(extra);
        let finished = call("redis-benchmark", &args).success();
        assert!(finished.text().contains("GET") && !finished.text().contains("rror"), "{}", finished.text());
    }
    assert_eq!(call("redis-cli", &["-p", &through, "ping"]).success().stdout.trim(), "PONG");
}

/// The newest PostgreSQL of Debian's layout, or whatever is in the path.
fn postgres_program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name))).collect())
        .unwrap_or_default();
    versions.retain(|path| path.is_file());
    versions.sort();
    versions.pop().unwrap_or_else(|| program(name))
}

/// PostgreSQL refuses to run as root: as its own user there, else as we are.
fn as_postgres(root: bool, name: &str) -> Command {
    if !root {
        return Command::new(postgres_program(name));
    }
    let mut command = Command::new(program("setpriv"));
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
        .arg(postgres_program(name));
    command
}

fn start_postgres(dir: &Path, own: &str) -> Service {
    // The directory is ours; whose that is says who we are.
    let root = std::fs::metadata(dir).unwrap().uid() == 0;
    if root {
        call("chown", &["postgres:postgres", &dir.display().to_string()]).success();
    }
    let data = dir.join("data");
    let mut init = as_postgres(root, "initdb");
    init.args(["-A", "trust", "-U", "tester", "--no-sync", "-D"]).arg(&data).current_dir(dir);
    run(&mut init, Duration::from_secs(120)).success();
    let mut server = as_postgres(root, "postgres");
    server.arg("-D").arg(&data).args(["-p", own, "-h", "127.0.0.1", "-c", "fsync=off", "-k"]).arg(dir);
    let log = std::env::temp_dir().join(format!("wmp-postgres-{own}.log"));
    let service = Service::start(server.current_dir(dir), &log);
    let _ = std::fs::remove_file(log);
    service
}

#[test]
fn postgresql() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let own = free_port().to_string();
    let _service = start_postgres(dir.path(), &own);
    let proxy = start(&tcp(format!("127.0.0.1:{own}"), ""));
    let through = port(&proxy);
    let connect = ["-h", "127.0.0.1", "-p", &through, "-U", "tester"];
    let sql = |text: &str| {
        let args: Vec<&str> = connect.iter().copied().chain(["-d", "postgres", "-Atqc", text]).collect();
        call("psql", &args)
    };
    eventually("postgres", || sql("select 1").code == Some(0));
    proxy.expect_warn("ejected");
    assert_eq!(sql("select 6 * 7").success().stdout.trim(), "42");
    let rows = sql("select i, repeat('x', 1000) from generate_series(1, 20000) i").success().stdout;
    assert_eq!(rows.lines().count(), 20_000);
    assert_eq!(rows.lines().map(str::len).min(), Some(1_002));
    let bench = |args: &[&str]| {
        let args: Vec<&str> = connect.iter().chain(args).copied().chain(["postgres"]).collect();
        call("pgbench", &args).success().text()
    };
    bench(&["-i", "-s", "1", "-q"]);
    let said = bench(&["-c", "8", "-j", "2", "-t", "200"]);
    assert!(said.contains("1600/1600"), "{said}");
    // A connection for each transaction.
    let said = bench(&["-S", "-C", "-c", "4", "-j", "2", "-t", "50"]);
    assert!(said.contains("200/200"), "{said}");
}
