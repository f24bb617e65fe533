//! From text to plan: reads config files, finds every problem in them, and says what they come to.
//!
//! ```text
//! TOML, YAML, JSON -> tree (values that know their place) -> ${ENV}, include -> Options -> Plan
//! ```
//! Each step goes as far as it can: a value with a problem is dropped from the tree, the rest is still looked
//! at, and what only follows from a dropped value is not reported. What must not live here is anything that
//! acts on a plan; nothing is bound, resolved or started. Of the machine only files and the environment count.

mod access_log;
mod bridge;
mod de;
mod expand;
pub(crate) mod forward;
pub(crate) mod http;
mod include;
mod json;
mod listen;
mod loops;
mod mask;
mod names;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod problem;
#[cfg(test)]
mod reference;
mod resolve;
mod routes;
mod secrets;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod toml;
mod tree;
pub(crate) mod tunnel;
mod yaml;

use std::path::{Path, PathBuf};

pub(crate) use include::{Format, exposed, open};
pub(crate) use names::{NAMES, is_name};
pub(crate) use problem::Problems;

use expand::Env;
use include::Reader;
use options::Options;
use plan::{AdminPlan, Plan};
use problem::Found;
use tree::Node;

/// A config without errors.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) plan: Plan,
    /// What is allowed but hardly meant.
    pub(crate) warnings: Problems,
    /// Every file that it was read from, secrets' files too.
    pub(crate) files: Vec<PathBuf>,
    options: Options,
}

/// Reads the file `path` and all that it includes.
///
/// # Errors
/// Every problem of these files.
pub(crate) fn load(path: &Path) -> Result<Loaded, Problems> {
    load_with(path, &|name| std::env::var(name).ok())
}

fn load_with(path: &Path, env: Env<'_>) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(env);
    let root = reader.file(path, None);
    finish(reader, root)
}

/// Reads only where the admin endpoint is, none if it is turned off. Problems elsewhere in the file are left to the
/// process that runs: whoever spoiled a listener must still be able to stop it.
///
/// # Errors
/// Every problem of the file, when one of them leaves the endpoint in doubt.
pub(crate) fn load_admin(path: &Path) -> Result<Option<AdminPlan>, Problems> {
    let env = |name: &str| std::env::var(name).ok();
    let mut reader = Reader::new(&env);
    let root = reader.file(path, None);
    if let Some(mut root) = root
        && let Some(options) = de::decode::<Options>(&mut root, &mut reader.found)
        && !reader.incomplete
    {
        let mut planner = resolve::Planner::new(Some(&root), &reader.sources);
        let admin = planner.plan(&options).admin;
        reader.found.append(&mut planner.found);
        let written = root.at(&tree::Path::default().key("admin")).is_some();
        if !reader.found.iter().any(|found| found.is_error() && found.concerns_admin(written)) {
            return Ok(admin);
        }
    }
    Err(Problems::new(reader.found, &reader.sources))
}

/// Reads a text that is in no file; `name` is what problems call it. Relative paths in it start at the current
/// directory.
///
/// # Errors
/// Every problem of it.
pub(crate) fn load_text(name: &str, text: &str, format: Format) -> Result<Loaded, Problems> {
    let env = |name: &str| std::env::var(name).ok();
    let mut reader = Reader::new(&env);
    let root = reader.text(name.to_owned(), PathBuf::new(), text, format);
    finish(reader, root)
}

/// Takes options that were not written in a file, as of a command line.
///
/// # Errors
/// Every problem of them, without a place but with its path.
pub(crate) fn from_options(options: Options) -> Result<Loaded, Problems> {
    let env = |_: &str| None;
    let reader = Reader::new(&env);
    judge(reader, None, options)
}

/// A JSON schema of the whole config, for editors and for other tools.
pub(crate) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Options).to_value();
    schema["title"] = "wmproxy configuration".into();
    schema
}

fn finish(mut reader: Reader<'_>, root: Option<Node>) -> Result<Loaded, Problems> {
    let Some(mut root) = root else { return Err(Problems::new(reader.found, &reader.sources)) };
    match de::decode(&mut root, &mut reader.found) {
        // What is missing because a file is missing is no problem of its own.
        Some(options) if !reader.incomplete => judge(reader, Some(&root), options),
        _ => Err(Problems::new(reader.found, &reader.sources)),
    }
}

fn judge(mut reader: Reader<'_>, tree: Option<&Node>, options: Options) -> Result<Loaded, Problems> {
    let mut planner = resolve::Planner::new(tree, &reader.sources);
    let plan = planner.plan(&options);
    planner.check_served(&reader.files);
    reader.found.append(&mut planner.found);
    reader.files.append(&mut planner.files);
    if reader.found.iter().any(Found::is_error) {
        // A warning about half a config is often wrong: errors first.
        reader.found.retain(Found::is_error);
        return Err(Problems::new(reader.found, &reader.sources));
    }
    let warnings = Problems::new(reader.found, &reader.sources);
    Ok(Loaded { plan, warnings, files: reader.files, options })
}

impl Loaded {
    /// What the config comes to with includes merged, variables expanded and defaults filled in; secrets are
    /// masked.
    pub(crate) fn resolved(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(&self.options).unwrap_or_default();
        drop_empty(&mut value);
        value
    }

    /// [`resolved`](Self::resolved) as TOML.
    pub(crate) fn print(&self) -> String {
        // Options serialise to tables, lists and scalars, all of which TOML has.
        ::toml::to_string_pretty(&self.resolved()).unwrap_or_default()
    }
}

/// TOML has no null, and an empty table says nothing.
fn drop_empty(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            object.values_mut().for_each(drop_empty);
            object.retain(|_, value| match value {
                serde_json::Value::Null => false,
                serde_json::Value::Object(object) => !object.is_empty(),
                _ => true,
            });
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
