//! The configs in the documents.
//!
//! A block that is marked `toml` or `yaml` alone is a whole config, and so is what a block of `sh` writes to a file with such
//! an ending. What is less says so behind a comma:
//!
//! - `toml,route`: keys of one `[[http.route]]`
//! - `toml,routes`: the `[[http.route]]` of one `[[http]]`
//! - `toml,fragment`: another part, which only has to be TOML
//! - `toml,other`: the config of another program, which only has to be TOML

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use toml::{Table, Value};
use wmproxy_testkit::exec::run;
use wmproxy_testkit::tls::Authority;
use wmproxy_testkit::{PATIENCE, TempDir};

use super::pages::{Page, pages};
use crate::BIN;

/// A password's hash, as `wmproxy hash-password` makes it.
const HASH: &str = "$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu";
/// What a route answers with; it has one of them.
const ENDPOINTS: [&str; 4] = ["reverse_proxy", "files", "redirect", "respond"];

struct Config {
    line: usize,
    ending: String,
    mark: String,
    text: String,
}

#[test]
fn every_config_is_a_good_one() {
    let mut count = 0;
    let mut wrong = String::new();
    for page in pages() {
        for config in configs(&page) {
            count += 1;
            if let Err(problem) = check(&config) {
                wrong += &format!("{}, line {}:\n{problem}\n", page.path.display(), config.line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 60, "{count} configs were found");
}

fn configs(page: &Page) -> Vec<Config> {
    let mut configs = Vec::new();
    let mut files = BTreeMap::new();
    for block in page.blocks() {
        let (language, mark) = block.info.split_once(',').unwrap_or((&block.info, ""));
        match language {
            "toml" | "yaml" => configs.push(Config {
                line: block.line,
                ending: language.into(),
                mark: mark.into(),
                text: block.text,
            }),
            "sh" => configs.extend(written(block.line, &block.text, &mut files)),
            _ => {}
        }
    }
    configs
}

/// What commands like `cat > NAME.toml <<'END'` write. With `>>` it comes behind what `files` has of that name.
fn written(first: usize, script: &str, files: &mut BTreeMap<String, String>) -> Vec<Config> {
    let mut configs = Vec::new();
    let mut lines = (first..).zip(script.lines());
    while let Some((line, command)) = lines.next() {
        let words: Vec<_> = command.split_whitespace().collect();
        let &["cat", how @ (">" | ">>"), name, end] = &words[..] else { continue };
        let Some((_, ending @ ("toml" | "yaml" | "json"))) = name.rsplit_once('.') else { continue };
        let end = end.trim_start_matches("<<").trim_matches('\'');
        let new = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != end);
        let new: String = new.flat_map(|line| [line, "\n"]).collect();
        let text = files.entry(name.to_owned()).or_default();
        if how == ">" {
            text.clear();
        }
        text.push_str(&new);
        configs.push(Config { line, ending: ending.into(), mark: String::new(), text: text.clone() });
    }
    configs
}

fn check(config: &Config) -> Result<(), String> {
    // As a server would print it.
    let text = config.text.replace("sha256:...", &format!("sha256:{}", "00".repeat(32)));
    let whole = match config.mark.as_str() {
        "" => text,
        "routes" => format!("[[http]]\nlisten = \"127.0.0.1:80\"\n{text}"),
        "route" => {
            let table: Table = text.parse().map_err(|error| format!("{error}"))?;
            // `http` is `[http.route.files]` and the like.
            let answers = ENDPOINTS.iter().chain(&["http"]).any(|key| table.contains_key(*key));
            let endpoint = if answers { "" } else { "respond = { body = \"hello\" }\n" };
            format!("[[http]]\nlisten = \"127.0.0.1:80\"\n[[http.route]]\n{endpoint}{text}")
        }
        "fragment" | "other" => {
            return text.parse::<Table>().map(drop).map_err(|error| format!("{error}"));
        }
        mark => return Err(format!("a block can't be marked `{mark}`")),
    };
    let dir = TempDir::new();
    let whole = if config.ending == "toml" { furnish(&whole, &dir)? } else { whole };
    let file = dir.write(&format!("config.{}", config.ending), &whole);
    let mut command = Command::new(BIN);
    command.args(["check", "-c"]).arg(file).current_dir(dir.path());
    for name in variables(&whole) {
        command.env(name, format!("a secret that is long enough for {name}"));
    }
    let finished = run(&mut command, PATIENCE);
    if finished.code == Some(0) { Ok(()) } else { Err(finished.text()) }
}

/// The variables of the environment that have no default.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).filter(|name| {
        name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

/// Something that a config names and that has to be there.
enum Named<'a> {
    Certificate(&'a str),
    Key(&'a str),
    File(&'a str, String),
    Directory(&'a str),
}

/// Makes what a config names below `dir`, and gives the config with absolute paths led there.
fn furnish(text: &str, dir: &TempDir) -> Result<String, String> {
    let value: Table = text.parse().map_err(|error| format!("{error}"))?;
    let mut all = Vec::new();
    named(&value, &mut all);
    let mut text = text.to_owned();
    let authority = Authority::new();
    let pair = authority.issue("any", &["any.example.com"]);
    let (certificate, key) =
        (fs::read_to_string(&pair.cert).unwrap(), fs::read_to_string(&pair.key).unwrap());
    for named in all {
        let (path, content) = match named {
            Named::Certificate(path) => (path, Some(&certificate)),
            Named::Key(path) => (path, Some(&key)),
            Named::File(path, ref content) => (path, Some(content)),
            Named::Directory(path) => (path, None),
        };
        let here = dir.join(path.trim_start_matches('/'));
        if path.starts_with('/') {
            text = text.replace(&format!("\"{path}\""), &format!("\"{}\"", here.display()));
        }
        match content {
            None => fs::create_dir_all(here).unwrap(),
            Some(content) => {
                dir.write(path.trim_start_matches('/'), content);
                fs::set_permissions(here, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
    Ok(text)
}

fn named<'a>(table: &'a Table, all: &mut Vec<Named<'a>>) {
    for (key, value) in table {
        match (key.as_str(), value) {
            ("cert" | "ca" | "client_ca", Value::String(path)) if path != "self-signed" => {
                all.push(Named::Certificate(path));
            }
            ("key", Value::String(path)) if table.contains_key("cert") => all.push(Named::Key(path)),
            ("users_file", Value::String(path)) => all.push(Named::File(path, format!("alice:{HASH}\n"))),
            ("password_file", Value::String(path)) => all.push(Named::File(path, format!("{HASH}\n"))),
            (key, Value::String(path)) if key.ends_with("_file") => {
                all.push(Named::File(path, format!("a secret that is long enough for {path}\n")));
            }
            ("root" | "files", Value::String(path)) => all.push(Named::Directory(path)),
            ("error_pages", Value::Table(pages)) => {
                let paths = pages.values().filter_map(Value::as_str);
                all.extend(paths.map(|path| Named::File(path, "a page".into())));
            }
            (_, Value::Table(table)) => named(table, all),
            (_, Value::Array(list)) => {
                list.iter().filter_map(Value::as_table).for_each(|table| named(table, all))
            }
            _ => {}
        }
    }
}
