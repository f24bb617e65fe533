//! The option reference, made from the schema and with it from the options' own types and descriptions.
//!
//! It is a document of the repository: only the test that keeps it in step with the code makes it.

use std::fmt::Write;

use serde_json::Value;

use super::schema;

/// The option reference in Markdown: a section for each table, a row for each key.
pub(super) fn reference() -> String {
    let schema = schema();
    let mut writer = Writer { defs: &schema["$defs"], text: String::new() };
    writer.text.push_str(HEAD);
    writer.section("Top level", &schema, 2);
    writer.text
}

const HEAD: &str = "\
# Configuration reference

Every key of a wmproxy config. This file is generated from the program's own types: change the descriptions there.
`wmproxy check -c FILE` tells every problem of a config at once, `--print` shows what it comes to, and
`wmproxy schema` prints the same as here as a JSON schema for editors.

Durations are written `\"250ms\"`, `\"30s\"`, `\"5m\"` or `\"1h30m\"`. An address is `\"127.0.0.1:53\"`, `\"[::1]:53\"`,
`\":53\"` (every address of this machine), `\"localhost:80\"`, a range of ports `\":8000-8010\"`, or
`\"unix:/run/x.sock\"`. A key that is not here is refused, and so is a value of another form.

";

struct Writer<'a> {
    defs: &'a Value,
    text: String,
}

impl<'a> Writer<'a> {
    fn section(&mut self, title: &str, schema: &'a Value, level: usize) {
        let _ = writeln!(self.text, "{} {title}\n", "#".repeat(level));
        if let Some(text) = schema["description"].as_str() {
            let _ = writeln!(self.text, "{text}\n");
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        self.text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        for (key, property) in properties {
            self.row(key, property, is_required(schema, key));
        }
        self.text.push('\n');
        for (key, property) in properties {
            let title = if level == 2 { String::new() } else { format!("{}.", bare(title)) };
            self.subsection(&format!("{title}{key}"), property, level);
        }
    }

    fn row(&mut self, key: &str, property: &'a Value, required: bool) {
        let default = match property.get("default") {
            _ if required => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(Value::Object(_)) => String::new(),
            Some(default) => format!("`{default}`"),
        };
        let target = self.resolve(property);
        let meaning = property.get("description").or_else(|| target.get("description"));
        let meaning =
            meaning.and_then(Value::as_str).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let form = self.form(property);
        let _ = writeln!(self.text, "| `{key}` | {form} | {default} | {meaning} |");
    }

    /// A section of its own for what is a table, or holds tables.
    fn subsection(&mut self, path: &str, property: &'a Value, level: usize) {
        for target in self.alternatives(property) {
            if target["properties"].is_object() {
                self.section(&format!("`[{path}]`"), target, level.min(3) + 1);
            } else if let Some(inner) =
                target.get("additionalProperties").filter(|inner| self.is_table(inner))
            {
                self.section(&format!("`[{path}.NAME]`"), self.resolve(inner), level.min(3) + 1);
            } else if let Some(items) = target.get("items") {
                for item in self.alternatives(items).into_iter().filter(|item| item["properties"].is_object())
                {
                    let title = if level == 2 { format!("`[[{path}]]`") } else { format!("`{path}[]`") };
                    self.section(&title, item, level.min(3) + 1);
                }
            }
        }
    }

    /// The schemas that a value may follow, except for constants and null.
    fn alternatives(&self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        match schema["anyOf"].as_array() {
            Some(any) => any.iter().flat_map(|one| self.alternatives(one)).collect(),
            None => vec![schema],
        }
    }

    /// Whether a value may be a table with keys of its own.
    fn is_table(&self, schema: &'a Value) -> bool {
        self.alternatives(schema).iter().any(|one| one["properties"].is_object())
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.defs.get(name)).unwrap_or(schema)
    }

    /// The type of a value in words.
    fn form(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
            let mut forms: Vec<String> = any.iter().map(|one| self.form(one)).collect();
            forms.retain(|form| form != "null");
            forms.dedup();
            return forms.join(" or ");
        }
        if let Some(value) = schema.get("const") {
            return format!("`{value}`");
        }
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<String> =
                values.iter().filter(|v| !v.is_null()).map(|v| format!("`{v}`")).collect();
            return values.join(", ");
        }
        let names = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        };
        let names = names.into_iter().map(|name| self.type_name(name, schema));
        names.collect::<Vec<_>>().join(" or ")
    }

    fn type_name(&self, name: &str, schema: &'a Value) -> String {
        match name {
            "array" => match schema.get("items").map(|items| self.form(items)) {
                Some(items) if items == "table" => "list of tables".to_owned(),
                Some(items) if items.contains(" or ") => format!("list of ({items})"),
                Some(items) => format!("list of {items}"),
                None => "list".to_owned(),
            },
            "object" if schema["properties"].is_object() => "table".to_owned(),
            "object" if schema.get("additionalProperties").is_some_and(|inner| !self.is_table(inner)) => {
                "values by name".to_owned()
            }
            "object" => "tables by name".to_owned(),
            "integer" => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
                (Some(least), Some(most)) if most < u64::from(u32::MAX) => {
                    format!("number from {least} to {most}")
                }
                _ => "number".to_owned(),
            },
            "boolean" => "`true` or `false`".to_owned(),
            "string" if is_duration(schema) => "duration".to_owned(),
            "string" => "text".to_owned(),
            other => other.to_owned(),
        }
    }
}

fn is_duration(schema: &Value) -> bool {
    schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms"))
}

fn is_required(schema: &Value, key: &str) -> bool {
    schema["required"].as_array().is_some_and(|keys| keys.iter().any(|name| name == key))
}

/// A section's title without what marks a table.
fn bare(title: &str) -> String {
    title.trim_matches(['`', '[', ']']).to_owned()
}
