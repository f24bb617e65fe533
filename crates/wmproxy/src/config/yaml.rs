//! YAML into a tree: the core schema of YAML 1.2, one document, anchors without recursion or explosion.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::problem::Found;
use super::tree::{Entry, MAX_DEPTH, Node, Span, Value};

/// How many values may be kept for aliases and made by them, in all: plenty for sharing settings, nothing for
/// an "anchor bomb".
const MAX_ALIASED: usize = 10_000;

/// Reads `text`, the file number `file`.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<Found>> {
    let offsets = Offsets::new(text);
    let mut builder =
        Builder { open: Vec::new(), anchors: HashMap::new(), aliased: 0, root: None, found: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = offsets.byte(error.marker().index());
            vec![Found::error(Span::new(file, at..at), format!("YAML syntax: {}", error.info()))]
        })?;
        let start = offsets.byte(span.start.index());
        let range = start..offsets.byte(span.end.index());
        // A block's span runs on through the white space behind it.
        let end = text.get(range.clone()).map_or(range.end, |text| start + text.trim_end().len());
        builder.take(event, Span::new(file, start..end)).map_err(|found| vec![found])?;
    }
    let root = builder.root.unwrap_or_else(|| Node::empty_table(file));
    // An empty document is an empty table: a file of comments alone.
    let root = if matches!(root.value, Value::Null) { Node::empty_table(file) } else { root };
    if builder.found.is_empty() { Ok(root) } else { Err(builder.found) }
}

/// The parser counts characters, the tree counts bytes.
struct Offsets {
    /// Of each character, unless every one is a byte.
    starts: Option<Vec<usize>>,
    end: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let starts = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Offsets { starts, end: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        match &self.starts {
            Some(starts) => starts.get(index).copied().unwrap_or(self.end),
            None => index.min(self.end),
        }
    }
}

/// A list or table whose end has not come yet.
struct Open {
    span: Span,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Table { entries: BTreeMap<String, Entry>, key: Option<(String, Span)> },
}

struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
    found: Vec<Found>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Found> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_ref(), span)?;
                self.put(Node::new(value, span), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_ref(), "seq", span)?;
                self.begin(Open { span, anchor, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_ref(), "map", span)?;
                let kind = OpenKind::Table { entries: BTreeMap::new(), key: None };
                self.begin(Open { span, anchor, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.kind {
                    OpenKind::List(list) => Value::List(list),
                    OpenKind::Table { entries, .. } => Value::Table(entries),
                };
                self.put(Node::new(value, open.span), open.anchor)
            }
            Event::Alias(anchor) => {
                // An alias inside of what it names finds nothing: that is not finished yet.
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Found::error(span, "this alias is inside of what it names"));
                };
                if self.open.len() + depth(&node) > MAX_DEPTH {
                    return Err(Found::error(span, format!("nested deeper than {MAX_DEPTH} levels")));
                }
                self.count(&node, span)?;
                node.span = span;
                self.put(node, 0)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Found::error(span, "a second document begins here; a config is one document"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Found> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Found::error(open.span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Found> {
        if anchor != 0 {
            self.count(&node, node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(list)) => list.push(node),
            Some(OpenKind::Table { entries, key }) => match key.take() {
                None => *key = Some(read_key(node)?),
                Some((name, span)) => {
                    let entry = Entry { key: span, node };
                    if let Some(first) = entries.insert(name.clone(), entry) {
                        let found = Found::error(span, format!("`{name}` is given twice"));
                        self.found.push(found.related(first.key, "first given here"));
                    }
                }
            },
        }
        Ok(())
    }

    fn count(&mut self, node: &Node, span: Span) -> Result<(), Found> {
        self.aliased += size(node);
        if self.aliased > MAX_ALIASED {
            return Err(Found::error(
                span,
                format!("anchors and aliases make more than {MAX_ALIASED} values"),
            ));
        }
        Ok(())
    }
}

fn read_key(node: Node) -> Result<(String, Span), Found> {
    match node.value {
        Value::Text(key) => Ok((key, node.span)),
        Value::Int(number) => Ok((number.to_string(), node.span)),
        Value::Bool(on) => Ok((on.to_string(), node.span)),
        _ => Err(Found::error(node.span, format!("a key is text, not {}", node.kind()))),
    }
}

/// How many values a node holds, itself included.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(list) => list.iter().map(size).sum(),
        Value::Table(table) => table.values().map(|entry| size(&entry.node)).sum(),
        _ => 0,
    }
}

/// How deep values nest in a node.
fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Table(table) => 1 + table.values().map(|entry| depth(&entry.node)).max().unwrap_or(0),
        _ => 0,
    }
}

fn check_tag(tag: Option<&Cow<'_, Tag>>, expected: &str, span: Span) -> Result<(), Found> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() || tag.suffix != expected => {
            Err(Found::error(span, format!("the tag `{tag}` means nothing here")))
        }
        _ => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Cow<'_, Tag>>, span: Span) -> Result<Value, Found> {
    check_tag(tag, "str", span)?;
    if style != ScalarStyle::Plain || tag.is_some() {
        return Ok(Value::Text(text.to_owned()));
    }
    // The core schema, YAML 1.2.2 section 10.3.2.
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    let radix =
        |prefix, radix| text.strip_prefix(prefix).and_then(|t: &str| i128::from_str_radix(t, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(Value::Int(number));
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if !numeric || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().map(Value::Int).ok().or_else(|| text.parse().map(Value::Float).ok())
}
