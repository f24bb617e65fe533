//! TOML into a tree; every syntax error of the text is reported, not only the first.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Found;
use super::tree::{Entry, Node, Span, Value};

/// Reads `text`, the file number `file`.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, Vec<Found>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let found = errors.iter().map(|error| {
            let end = text.len();
            let span = error.span().map_or(end..end, |s| s.start.min(end)..s.end.min(end));
            Found::error(Span::new(file, span), format!("TOML syntax: {}", error.message()))
        });
        return Err(found.collect());
    }
    let span = Span::new(file, 0..0);
    Ok(Node::new(Value::Table(read_table(table.get_ref(), file)), span))
}

// The parser's own limit of nesting (80) bounds the recursion.
fn read_table(table: &DeTable<'_>, file: usize) -> BTreeMap<String, Entry> {
    let entries = table.iter().map(|(key, value)| {
        let entry = Entry { key: Span::new(file, key.span()), node: read_value(value, file) };
        (key.get_ref().to_string(), entry)
    });
    entries.collect()
}

fn read_value(value: &Spanned<DeValue<'_>>, file: usize) -> Node {
    let read = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Int(number),
            // More digits than any limit allows: kept as a number that nothing accepts.
            Err(_) => Value::Float(f64::MAX),
        },
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(on) => Value::Bool(*on),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(|value| read_value(value, file)).collect()),
        DeValue::Table(table) => Value::Table(read_table(table, file)),
    };
    Node::new(read, Span::new(file, value.span()))
}
