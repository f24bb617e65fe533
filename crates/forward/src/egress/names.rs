//! Names, and what is said of each: a lookup costs one probe for each dot of the name, however many names are known.

use std::collections::HashMap;

use super::rule::Domain;
use super::sets::{Collected, NONE, SetId, Sets};

/// A table of names. What is said of them are numbers, whose meaning is the caller's.
#[derive(Debug)]
pub(super) struct Names {
    slots: HashMap<Box<str>, Slot>,
    /// What is said of all.
    all: SetId,
    /// Globs by the name they are under; the first ones are under none.
    globs: Box<[Globs]>,
    /// How many labels the longest name has in `slots`, so that those of a stranger's choice cost no more.
    labels: usize,
    sets: Sets,
}

/// What is said of one name.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    exactly: SetId,
    below: SetId,
    /// Index in `globs`; 0 for none.
    globs: u32,
}

/// What is said of one name, as it is collected.
#[derive(Debug, Default)]
struct Draft {
    exactly: Vec<u32>,
    below: Vec<u32>,
    globs: Vec<(Box<str>, u32)>,
}

impl Names {
    /// The table of these.
    pub(super) fn new(said: impl IntoIterator<Item = (Domain, u32)>) -> Names {
        let mut drafts: HashMap<Box<str>, Draft> = HashMap::new();
        for (domain, item) in said {
            match domain {
                Domain::Exactly(name) => drafts.entry(name).or_default().exactly.push(item),
                Domain::Below(name) => drafts.entry(name).or_default().below.push(item),
                Domain::Within(name) => {
                    let draft = drafts.entry(name).or_default();
                    draft.exactly.push(item);
                    draft.below.push(item);
                }
                Domain::Glob { head, under } => drafts.entry(under).or_default().globs.push((head, item)),
            }
        }
        let mut sets = Collected::default();
        let under_none = drafts.remove("").unwrap_or_default();
        let all = sets.id(under_none.below);
        let mut globs = vec![Globs::new(under_none.globs, &mut sets)];
        let mut slots = HashMap::with_capacity(drafts.len());
        let mut labels = 0;
        for (name, draft) in drafts {
            labels = labels.max(1 + name.matches('.').count());
            let mut slot = Slot { exactly: sets.id(draft.exactly), below: sets.id(draft.below), globs: 0 };
            if !draft.globs.is_empty() {
                slot.globs = u32::try_from(globs.len()).unwrap_or(0);
                globs.push(Globs::new(draft.globs, &mut sets));
            }
            slots.insert(name, slot);
        }
        Names { slots, all, globs: globs.into(), labels, sets: sets.finish() }
    }

    /// Shows all that is said of a name.
    pub(super) fn find(&self, name: &str, mut see: impl FnMut(&[u32])) {
        if self.all != NONE {
            see(self.sets.get(self.all));
        }
        self.globs[0].find(name, |set| see(self.sets.get(set)));
        if self.slots.is_empty() {
            return;
        }
        let mut end = name.len();
        for _ in 0..self.labels {
            let dot = name[..end].rfind('.');
            let start = dot.map_or(0, |dot| dot + 1);
            if let Some(slot) = self.slots.get(&name[start..]) {
                self.see(slot, dot.map(|dot| &name[..dot]), &mut see);
            }
            match dot {
                Some(dot) => end = dot,
                None => return,
            }
        }
    }

    /// Shows what is said of a name that has `head` before that of the slot.
    fn see(&self, slot: &Slot, head: Option<&str>, see: &mut impl FnMut(&[u32])) {
        let Some(head) = head else { return see(self.sets.get(slot.exactly)) };
        if slot.below != NONE {
            see(self.sets.get(slot.below));
        }
        if slot.globs != 0 {
            self.globs[slot.globs as usize].find(head, |set| see(self.sets.get(set)));
        }
    }
}

/// Globs that are under the same name, sorted by what they begin with.
#[derive(Debug, Default)]
struct Globs(Box<[Glob]>);

#[derive(Debug)]
struct Glob {
    text: Box<str>,
    /// Where the first `*` is.
    star: u8,
    /// The last one before this that begins with a part of what this begins with, plus 1; 0 for none.
    wider: u32,
    set: SetId,
}

impl Glob {
    fn start(&self) -> &str {
        &self.text[..usize::from(self.star)]
    }
}

impl Globs {
    fn new(said: Vec<(Box<str>, u32)>, sets: &mut Collected) -> Globs {
        let mut items: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (text, item) in said {
            items.entry(text).or_default().push(item);
        }
        let globs = items.into_iter().map(|(text, items)| {
            // A name has no more than 253 bytes.
            let star = text.find('*').and_then(|star| u8::try_from(star).ok()).unwrap_or(0);
            Glob { text, star, wider: 0, set: sets.id(items) }
        });
        let mut globs: Vec<Glob> = globs.collect();
        globs.sort_unstable_by(|a, b| a.start().cmp(b.start()));
        for index in 1..globs.len() {
            let mut wider = index;
            while wider != 0 && !globs[index].start().starts_with(globs[wider - 1].start()) {
                wider = globs[wider - 1].wider as usize;
            }
            globs[index].wider = u32::try_from(wider).unwrap_or(0);
        }
        Globs(globs.into())
    }

    /// Shows those that a text fits: what it begins with finds them, so that others cost nothing.
    fn find(&self, text: &str, mut see: impl FnMut(SetId)) {
        // Whatever begins with a part of the text stands before it, and the last that does leads to the others.
        let mut at = self.0.partition_point(|glob| glob.start() <= text);
        while let Some(glob) = at.checked_sub(1).map(|index| &self.0[index]) {
            if text.starts_with(glob.start()) && fits(glob.text.as_bytes(), text.as_bytes()) {
                see(glob.set);
            }
            at = glob.wider as usize;
        }
    }
}

/// Whether a text fits a glob, in which a `*` stands for anything but a dot.
pub(super) fn fits(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    // Behind the last star, and what it has taken so far: only that one is ever stretched.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (glob.get(g), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                g += 1;
                star = Some((g, t));
            }
            (Some(a), Some(b)) if a == b => {
                // No star reaches over a dot, so that what is before it is settled.
                if *a == b'.' {
                    star = None;
                }
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((behind, taken)) if text.get(taken).is_some_and(|byte| *byte != b'.') => {
                    star = Some((behind, taken + 1));
                    (g, t) = (behind, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rule::tests::{fits_by_labels, fits_plainly};
    use super::*;

    fn found(names: &Names, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        names.find(name, |items| found.extend_from_slice(items));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The same, one after the other.
    fn plainly(domains: &[Domain], name: &str) -> Vec<u32> {
        (0..).zip(domains).filter(|(_, domain)| fits_plainly(domain, name)).map(|(item, _)| item).collect()
    }

    #[test]
    fn globs_stay_inside_a_label() {
        for (glob, text, expected) in [
            ("api-*", "api-1", true),
            ("api-*", "api-", true),
            ("api-*", "api", false),
            ("api-*", "api-1.b", false),
            ("*", "", true),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("a*.b*", "ax.bx", true),
            ("a*.b*", "a.b.b", false),
            ("*ab", "aab", true),
            ("a*ab.c", "aab.c", true),
        ] {
            assert_eq!(fits(glob.as_bytes(), text.as_bytes()), expected, "{glob} {text}");
            assert_eq!(fits_by_labels(glob, text), expected, "{glob} {text}");
        }
    }

    fn label() -> impl Strategy<Value = String> {
        "[ab]{1,3}"
    }

    fn domain() -> impl Strategy<Value = Domain> {
        let name = proptest::collection::vec(label(), 1..4).prop_map(|labels| labels.join("."));
        let glob = ("[ab.]{0,3}", "[ab*.]{0,3}").prop_map(|(start, end)| format!("{start}*{end}"));
        (name, glob, 0..6).prop_map(|(name, glob, kind)| match kind {
            0 => Domain::Exactly(name.into()),
            1 => Domain::Below(name.into()),
            2 => Domain::Within(name.into()),
            5 => Domain::Below("".into()),
            // As the parser cuts them: the head ends with the last label that has a star.
            3 => format!("{}*.{name}", glob.replace(['.', '*'], ""))
                .parse()
                .unwrap_or(Domain::Exactly(name.into())),
            _ => glob.parse().unwrap_or(Domain::Exactly(name.into())),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn the_table_finds_what_the_list_does(
            domains in proptest::collection::vec(domain(), 0..40),
            names in proptest::collection::vec(proptest::collection::vec(label(), 1..5), 1..20),
        ) {
            let table = Names::new(domains.iter().cloned().zip(0..));
            for name in names {
                let name = name.join(".");
                prop_assert_eq!(found(&table, &name), plainly(&domains, &name), "{}", name);
            }
        }
    }
}
