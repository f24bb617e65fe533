//! Services without a public place, which other clients visit.

use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, UdpBackend, UdpClient};

use super::{CARRIERS, Server, client_config, end, service, settle};

/// A visitor of a private service of `home`, at a port of this machine.
fn visitor(name: &str, kind: &str, port: u16, secret: &str) -> String {
    format!(
        "[[tunnel_client.visitor]]\nservice = \"home/{name}\"\ntype = \"{kind}\"\nsecret = \"{secret}\"\n\
         listen = \"127.0.0.1:{port}\"\nidle_timeout = \"1s\"\n"
    )
}

const SECRET: &str = "what only both of them know";

#[test]
fn a_private_service_is_reached_by_who_knows_its_secret() {
    for (owner, guest) in CARRIERS.into_iter().zip(CARRIERS.into_iter().rev()) {
        let (server, backend, udp) = (Server::start(), Backend::echo(), UdpBackend::echo());
        let private = |name, kind, local: String| {
            service(name, kind, format!("local = \"{local}\"\nsecret = \"{SECRET}\"\nidle_timeout = \"1s\""))
        };
        let services =
            private("db", "tcp", backend.addr().to_string()) + &private("dns", "udp", udp.addr().to_string());
        let home = server.home(owner, services);
        let [good, bad, none, datagrams] = [(); 4].map(|()| free_port());
        let visitors = [
            visitor("db", "tcp", good, SECRET),
            visitor("db", "tcp", bad, "what somebody else believes"),
            visitor("none", "tcp", none, SECRET),
            visitor("dns", "udp", datagrams, SECRET),
        ];
        let work = end(&client_config("work", server.port, guest, visitors.concat()));
        work.log().wait("a session with the tunnel server stands");
        settle(&work);
        for n in 0..3 {
            Conn::connect(&Addr::local(good)).echo(format!("hello {n}").as_bytes());
        }
        let client = UdpClient::connect(([127, 0, 0, 1], datagrams).into());
        let mut buffer = vec![0; 65_536];
        client.socket().send(&[7; 20_000]).unwrap();
        assert_eq!(client.socket().recv(&mut buffer).unwrap(), 20_000);
        // What carries them stays for those to come.
        [&home, &work].into_iter().for_each(settle);
        [&home, &work, &server.proxy].into_iter().for_each(|end| end.expect_warn(""));
        for port in [bad, none] {
            Conn::connect(&Addr::local(port)).expect_reset();
        }
        for why in ["visits fail: the secret is wrong", "visits fail: there is no such service"] {
            work.log().wait(why);
        }
        assert_eq!(backend.accepted(), 3, "who does not know the secret gets nowhere");
        work.finish();
        home.finish();
    }
}
