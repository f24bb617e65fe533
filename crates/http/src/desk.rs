//! What a request needs while it is under way, used again by the next one of its worker.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use wmproxy_wire::head::{Request, Response};

use crate::exchange::Way;
use crate::facts::Facts;
use crate::h1::Wire;

/// Desks that a worker keeps: as many requests are mostly under way at once. Each holds some kilobytes of buffers.
const POOLED: usize = 64;

/// Heads of more than this give their memory back when their request is over.
const KEPT: usize = 16 * 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "a desk is large, and only lent")]
    static POOL: RefCell<Vec<Box<Papers>>> = const { RefCell::new(Vec::new()) };
}

/// The place of one request, from its first byte to its end. A connection that waits for a request has none.
#[derive(Debug)]
pub(crate) struct Desk(Option<Box<Papers>>);

/// What lies on a [`Desk`].
#[derive(Debug, Default)]
pub(crate) struct Papers {
    pub(crate) request: Request,
    pub(crate) response: Response,
    pub(crate) facts: Facts,
    /// The client's side, where that is HTTP/1.
    pub(crate) front: Wire,
    /// The peer's side, where that is HTTP/1.
    pub(crate) back: Wire,
    /// The request's body on its way.
    pub(crate) up: Way,
    /// The response's.
    pub(crate) down: Way,
}

impl Desk {
    /// Takes one.
    pub(crate) fn take() -> Desk {
        Desk(Some(POOL.with_borrow_mut(Vec::pop).unwrap_or_default()))
    }
}

impl Papers {
    /// Makes room for the next request of the same client. What it has sent ahead stays.
    pub(crate) fn clear(&mut self) {
        self.front.settle();
        self.back.reset();
        self.facts.peer = None;
        self.facts.route = None;
        self.facts.destination = None;
        self.facts.way = None;
        for fields in [&mut self.request.fields, &mut self.response.fields] {
            if fields.capacity() > KEPT {
                *fields = wmproxy_wire::head::Fields::new();
            }
        }
    }
}

impl Deref for Desk {
    type Target = Papers;

    fn deref(&self) -> &Papers {
        self.0.as_ref().expect("it is lent until it is dropped")
    }
}

impl DerefMut for Desk {
    fn deref_mut(&mut self) -> &mut Papers {
        self.0.as_mut().expect("it is lent until it is dropped")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let Some(mut papers) = self.0.take() else { return };
        papers.front.reset();
        papers.clear();
        // At the end of the thread the pool may be gone first.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < POOLED
            {
                pool.push(papers);
            }
        });
    }
}
