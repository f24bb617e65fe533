//! Chromium behind the forward proxy: told by hand, by our PAC file, and over SOCKS; with names that only the proxy can
//! resolve, and with a WebSocket.

use serde_json::json;
use wmproxy_testkit::http::{Origin, Reply};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Proxy, TempDir};

use super::asked;
use super::chromium::Page;
use super::dns::start_dnsmasq;
use crate::forward::forward;
use crate::websocket::echo_server;
use crate::{ACCESS_LOG, start};

#[test]
fn chromium_goes_by_pac_by_hand_and_by_socks() {
    if !asked() {
        return;
    }
    let (dir, dns) = (TempDir::new(), free_port());
    let hosts = dir.write("hosts", "127.0.0.1 a.test\n127.0.0.1 site.test\n");
    let _dnsmasq = start_dnsmasq(dir.path(), dns, &hosts);
    let origin = Origin::start(|call| {
        let body = match call.head.target() {
            "/answer" => "the answer",
            _ => "<!doctype html><title>a site</title>",
        };
        call.reply(&Reply::with(200, "Content-Type: text/html\r\n", body))
    });
    let sockets = echo_server();
    let resolver = format!("[resolver]\nservers = [\"127.0.0.1:{dns}\"]\n");
    let proxy = start(&format!("{resolver}{ACCESS_LOG}{}", forward("pac = true")));
    let at = proxy.tcp("f");
    for (way, kind) in [
        (format!("--proxy-pac-url=http://{at}/proxy.pac"), "http"),
        (format!("--proxy-server=http://{at}"), "http"),
        (format!("--proxy-server=socks5://{at}"), "socks5"),
    ] {
        let before = proxy.access_log(0).len();
        let (site, port) = (format!("http://site.test:{}/", origin.addr().port()), sockets.addr().port());
        let place = TempDir::new();
        let mut page = Page::open_with(&place, &[&way]);
        page.visit(&site);
        assert_eq!(page.eval("document.title"), "a site", "{way}");
        assert_eq!(page.eval("fetch('/answer').then(answer => answer.text())"), "the answer", "{way}");
        let talk = json!(format!("ws://site.test:{port}/"));
        let said = page.eval(&format!(
            "new Promise((done, failed) => {{ const socket = new WebSocket({talk}); socket.onerror = failed; \
             socket.onopen = () => socket.send('through'); socket.onmessage = event => done(event.data) }})"
        ));
        assert_eq!(said, "through", "{way}");
        drop(page);
        let tunnel = if kind == "http" { "connect" } else { kind };
        came(&proxy, before, kind, &format!("site.test:{}", origin.addr().port()));
        came(&proxy, before, tunnel, &format!("site.test:{port}"));
    }
}

/// Waits until the log has somebody of this kind who went there, behind so many lines.
fn came(proxy: &Proxy, before: usize, kind: &str, destination: &str) {
    wmproxy_testkit::eventually(&format!("{kind} to {destination}"), || {
        let log = proxy.access_log(0);
        log[before..].iter().any(|line| line["kind"] == kind && line["destination"] == destination)
    });
}
