//! Lists of numbers, each kept once: what many names or networks have in common takes no room of its own.

use std::collections::HashMap;

/// The lists; the first one is empty.
#[derive(Debug)]
pub(super) struct Sets(Box<[Box<[u32]>]>);

/// Which list.
pub(super) type SetId = u32;

/// The empty list.
pub(super) const NONE: SetId = 0;

/// Lists as they are collected.
#[derive(Debug)]
pub(super) struct Collected {
    ids: HashMap<Box<[u32]>, SetId>,
}

impl Default for Collected {
    fn default() -> Self {
        Collected { ids: HashMap::from([(Box::default(), NONE)]) }
    }
}

impl Collected {
    /// The number of a list; order and repetition say nothing.
    pub(super) fn id(&mut self, mut items: Vec<u32>) -> SetId {
        items.sort_unstable();
        items.dedup();
        // There are no more lists than items of a config.
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        *self.ids.entry(items.into()).or_insert(next)
    }

    pub(super) fn finish(self) -> Sets {
        let mut lists: Vec<_> = self.ids.into_iter().collect();
        lists.sort_unstable_by_key(|(_, id)| *id);
        Sets(lists.into_iter().map(|(list, _)| list).collect())
    }
}

impl Sets {
    /// A list, in order.
    pub(super) fn get(&self, id: SetId) -> &[u32] {
        &self.0[id as usize]
    }
}
