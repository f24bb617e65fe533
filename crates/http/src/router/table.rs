//! The routes of one host, by their paths.

use regex::bytes::{Regex, RegexBuilder};

use super::hash::Map;
use crate::options::{PathPattern, REGEX_SIZE};

/// Routes by path: a tree of segments, and the regular expressions beside it. Routes are their numbers in the file.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: Vec<Node>,
    /// In the order of the file.
    regexes: Vec<(u32, Regex)>,
}

/// What is known of the paths that begin with certain segments.
#[derive(Debug, Default)]
struct Node {
    /// By the next segment.
    children: Map<Box<[u8]>, usize>,
    /// Routes for these segments and all below them, in the order of the file.
    prefix: Vec<u32>,
    /// Routes for exactly these segments, likewise.
    exact: Vec<u32>,
}

/// The lists that a path leads to. Of each only the front matters at a time.
struct Lists<'a> {
    near: [&'a [u32]; NEAR],
    len: usize,
    /// Those that go beyond it, which takes nested prefixes by the dozen.
    far: Vec<&'a [u32]>,
}

/// As many prefixes of one path as a config usually has routes for, and some more.
const NEAR: usize = 12;

impl Table {
    /// Adds a route. Routes come in the order of the file.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub(super) fn add(&mut self, number: u32, paths: &[PathPattern]) -> Result<(), regex::Error> {
        if paths.is_empty() {
            push(&mut self.node(b"").prefix, number);
        }
        for path in paths {
            match path {
                PathPattern::Prefix(path) => push(&mut self.node(path.as_bytes()).prefix, number),
                PathPattern::Exact(path) => push(&mut self.node(path.as_bytes()).exact, number),
                PathPattern::Regex(regex) => {
                    let regex = RegexBuilder::new(regex).size_limit(REGEX_SIZE).build()?;
                    self.regexes.push((number, regex));
                }
            }
        }
        Ok(())
    }

    /// The node of a path, which is empty or begins with a slash.
    fn node(&mut self, path: &[u8]) -> &mut Node {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for segment in path.split(|byte| *byte == b'/').skip(1) {
            let next = self.nodes.len();
            at = *self.nodes[at].children.entry(segment.into()).or_insert(next);
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        &mut self.nodes[at]
    }

    /// What `take` makes of the first route, in the order of the file, that is for this path and that it takes.
    pub(super) fn search<T>(&self, path: &[u8], take: impl Fn(u32) -> Option<T>) -> Option<T> {
        let mut lists = self.lists(path);
        let mut regexes = self.regexes.iter();
        let mut regex = regexes.next();
        loop {
            let listed = lists.first();
            // A regular expression costs the most, so it is asked only when its route would be the one.
            while let Some((number, expression)) = regex
                && listed.is_none_or(|listed| *number < listed)
            {
                if expression.is_match(path)
                    && let Some(taken) = take(*number)
                {
                    return Some(taken);
                }
                regex = regexes.next();
            }
            let number = listed?;
            if let Some(taken) = take(number) {
                return Some(taken);
            }
            lists.pass(number);
        }
    }

    fn lists(&self, path: &[u8]) -> Lists<'_> {
        let mut lists = Lists { near: [&[]; NEAR], len: 0, far: Vec::new() };
        let Some(mut node) = self.nodes.first() else { return lists };
        lists.push(&node.prefix);
        // What has no slash in front, as the target `*`, is in no tree but has the root's routes.
        for segment in path.split(|byte| *byte == b'/').skip(1) {
            match node.children.get(segment) {
                Some(child) => node = &self.nodes[*child],
                None => return lists,
            }
            lists.push(&node.prefix);
        }
        lists.push(&node.exact);
        lists
    }
}

/// A route that names the same path twice is there once.
fn push(list: &mut Vec<u32>, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

impl<'a> Lists<'a> {
    fn push(&mut self, list: &'a [u32]) {
        match self.near.get_mut(self.len) {
            _ if list.is_empty() => {}
            Some(place) => {
                *place = list;
                self.len += 1;
            }
            None => self.far.push(list),
        }
    }

    /// The lowest number of all lists.
    fn first(&self) -> Option<u32> {
        let near = self.near[..self.len].iter();
        near.chain(&self.far).filter_map(|list| list.first()).min().copied()
    }

    /// Takes a number off all lists.
    fn pass(&mut self, number: u32) {
        for list in self.near[..self.len].iter_mut().chain(&mut self.far) {
            if let [first, rest @ ..] = list
                && *first == number
            {
                *list = rest;
            }
        }
    }
}
