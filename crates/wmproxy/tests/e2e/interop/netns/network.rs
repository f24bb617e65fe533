//! Machines in network namespaces of their own, and the cables between them.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use wmproxy_testkit::Proxy;
use wmproxy_testkit::exec::Finished;

use super::super::call;
use crate::start;

/// One machine of the network.
pub(super) struct Machine(pub(super) String);

impl Machine {
    pub(super) fn new(name: &str) -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let machine = Machine(format!("wmp-{}-{number}-{name}", std::process::id()));
        call("ip", &["netns", "add", &machine.0]).success();
        machine.ip("link set lo up");
        machine
    }

    /// `ip` with these words.
    pub(super) fn ip(&self, words: &str) {
        let words: Vec<&str> = ["-n", &self.0].into_iter().chain(words.split(' ')).collect();
        call("ip", &words).success();
    }

    /// A program of the system.
    pub(super) fn call(&self, words: &str) -> Finished {
        let words: Vec<&str> = ["netns", "exec", &self.0].into_iter().chain(words.split(' ')).collect();
        call("ip", &words)
    }

    /// Does something there. Sockets that are opened and programs that are started meanwhile belong there; it is the
    /// calling thread that goes, for a proxy ends with the thread that started it.
    pub(super) fn on<T>(&self, act: impl FnOnce() -> T) -> T {
        let _back = Back(std::fs::File::open("/proc/thread-self/ns/net").unwrap());
        let there = std::fs::File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        act()
    }
}

/// Where a thread came from, and goes back to.
struct Back(std::fs::File);

impl Drop for Back {
    fn drop(&mut self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        call("ip", &["netns", "del", &self.0]);
    }
}

/// The three machines, the proxy's with both of its cables.
pub(super) struct Network {
    pub(super) client: Machine,
    pub(super) proxy: Machine,
    pub(super) server: Machine,
}

impl Network {
    pub(super) fn new() -> Network {
        let network =
            Network { client: Machine::new("c"), proxy: Machine::new("p"), server: Machine::new("s") };
        let Network { client, proxy, server } = &network;
        for (far, name, net, host) in [(client, "clients", 1, 50), (server, "servers", 2, 80)] {
            proxy.ip(&format!("link add {name} type veth peer name wire netns {}", far.0));
            for (machine, device, host, net6) in [(proxy, name, 1, 1), (far, "wire", host, host)] {
                machine.ip(&format!("address add 10.77.{net}.{host}/24 dev {device}"));
                machine.ip(&format!("address add fd77:{net}::{net6}/64 dev {device} nodad"));
                machine.ip(&format!("link set {device} up"));
            }
            far.ip(&format!("route add default via 10.77.{net}.1"));
            far.ip(&format!("-6 route add default via fd77:{net}::1"));
        }
        network
    }

    /// Has the proxy's machine take for its own whatever comes in by `device`: the route back of a client's address, and
    /// the way in for what was meant for others.
    pub(super) fn deliver_all_from(&self, device: &str) {
        for (family, all) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
            self.proxy.ip(&format!("{family} rule add iif {device} lookup 100"));
            self.proxy.ip(&format!("{family} route replace local {all} dev lo table 100"));
        }
    }

    pub(super) fn proxy(&self, config: &str) -> Proxy {
        self.proxy.on(|| start(config))
    }

    pub(super) fn server<T: Send>(&self, start: impl FnOnce() -> T + Send) -> T {
        self.server.on(start)
    }
}
