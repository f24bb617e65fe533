//! PROXY headers to and from HAProxy, nginx and curl, and routes by server name with nginx, OpenSSL and curl.

use std::io::Read as _;
use std::process::Command;

use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Authority, Backend, Conn, TempDir, eventually};

use super::{asked, call, program};
use crate::{ACCESS_LOG, group, start, tcp};

const TRUST: &str = "accept_proxy_protocol = \"127.0.0.1\"";

fn addr(port: u16) -> Addr {
    Addr::Inet(([127, 0, 0, 1], port).into())
}

/// HAProxy with these proxies.
fn haproxy(dir: &TempDir, name: &str, proxies: &str) -> Service {
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{proxies}"
    );
    let config = dir.write(&format!("{name}.cfg"), &text);
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(config);
    Service::start(&mut command, &dir.join(&format!("{name}.log")))
}

/// nginx with these blocks at the top.
fn nginx(dir: &TempDir, name: &str, blocks: &str) -> Service {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let temp = dir.path().display();
    let text = format!(
        "load_module {module};\ndaemon off; pid {temp}/{name}.pid; error_log stderr; user root;\nevents {{}}\n{blocks}\n"
    );
    let config = dir.write(&format!("{name}.conf"), &text);
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(dir.path()).arg("-c").arg(config).args(["-e", "stderr"]);
    Service::start(&mut command, &dir.join(&format!("{name}.log")))
}

/// Connects once the service listens.
fn connect(port: u16) -> Conn {
    eventually("the service to listen", || Conn::try_connect(&addr(port)).is_ok());
    Conn::connect(&addr(port))
}

#[test]
fn headers_of_haproxy_and_nginx_are_understood() {
    if !asked() {
        return;
    }
    let backend = Backend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), TRUST)));
    let target = proxy.tcp("t");
    let dir = TempDir::new();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let options = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"];
    let proxies: String = options
        .iter()
        .zip(&ports)
        .map(|(option, port)| {
            format!("listen p{port}\n  bind 127.0.0.1:{port}\n  server s {target} {option}\n")
        })
        .collect();
    let _haproxy = haproxy(&dir, "haproxy", &proxies);
    let block = format!(
        "stream {{ server {{ listen 127.0.0.1:{}; proxy_pass {target}; proxy_protocol on; }} }}",
        ports[3]
    );
    let _nginx = nginx(&dir, "nginx", &block);
    let mut clients = Vec::new();
    for port in &ports {
        let conn = connect(*port);
        conn.echo(b"through two proxies");
        clients.push(conn.local().to_string());
        conn.finish();
        conn.expect_end();
    }
    // Those that only asked whether somebody listens are there, too.
    eventually("a record of each client", || {
        let lines = proxy.file_lines("access.log");
        clients
            .iter()
            .all(|client| lines.iter().any(|line| line.contains(client) && line.contains("\"done\"")))
    });
    let lines = proxy.file_lines("access.log");
    for (client, port) in clients.iter().zip(&ports) {
        let line = lines.iter().find(|line| line.contains(client)).unwrap();
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["client_addr"], client.as_str());
        assert_eq!(record["destination"], format!("127.0.0.1:{port}"));
        assert!(record["via"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
}

#[test]
fn haproxy_and_nginx_understand_our_headers() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let (ha, ng) = (free_port(), free_port());
    let _haproxy = haproxy(
        &dir,
        "haproxy",
        &format!(
            "frontend f\n  mode http\n  bind 127.0.0.1:{ha} accept-proxy\n  http-request return status 200 content-type \
             text/plain lf-string \"%[src]:%[src_port]\"\n"
        ),
    );
    let block = format!(
        "stream {{ server {{ listen 127.0.0.1:{ng} proxy_protocol; return \
         \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr\\n\"; }} }}"
    );
    let _nginx = nginx(&dir, "nginx", &block);
    for port in [ha, ng] {
        drop(connect(port));
    }
    for version in ["v1", "v2"] {
        let more = format!("send_proxy_protocol = \"{version}\"");
        for (port, is_http) in [(ha, true), (ng, false)] {
            let proxy =
                start(&format!("{}{}", group("g", &[format!("127.0.0.1:{port}")], &more), tcp("g", "")));
            let conn = Conn::connect(&proxy.tcp("t"));
            if is_http {
                conn.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            }
            let mut answer = String::new();
            (&conn).read_to_string(&mut answer).unwrap();
            let client = conn.local().to_string();
            assert!(answer.contains(&client), "{version} {port}: {answer:?} names {client}");
        }
    }
}

#[test]
fn a_header_goes_to_haproxy_before_tls_does() {
    if !asked() {
        return;
    }
    let (dir, authority, port) = (TempDir::new(), Authority::new(), free_port());
    let pair = authority.issue("a", &["a.example"]);
    let files = [&pair.cert, &pair.key].map(|file| std::fs::read_to_string(file).unwrap());
    let pem = dir.write("both.pem", &files.concat());
    let _haproxy = haproxy(
        &dir,
        "haproxy",
        &format!(
            "frontend f\n  mode http\n  bind 127.0.0.1:{port} accept-proxy ssl crt {}\n  http-request return status 200 \
             content-type text/plain lf-string \"%[src]:%[src_port] %[ssl_fc_sni]\"\n",
            pem.display()
        ),
    );
    drop(connect(port));
    let tls = format!("tls = {{ server_name = \"a.example\", ca = \"{}\" }}", authority.ca().display());
    for version in ["v1", "v2"] {
        let more = format!("send_proxy_protocol = \"{version}\"\n{tls}");
        let proxy = start(&format!("{}{}", group("g", &[format!("127.0.0.1:{port}")], &more), tcp("g", "")));
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        (&conn).read_to_string(&mut answer).unwrap();
        let expected = format!("{} a.example", conn.local());
        assert!(answer.ends_with(&expected), "{version}: {answer:?}");
    }
}

#[test]
fn curl_sends_a_header_of_its_own() {
    if !asked() {
        return;
    }
    let backend = Backend::http("hello");
    let proxy = start(&format!("{ACCESS_LOG}{}", tcp(backend.addr(), TRUST)));
    let url = format!("http://{}/", proxy.tcp("t"));
    assert_eq!(call("curl", &["-sf", "--haproxy-protocol", &url]).success().stdout, "hello");
    assert_ne!(call("curl", &["-sf", &url]).code, Some(0), "without it nobody is let in");
    let outcomes: Vec<_> = proxy.access_log(2).iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["done", "bad_proxy_header"]);
}

#[test]
fn curl_and_openssl_reach_the_server_that_they_name() {
    if !asked() {
        return;
    }
    let (dir, authority) = (TempDir::new(), Authority::new());
    let names = ["a.example", "b.example"];
    let ports = [free_port(), free_port()];
    let temp = dir.path().display();
    let servers: String = names
        .iter()
        .zip(ports)
        .map(|(name, port)| {
            let pair = authority.issue(name, &[name]);
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {}; ssl_certificate_key {}; return 200 \"{name} \
                 $ssl_server_name\"; }}\n",
                pair.cert.display(),
                pair.key.display()
            )
        })
        .collect();
    let block = format!(
        "http {{ access_log off; client_body_temp_path {temp}/1; proxy_temp_path {temp}/2; fastcgi_temp_path {temp}/3; \
         uwsgi_temp_path {temp}/4; scgi_temp_path {temp}/5;\n{servers} }}"
    );
    let _nginx = nginx(&dir, "nginx", &block);
    for port in ports {
        drop(connect(port));
    }
    let routes = format!(
        "sni = {{ \"a.example\" = \"127.0.0.1:{}\", \"*.example\" = \"127.0.0.1:{}\" }}",
        ports[0], ports[1]
    );
    let proxy = start(&format!("[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\n{routes}\n"));
    let (port, ca) = (proxy.tcp("t").port(), authority.ca().display().to_string());
    for name in names {
        let (resolve, url) = (format!("{name}:{port}:127.0.0.1"), format!("https://{name}:{port}/"));
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version: Vec<&str> = version.split('=').collect();
            let mut args = vec!["-sf", "--cacert", &ca, "--resolve", &resolve, &url];
            args.extend(version);
            assert_eq!(call("curl", &args).success().stdout, format!("{name} {name}"));
        }
        let script = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect 127.0.0.1:{port} -servername {name} \
             -verify_return_error -CAfile {ca}"
        );
        let answer = call("sh", &["-c", &script]).stdout;
        assert!(answer.ends_with(&format!("{name} {name}")), "{answer:?}");
    }
    let script = format!("openssl s_client -connect 127.0.0.1:{port} -servername a.other </dev/null 2>&1");
    let refused = call("sh", &["-c", &script]).stdout;
    assert!(refused.contains("unrecognized name"), "{refused}");
}
