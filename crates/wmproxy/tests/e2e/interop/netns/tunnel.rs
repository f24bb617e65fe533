//! A tunnel's client behind a NAT that lets nobody in.
//!
//! ```text
//! home 10.77.1.50 ── 10.77.1.1 NAT 10.77.2.1 ── 10.77.2.80 public server, and its visitors
//! ```

use std::time::Duration;

use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Addr, Backend, Conn, Proxy, UdpBackend, UdpClient};

use super::super::tunnel::{CARRIERS, client, end, server, service, settle};
use super::network::{Machine, Network};
use super::{addr, asked};

/// The network, whose machine in the middle is a NAT; none where the kernel has no NAT.
fn behind_nat() -> Option<Network> {
    let network = Network::new();
    let Network { proxy, server, .. } = &network;
    let probe = proxy.call("nft add table ip probe");
    if probe.code != Some(0) {
        eprintln!("this kernel makes no NAT: {}", probe.text());
        return None;
    }
    proxy.call("sysctl -q -w net.ipv4.ip_forward=1").success();
    for rule in [
        "add table ip nat",
        "add chain ip nat out { type nat hook postrouting priority 100 ; }",
        "add rule ip nat out oifname servers masquerade",
        "add table ip wall",
        "add chain ip wall through { type filter hook forward priority 0 ; }",
        "add rule ip wall through ct state established,related accept",
        "add rule ip wall through iifname servers drop",
    ] {
        proxy.call(&format!("nft {rule}")).success();
    }
    // Even one that knows the way does not come in.
    assert!(server.on(|| Conn::try_connect(&addr("10.77.1.50:22")).is_err()));
    Some(network)
}

/// Has a client behind the NAT offer an echo over each carrier, with these lines in its table, and sees that it is reached before
/// and after the network has been disturbed: by `disturb`, which is told the carrier and has the client's end.
fn outlives(more: &str, disturb: impl Fn(&Network, &str, &Proxy)) {
    if !asked() {
        return;
    }
    for carrier in CARRIERS {
        let Some(network) = behind_nat() else { return };
        let Network { client: home, server: public, .. } = &network;
        let (echo, datagrams) = home.on(|| {
            (Backend::echo_at(&addr("127.0.0.1:7")), UdpBackend::echo_at("127.0.0.1:7".parse().unwrap()))
        });
        let serving = public.on(|| end(&server(":7000", "transports = [\"tcp\", \"quic\"]")));
        let services = service("echo", "tcp", echo.addr(), 20007)
            + &service("datagrams", "udp", datagrams.addr(), 20007);
        let served = home.on(|| end(&client("10.77.2.80:7000", format!("{more}\n{carrier}"), services)));
        reached(public, "10.77.2.80:20007", carrier);
        serving.expect_warn("tunnel");
        served.expect_warn("tunnel");
        disturb(&network, carrier, &served);
        reached(public, "10.77.2.80:20007", carrier);
        settle(&served);
    }
}

/// A machine's own address, on which the NAT has put another one, is not what visitors are seen with: theirs is.
#[test]
fn a_client_behind_a_nat_is_reached_from_outside() {
    outlives("heartbeat = \"1s\"", |network, _, _| {
        // The NAT forgets all that it knows, as one that starts anew: what ran is lost, and the client comes back.
        network.proxy.ip("address flush dev servers");
        network.proxy.ip("address add 10.77.2.2/24 dev servers");
    });
}

/// What goes from an address that is gone is never answered: the client sees that, and waits for no answer.
#[test]
fn a_client_whose_address_changes_comes_back_from_the_new_one() {
    outlives("", |Network { client: home, .. }, carrier, served| {
        home.ip("address del 10.77.1.50/24 dev wire");
        home.ip("address add 10.77.1.51/24 dev wire");
        home.ip("route add default via 10.77.1.1");
        if !carrier.contains("quic") {
            served.log().wait("this machine has no longer the address");
        }
    });
}

/// Whether the client's services answer visitors from the public side in time.
fn reached(from: &Machine, at: &str, carrier: &str) {
    let serves = || {
        from.on(|| {
            let Ok(conn) = Conn::try_connect(&addr(at)) else { return false };
            conn.patience(Duration::from_secs(1));
            let mut answer = [0; 5];
            conn.try_send(b"hello").is_ok()
                && std::io::Read::read_exact(&mut conn.socket(), &mut answer).is_ok()
                && answer == *b"hello"
        })
    };
    assert!(holds_within(Duration::from_secs(20), serves), "{carrier}: no echo");
    let to = match addr(at) {
        Addr::Inet(to) => to,
        Addr::Unix(_) => unreachable!(),
    };
    let visitor = from.on(|| UdpClient::connect(to));
    visitor.socket().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let echoes = || {
        visitor.send(&[9; 3000]);
        visitor.try_recv().is_ok_and(|echo| echo == [9; 3000])
    };
    assert!(holds_within(Duration::from_secs(20), echoes), "{carrier}: no datagram comes back");
}
