//! Strangers who want too much: what they get is bounded, and others get what they need.

use std::time::Duration;

use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Backend, Conn, UdpBackend, UdpClient};

use super::{CARRIERS, Server, client_config, service, tcp};
use crate::setup;

#[test]
fn flows_leave_descriptors_for_the_other_services_of_a_client() {
    let (backend, datagrams) = (Backend::echo(), UdpBackend::echo());
    for carrier in CARRIERS {
        let (server, echo, dns) = (Server::start(), free_port(), free_port());
        let services = tcp("echo", backend.addr(), echo, "")
            + &service(
                "dns",
                "udp",
                format!("local = \"{}\"\nport = {dns}\nidle_timeout = \"1s\"", datagrams.addr()),
            );
        let setup = setup(&client_config("home", server.port, carrier, services));
        let state = setup.dir().join("state").display().to_string();
        let client = setup.env("STATE_DIRECTORY", &state).nofile(512).start();
        eventually("all services are offered", || client.log().count("a service is offered") == 2);
        let crowd: Vec<_> = (0..400).map(|_| UdpClient::connect(([127, 0, 0, 1], dns).into())).collect();
        crowd.iter().for_each(|visitor| visitor.send(b"?"));
        let last = &crowd[399];
        last.socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // What it has said may have been dropped on the way, as datagrams are.
        eventually("an answer to the last one", || {
            last.send(b"?");
            last.try_recv().is_ok()
        });
        for _ in 0..20 {
            Conn::connect(&Addr::local(echo)).echo(b"unharmed by the crowd");
        }
        assert!(client.fds().sockets < 330, "{carrier}: {:?}", client.fds());
        super::settle(&client);
        client.finish();
    }
}
