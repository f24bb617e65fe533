//! nginx over TCP: large downloads and many short connections.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Service, run};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Pattern, TempDir, eventually};

use super::{asked, call, program};
use crate::{group, start, tcp};

#[test]
fn nginx() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let ports = [free_port(), free_port()];
    let pattern = Pattern::new(5).bytes(0, 64 << 20);
    std::fs::create_dir_all(dir.join("www")).unwrap();
    std::fs::write(dir.join("www/large"), &pattern).unwrap();
    let servers: String = ports
        .iter()
        .map(|port| {
            let root = dir.join("www").display().to_string();
            format!("server {{ listen 127.0.0.1:{port}; root {root}; location /port {{ return 200 \"{port}\"; }} }}\n")
        })
        .collect();
    let temp = dir.path().display();
    let config = format!(
        "daemon off; pid {temp}/nginx.pid; error_log stderr; user root;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path {temp}/1; proxy_temp_path {temp}/2; fastcgi_temp_path {temp}/3; uwsgi_temp_path \
         {temp}/4; scgi_temp_path {temp}/5;\n{servers} }}\n"
    );
    let path = dir.write("nginx.conf", &config);
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(dir.path()).arg("-c").arg(path).args(["-e", "stderr"]);
    let _service = Service::start(&mut command, &dir.join("nginx.log"));
    let direct = format!("http://127.0.0.1:{}/port", ports[1]);
    eventually("nginx", || call("curl", &["-sf", &direct]).code == Some(0));
    let peers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let proxy = start(&format!("{}{}", group("web", &peers, ""), tcp("web", "")));
    let base = format!("http://{}", proxy.tcp("t"));
    let large = dir.join("got").display().to_string();
    call("curl", &["-sf", "-o", &large, &format!("{base}/large")]).success();
    assert!(std::fs::read(&large).unwrap() == pattern, "the download differs");
    // Slowly, so that back-pressure reaches nginx.
    let slow = ["-sf", "--limit-rate", "20M", "-r", "0-20971519", "-o", &large, &format!("{base}/large")];
    call("curl", &slow).success();
    assert!(std::fs::read(&large).unwrap() == pattern[..20 << 20], "the slow download differs");
    let mut seen: Vec<String> =
        (0..40).map(|_| call("curl", &["-sf", &format!("{base}/port")]).success().stdout).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2, "both servers answer: {seen:?}");
    // Two hundred at a time on kept connections.
    let many = format!(
        "seq 200 | xargs -P 20 -I N '{}' -sf -o /dev/null {base}/port {base}/port {base}/port",
        program("curl").display()
    );
    run(Command::new("sh").args(["-c", &many]), Duration::from_secs(60)).success();
}
