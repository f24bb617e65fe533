//! Datagrams through a chain of SOCKS proxies: an association of our own with each. They go there as they came, header and
//! all, so that names are resolved by the last on the way.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::Direction;
use wmproxy_net::record::UdpDrop;
use wmproxy_net::udp::{Batch, Train, UdpSocket};
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_runtime::scope::Leash;

use super::held::Shelf;
use super::session::{SCOPE, Session};
use crate::chain::Chain;
use crate::chain::associate::Association;

/// How many chains one association may use.
const MAX_LINKS: usize = 8;

/// How soon after it was begun a way that has failed is tried again. Datagrams for it are dropped meanwhile.
const RETRY: Duration = Duration::from_secs(5);

/// The way through a chain.
#[derive(Debug)]
pub(super) struct Link {
    chain: Arc<Chain>,
    open: OnceCell<Open>,
    /// What waits for that.
    shelf: RefCell<Shelf>,
    /// When it was begun.
    begun: Ticks,
    has_failed: Cell<bool>,
    leash: RefCell<Option<Leash>>,
}

/// A way that is open.
#[derive(Debug)]
struct Open {
    parent: Association,
    /// Connected to where the first proxy takes datagrams.
    socket: UdpSocket,
}

impl Link {
    /// Ends its task, with the association at the proxies.
    pub(super) fn end(&self) {
        self.leash.take();
    }
}

impl Session {
    /// The number of the link through a chain, which is made if there is none.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn link_through(self: &Rc<Self>, chain: &Arc<Chain>) -> Result<usize, ConnectError> {
        let at = self.links.borrow().iter().position(|link| Arc::ptr_eq(&link.chain, chain));
        match at {
            Some(at) => Ok(at),
            None if self.links.borrow().len() >= MAX_LINKS => {
                Err(ConnectError::new(Fault::Limited, "the association uses as many chains as it may"))
            }
            None => {
                let link = self.open_link(chain.clone());
                let mut links = self.links.borrow_mut();
                links.push(link);
                Ok(links.len() - 1)
            }
        }
    }

    /// A link to send by, made anew if it failed a while ago.
    pub(super) fn link(self: &Rc<Self>, number: usize) -> Option<Rc<Link>> {
        let link = self.links.borrow().get(number).cloned()?;
        if !link.has_failed.get() {
            return Some(link);
        }
        if clock::now().since(link.begun) < RETRY {
            return None;
        }
        let link = self.open_link(link.chain.clone());
        self.links.borrow_mut()[number] = link.clone();
        Some(link)
    }

    fn open_link(self: &Rc<Self>, chain: Arc<Chain>) -> Rc<Link> {
        let link = Rc::new(Link {
            chain,
            open: OnceCell::new(),
            shelf: RefCell::default(),
            begun: clock::now(),
            has_failed: Cell::new(false),
            leash: RefCell::default(),
        });
        let task = self.clone().work(link.clone());
        link.leash.replace(Some(SCOPE.with(|scope| scope.spawn_leashed(task))));
        link
    }

    /// The task of a link.
    async fn work(self: Rc<Self>, link: Rc<Link>) {
        let Err(error) = self.pass_on(&link).await;
        let (listener, chain) = (&self.metrics().name, link.chain.name());
        if error.fault == Fault::Unsupported {
            // Nobody but who wrote the config can do something about it.
            tracing::warn!(%listener, %chain, %error, "this chain carries no datagrams of SOCKS");
        } else {
            tracing::info!(%listener, %chain, %error, "no datagrams of SOCKS through this chain any more");
        }
        link.has_failed.set(true);
        let shelf = link.shelf.take();
        self.count_drop(UdpDrop::NoFlow, shelf.datagrams().len());
    }

    async fn pass_on(&self, link: &Link) -> Result<std::convert::Infallible, ConnectError> {
        let parent = link.chain.associate().await?;
        let socket = UdpSocket::connect(parent.relay(), &self.terms.allowance.socket, Some(self.client()))?;
        let Open { parent, socket } = link.open.get_or_init(|| Open { parent, socket });
        let shelf = link.shelf.take();
        self.guarded(|| {
            let all: Vec<&[u8]> = shelf.datagrams().iter().map(|datagram| &**datagram).collect();
            self.forward_to(link, &all, 0);
        });
        drop(shelf);
        let ended = parent.ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                () = &mut ended => {
                    return Err(ConnectError::new(Fault::Reset, "a proxy has ended the association"));
                }
                received = socket.receive(|batch: Batch<'_>| self.guarded(|| self.pass_through(batch, parent))) => received?,
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Sends datagrams with their headers, of so many bytes each, to a parent; or lets them wait for it.
    pub(super) fn forward_to(&self, link: &Link, datagrams: &[&[u8]], header: usize) {
        let Some(Open { parent, socket }) = link.open.get() else {
            let mut shelf = link.shelf.borrow_mut();
            let dropped = datagrams.iter().filter(|datagram| !shelf.push(datagram)).count();
            return self.count_drop(UdpDrop::NoFlow, dropped);
        };
        let metrics = self.metrics();
        let train = Train::to_peer(socket, &metrics.blocks.local().udp_batch_to_peer);
        let mut train = train.headed(parent.outer());
        datagrams.iter().for_each(|datagram| train.push(datagram, 0));
        let sent = train.finish();
        self.settle(Direction::Up, &sent, datagrams.len(), header * sent.datagrams);
    }
}
