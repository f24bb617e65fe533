//! The one form that TOML, YAML and JSON are read into: values that know where they were written.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::nearest;
use super::secrets::clean_key;

/// How deep values may nest: far above what options need, far below what recursion could not bear.
pub(super) const MAX_DEPTH: usize = 64;

/// A place in one of the files that were read: a range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn new(file: usize, range: Range<usize>) -> Self {
        Span { file, start: range.start, end: range.end.max(range.start) }
    }
}

/// A file that was read, or a text that was given.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What problems call it.
    pub(super) name: String,
    /// What relative paths in it are relative to.
    pub(super) dir: PathBuf,
    pub(super) text: Arc<str>,
    /// Values of environment variables that no message may quote.
    pub(super) hidden: Vec<String>,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
    /// A problem was reported about it: from then on it counts as absent, but not as forgotten.
    pub(super) dropped: bool,
    /// A text made with an environment variable: it may stand for a number, which quotes forbid elsewhere.
    pub(super) expanded: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A key's value, and where the key was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Span,
    pub(super) node: Node,
}

/// One step into a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    /// The position among all elements, dropped ones too.
    Index(usize),
}

/// A way into a tree, printed as in `stream[0].listen`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    pub(super) fn key(&self, key: &str) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Path(steps)
    }

    pub(super) fn index(&self, index: usize) -> Path {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Path(steps)
    }

    /// The way to what holds this, and the last step.
    pub(super) fn split_last(&self) -> Option<(Path, &Step)> {
        self.0.split_last().map(|(last, rest)| (Path(rest.to_vec()), last))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let key = clean_key(key);
                    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    let dot = if at == 0 { "" } else { "." };
                    if plain { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// A finished tree, and where in its lists those elements are that were not dropped. Each list is looked through once:
/// once for each of its elements would take time with the square of its length.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub(super) root: &'a Node,
    /// By the address of a list's first element.
    alive: RefCell<HashMap<*const Node, Vec<usize>>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Node) -> Self {
        Tree { root, alive: RefCell::default() }
    }

    /// Turns positions among the elements that count into positions among all of them.
    pub(super) fn with_dropped(&self, path: &Path) -> Path {
        let mut full = Path::default();
        let mut node = Some(self.root);
        for step in &path.0 {
            let step = match (step, node.map(|node| &node.value)) {
                (Step::Index(index), Some(Value::List(list))) => Step::Index(self.position(list, *index)),
                _ => step.clone(),
            };
            node = node.and_then(|node| node.child(&step));
            full.0.push(step);
        }
        full
    }

    fn position(&self, list: &[Node], index: usize) -> usize {
        let mut lists = self.alive.borrow_mut();
        let alive = lists.entry(list.as_ptr()).or_insert_with(|| {
            list.iter().enumerate().filter(|(_, node)| !node.dropped).map(|(at, _)| at).collect()
        });
        alive.get(index).copied().unwrap_or(index)
    }
}

impl Node {
    pub(super) fn new(value: Value, span: Span) -> Self {
        Node { value, span, dropped: false, expanded: false }
    }

    pub(super) fn empty_table(file: usize) -> Self {
        Node::new(Value::Table(BTreeMap::new()), Span::new(file, 0..0))
    }

    /// The node at the end of `path`, dropped or not.
    pub(super) fn at(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| node.child(step))
    }

    fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get(key).map(|entry| &entry.node),
            (Value::List(list), Step::Index(index)) => list.get(*index),
            _ => None,
        }
    }

    pub(super) fn at_mut(&mut self, path: &Path) -> Option<&mut Node> {
        path.0.iter().try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get_mut(key).map(|entry| &mut entry.node),
            (Value::List(list), Step::Index(index)) => list.get_mut(*index),
            _ => None,
        })
    }

    /// The key that `path` ends in, where it was written.
    pub(super) fn key_span(&self, path: &Path) -> Option<Span> {
        let (parent, Step::Key(key)) = path.split_last()? else { return None };
        match &self.at(&parent)?.value {
            Value::Table(table) => table.get(key).map(|entry| entry.key),
            _ => None,
        }
    }

    /// Whether something in here was dropped, so that what is missing may be no fault of the writer's.
    pub(super) fn is_damaged(&self) -> bool {
        self.dropped
            || match &self.value {
                Value::List(list) => list.iter().any(Node::is_damaged),
                Value::Table(table) => table.values().any(|entry| entry.node.is_damaged()),
                _ => false,
            }
    }

    /// Whether `key` is in this table, perhaps mistyped, but was dropped: then it is not missing.
    pub(super) fn has_dropped(&self, key: &str) -> bool {
        let Value::Table(table) = &self.value else { return false };
        let mut dropped = table.iter().filter(|(_, entry)| entry.node.dropped);
        dropped.any(|(other, _)| nearest(other, [key]).is_some())
    }

    /// Where to point for this value. A table without a span of its own is shown by its first key.
    pub(super) fn place(&self) -> Span {
        match &self.value {
            Value::Table(table) if self.span.start == self.span.end => {
                table.values().map(|entry| entry.key).min().unwrap_or(self.span)
            }
            _ => self.span,
        }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}
