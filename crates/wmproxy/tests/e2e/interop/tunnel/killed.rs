//! Ends that die under load and come back, and a soak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Backend, Proxy, Rng, TempDir, UdpBackend, UdpClient, eventually};

use super::super::asked;
use super::{CARRIERS, await_echo, client, echoes, end, server, service, settle, visitors};
use crate::setup;

/// How soon services are back when a dead end is there again.
const BACK: Duration = Duration::from_secs(2);

/// The same for the few times that the machine is busy with something else. Who waits for a timeout of the network's or a long
/// pause takes longer than that.
const BACK_AT_LAST: Duration = Duration::from_secs(10);

/// Visitors that come and go until they are told to stop, and may find nobody.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(ports: &[u16]) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = ports.iter().flat_map(|&port| [port; 4]).map(|port| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match echoes(port) {
                        true => served.fetch_add(1, Ordering::Relaxed),
                        false => {
                            thread::sleep(Duration::from_millis(5));
                            0
                        }
                    };
                }
            })
        });
        Load { threads: threads.collect(), stop, served }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Starts an end that may tell of others that died, and is the same as the one before it.
fn forgiving(config: &str, state: &TempDir) -> Proxy {
    let proxy = setup(config).env("STATE_DIRECTORY", &state.path().display().to_string()).start();
    proxy.expect_warn("tunnel");
    proxy
}

#[test]
fn either_end_may_die_ten_times_under_load() {
    if !asked() {
        return;
    }
    let backend = Backend::echo();
    for carrier in CARRIERS {
        let (control, ports) = (free_port(), [free_port(), free_port()]);
        let at = format!("127.0.0.1:{control}");
        let server = server(&at, "transports = [\"tcp\", \"quic\"]");
        let services = service("one", "tcp", backend.addr(), ports[0])
            + &service("two", "tcp", backend.addr(), ports[1]);
        let client = client(&at, carrier, services);
        let state = TempDir::new();
        let mut ends = [forgiving(&server, &state), forgiving(&client, &state)];
        let configs = [server, client];
        await_echo(&ports, Duration::from_secs(10));
        let load = Load::start(&ports);
        let mut late = Vec::new();
        for round in 0..10 {
            let which = round % 2;
            let before = load.served();
            eventually("visitors are served", || load.served() > before + 20);
            ends[which].signal(Signal::KILL);
            ends[which].wait();
            ends[which] = forgiving(&configs[which], &state);
            let back = Instant::now();
            await_echo(&ports, BACK_AT_LAST);
            late.extend(Some((round, back.elapsed())).filter(|(_, took)| *took > BACK));
        }
        load.end();
        assert!(late.len() <= 3, "{carrier}: rounds, and when services were back: {late:?}");
        // Whoever was cut off is gone at the other ends, too.
        backend.wait_idle();
        let [server, client] = ends;
        settle(&client);
        eventually("no visitor is left", || visitors(&server) == 0);
        drop(client);
        drop(server);
    }
}

/// Ten minutes with WMPROXY_LONG=1, for a day of visitors: each comes, says something and goes. Memory stays where it was
/// when everything had happened once.
fn memory_stays_flat(carrier: &str) {
    if !asked() {
        return;
    }
    let length = match std::env::var_os("WMPROXY_LONG") {
        Some(_) => Duration::from_secs(600),
        None => Duration::from_secs(12),
    };
    let (backend, datagrams) = (Backend::echo(), UdpBackend::echo());
    let (control, port, udp) = (free_port(), free_port(), free_port());
    let at = format!("127.0.0.1:{control}");
    let services =
        service("tcp", "tcp", backend.addr(), port) + &service("udp", "udp", datagrams.addr(), udp);
    let public = end(&server(&at, "transports = [\"tcp\", \"quic\"]"));
    let home = end(&client(&at, carrier, services));
    await_echo(&[port], Duration::from_secs(10));
    settle(&home);
    let load = Load::start(&[port]);
    let mut rng = Rng::new(7);
    let mut talk = |until: Instant| {
        while Instant::now() < until {
            let visitor = UdpClient::connect(([127, 0, 0, 1], udp).into());
            let bytes = vec![7; 1 + rng.up_to(1400)];
            visitor.send(&bytes);
            let _ = visitor.try_recv();
            thread::sleep(Duration::from_millis(5));
        }
    };
    let memory = || public.memory_kb() + home.memory_kb();
    let began = Instant::now();
    talk(began + length / 3);
    let before = memory();
    talk(began + length);
    let (after, served) = (memory(), load.served());
    load.end();
    settle(&home);
    eprintln!("{carrier}: {served} visitors, {before} KB, then {after} KB");
    assert!(served > 100, "{carrier}: {served} visitors");
    assert!(after < before + before / 4 + 4096, "{carrier}: {before} KB grew to {after} KB");
    for end in [&public, &home] {
        eventually("no visitor is left", || visitors(end) == 0);
    }
}

// One test each, so that they run at the same time.

#[test]
fn memory_stays_flat_for_many_visitors_over_tcp() {
    memory_stays_flat(CARRIERS[0]);
}

#[test]
fn memory_stays_flat_for_many_visitors_over_mux() {
    memory_stays_flat(CARRIERS[1]);
}

#[test]
fn memory_stays_flat_for_many_visitors_over_quic() {
    memory_stays_flat(CARRIERS[2]);
}
