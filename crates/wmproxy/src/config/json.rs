//! JSON into a tree: the standard's JSON, without comments and trailing commas.

use std::collections::BTreeMap;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::problem::Found;
use super::tree::{Entry, MAX_DEPTH, Node, Span, Value};

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads `text`, the file number `file`.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<Found>> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let range = error.range();
        let span = Span::new(file, range.start.min(text.len())..range.end.min(text.len()));
        vec![Found::error(span, format!("JSON syntax: {}", decapitalise(&error.kind().to_string())))]
    })?;
    let Some(value) = parsed.value else {
        return Err(vec![Found::error(
            Span::new(file, 0..0),
            "JSON syntax: the file is empty; write {} at least",
        )]);
    };
    let mut reader = Reader { file, found: Vec::new() };
    let node = reader.value(&value, 0);
    if reader.found.is_empty() { Ok(node) } else { Err(reader.found) }
}

fn decapitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

struct Reader {
    file: usize,
    found: Vec<Found>,
}

impl Reader {
    fn span(&self, ranged: &impl Ranged) -> Span {
        Span::new(self.file, ranged.start()..ranged.end())
    }

    // The parser's own limit of nesting (512) bounds the recursion before ours is reported.
    fn value(&mut self, value: &ast::Value<'_>, depth: usize) -> Node {
        let span = self.span(value);
        if depth > MAX_DEPTH {
            self.found.push(Found::error(span, format!("nested deeper than {MAX_DEPTH} levels")));
            return Node::new(Value::Null, span);
        }
        let read = match value {
            ast::Value::NullKeyword(_) => Value::Null,
            ast::Value::BooleanLit(on) => Value::Bool(on.value),
            ast::Value::StringLit(text) => Value::Text(text.value.to_string()),
            ast::Value::NumberLit(number) => match number.value.parse() {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Float(number.value.parse().unwrap_or(f64::NAN)),
            },
            ast::Value::Array(list) => {
                Value::List(list.elements.iter().map(|value| self.value(value, depth + 1)).collect())
            }
            ast::Value::Object(object) => Value::Table(self.object(object, depth)),
        };
        Node::new(read, span)
    }

    fn object(&mut self, object: &ast::Object<'_>, depth: usize) -> BTreeMap<String, Entry> {
        let mut table = BTreeMap::new();
        for property in &object.properties {
            let (key, span) = (property.name.as_str(), self.span(&property.name));
            let node = self.value(&property.value, depth + 1);
            if let Some(first) = table.insert(key.to_owned(), Entry { key: span, node }) {
                let message = format!("`{key}` is given twice");
                self.found.push(Found::error(span, message).related(first.key, "first given here"));
            }
        }
        table
    }
}
