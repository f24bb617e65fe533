//! Transfers by curl that are far larger than what the proxy may hold of them, by every version, with and without a
//! length, up and down.
//!
//! Ten gigabytes each where `WMPROXY_LONG` is set.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use wmproxy_testkit::{Authority, Origin, Pattern, Proxy};

use super::{asked, program};
use crate::http::bodies::patterned;
use crate::http::{http, route};
use crate::start;

const MIB: u64 = 1 << 20;
/// Enough to fill every buffer on the way many times over, and a few seconds for all of it.
const SHORT: u64 = 128 * MIB;
const LONG: u64 = 10 * 1024 * MIB;
/// What a transfer may add to the most memory that the proxy ever had: buffers, pools, and the windows of HTTP/2.
const GROWTH_KB: u64 = 24 * 1024;

/// curl with both ends of it in our hands.
fn curl(options: &[&str], url: &str) -> Child {
    let mut command = Command::new(program("curl"));
    command.args(["-sS", "--fail", "-H", "Expect:", "-o", "-"]).args(options).arg(url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn succeeded(mut curl: Child, what: &str) {
    assert!(curl.wait().unwrap().success(), "{what}");
}

/// Downloads a body, and compares each byte.
fn download(options: &[&str], base: &str, form: &str, length: u64) {
    let mut curl = curl(options, &format!("{base}/{form}/{length}"));
    drop(curl.stdin.take());
    let (mut from, pattern) = (curl.stdout.take().unwrap(), Pattern::new(3));
    let (mut got, mut buffer) = (0, vec![0; 262_144]);
    loop {
        let count = from.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        pattern.check(got, &buffer[..count]);
        got += count as u64;
    }
    assert_eq!(got, length, "{options:?} {form}");
    succeeded(curl, "the download");
}

/// Uploads one, which the origin compares.
fn upload(options: &[&str], base: &str, form: &str, length: u64) {
    let size = format!("Content-Length: {length}");
    // The second field takes away the one that curl would send where it can't see a length for itself.
    let known = ["-T", "-", "-H", &size, "-H", "Transfer-Encoding:"];
    let way = if form == "plain" { &known[..] } else { &known[..2] };
    let mut curl = curl(&[options, way].concat(), &format!("{base}/up"));
    let (mut to, pattern) = (curl.stdin.take().unwrap(), Pattern::new(3));
    let mut sent = 0;
    while sent < length {
        let part = pattern.slice(sent, 65_536.min((length - sent) as usize));
        to.write_all(part).unwrap_or_else(|error| panic!("{options:?} {form}: {error} after {sent} bytes"));
        sent += part.len() as u64;
    }
    drop(to);
    let mut said = String::new();
    curl.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, length.to_string(), "{options:?} {form}");
    succeeded(curl, "the upload");
}

/// The transfers of one version, and what they add to the most memory that the proxy ever had.
fn flat((proxy, origin): (&Proxy, &Origin), options: &[&str], base: &str, length: u64) {
    for form in ["plain", "chunked"] {
        for (way, transfer) in [("down", download as fn(&[&str], &str, &str, u64)), ("up", upload)] {
            transfer(options, base, form, 8 * MIB);
            let before = proxy.peak_rss_kb();
            transfer(options, base, form, length);
            let after = proxy.peak_rss_kb();
            let head = origin.requests().pop().unwrap().head;
            assert_eq!(head.has("content-length"), (way, form) == ("up", "plain"), "{head:?}");
            let what = format!(
                "{options:?} {form} {way}: at most {before} KiB before, {after} after {length} bytes"
            );
            eprintln!("{what}");
            assert!(after < before + GROWTH_KB, "{what}");
        }
    }
}

#[test]
fn long_transfers_take_no_memory() {
    if !asked() {
        return;
    }
    let length = if std::env::var_os("WMPROXY_LONG").is_some() { LONG } else { SHORT };
    let (origin, authority) = (patterned(), Authority::new());
    let tls = format!("tls = {}", authority.issue("web", &["127.0.0.1"]).toml());
    let endpoint = route(&format!("reverse_proxy = \"{}\"", origin.addr()));
    let secure = http(&tls, &endpoint).replace("name = \"h\"", "name = \"s\"");
    let proxy = start(&format!("{}{secure}", http("", &endpoint)));
    let (plain, secure) = (format!("http://{}", proxy.tcp("h")), format!("https://{}", proxy.tcp("s")));
    let ca = authority.ca().display().to_string();
    flat((&proxy, &origin), &["--http1.1"], &plain, length);
    flat((&proxy, &origin), &["--http1.1", "--cacert", &ca], &secure, length);
    flat((&proxy, &origin), &["--http2", "--cacert", &ca], &secure, length);
}
