//! iperf3: both ways, over TCP and UDP, through one port that serves both protocols.

use std::process::Command;

use serde_json::Value;
use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{TempDir, eventually};

use super::{asked, call, program};
use crate::start;

#[test]
fn iperf3_both_ways() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let (own, through) = (free_port(), free_port());
    let mut command = Command::new(program("iperf3"));
    command.args(["-s", "-B", "127.0.0.1", "-p", &own.to_string()]);
    let _service = Service::start(&mut command, &dir.join("iperf3.log"));
    // iperf3 takes one test at a time, and a mere connection is one: look for the listener instead of connecting.
    eventually("iperf3", || {
        let wanted = format!(":{own:04X} 00000000:0000 0A");
        std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&wanted)
    });
    let proxy = start(&format!(
        "[[stream]]\nname = \"iperf\"\nlisten = [\"tcp://127.0.0.1:{through}\", \"udp://127.0.0.1:{through}\"]\n\
         upstream = \"127.0.0.1:{own}\"\nidle_timeout = \"3s\"\n"
    ));
    let through = through.to_string();
    let test = |args: &[&str]| -> Value {
        let args: Vec<&str> =
            ["-c", "127.0.0.1", "-p", &through, "-t", "2", "-J"].iter().chain(args).copied().collect();
        let said = call("iperf3", &args).success().stdout;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    };
    for args in [&[][..], &["-R"], &["-P", "4"], &["-P", "4", "-R"]] {
        let said = test(args);
        let bytes = said["end"]["sum_received"]["bytes"].as_u64().unwrap();
        assert!(bytes > 10 << 20, "{args:?}: only {bytes} bytes in two seconds");
    }
    for args in [&["-u", "-b", "20M", "-l", "1200"][..], &["-u", "-b", "20M", "-l", "1200", "-R"]] {
        // Nothing retransmits here, and iperf3's own socket holds some ten milliseconds of it: whenever the machine
        // gives iperf3 no turn for longer, datagrams are lost behind us. A defect of ours loses them each time.
        let mut sums = Vec::new();
        let passes = (0..3).any(|_| {
            let sum = test(args)["end"]["sum"].clone();
            let is_good = sum["packets"].as_u64() > Some(2_000)
                && sum["lost_percent"].as_f64().is_some_and(|lost| lost < 2.0);
            sums.push(sum);
            is_good
        });
        assert!(passes, "{args:?}: {sums:#?}");
    }
    assert_eq!(proxy.metrics().sum("wmproxy_udp_dropped_total", &[]), 0.0);
    eventually("the flows to end", || proxy.active() == 0);
}
