//! The connections of a worker, so that a drain finds those that wait for a request.
//!
//! A connection is entered once in its life, with its task's waker, and costs nothing while it works. Whoever wakes them
//! all lets each see for itself whether its time has come.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct List {
    wakers: Vec<Option<Waker>>,
    /// Places that are free again.
    free: Vec<usize>,
}

thread_local! {
    static LIST: RefCell<List> = const { RefCell::new(List { wakers: Vec::new(), free: Vec::new() }) };
}

/// A connection's place in the list, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered(usize);

/// Enters the calling task.
pub(crate) async fn enter() -> Entered {
    poll_fn(|cx| {
        let waker = Some(cx.waker().clone());
        Poll::Ready(LIST.with_borrow_mut(|list| match list.free.pop() {
            Some(place) => {
                list.wakers[place] = waker;
                Entered(place)
            }
            None => {
                list.wakers.push(waker);
                Entered(list.wakers.len() - 1)
            }
        }))
    })
    .await
}

impl Drop for Entered {
    fn drop(&mut self) {
        // At the end of the thread the list may be gone first.
        let waker = LIST.try_with(|list| {
            let mut list = list.try_borrow_mut().ok()?;
            list.free.push(self.0);
            list.wakers[self.0].take()
        });
        // Outside of the borrow, for the last of a task's wakers may end more than itself.
        drop(waker);
    }
}

/// Wakes every connection of the calling worker.
pub(crate) fn wake_all() {
    LIST.with_borrow(|list| list.wakers.iter().flatten().for_each(Waker::wake_by_ref));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn who_is_entered_is_woken() {
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        let scope = wmproxy_runtime::scope::Scope::new();
        scope.spawn(async move {
            let _entered = enter().await;
            poll_fn(|_| {
                seen.set(seen.get() + 1);
                if seen.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        });
        for wanted in 1..=3 {
            tokio::task::yield_now().await;
            assert_eq!(polls.get(), wanted);
            wake_all();
        }
        scope.empty().await;
        assert_eq!(LIST.with_borrow(|list| (list.wakers.len(), list.free.len())), (1, 1));
    }
}
