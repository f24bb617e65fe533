//! Reads a config file and those that it includes, and makes one tree of them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::{Path as FilePath, PathBuf};

use rustix::fs::OFlags;

use super::expand::{Env, Expander};
use super::problem::Found;
use super::tree::{Node, Path, Source, Span, Value};
use super::{json, toml, yaml};

/// Far more than a config that is written by people or made from templates; a mistaken path to a disk image
/// must not fill the memory.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Included files may include others, but nobody finds anything that is further away.
const MAX_DEPTH: usize = 8;

/// A pattern that catches more than this was meant otherwise.
const MAX_FILES: usize = 1000;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Yaml,
    Json,
}

/// Collects what is read, and what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) env: Env<'a>,
    pub(super) sources: Vec<Source>,
    /// Every file that was read or should have been.
    pub(super) files: Vec<PathBuf>,
    pub(super) found: Vec<Found>,
    /// A part of the config is not there, so that what refers to it can't be judged.
    pub(super) incomplete: bool,
    /// The real paths of the files being read, the outermost first.
    stack: Vec<PathBuf>,
    /// The real paths of all files that were read.
    seen: Vec<PathBuf>,
}

impl Format {
    /// By the ending of a file's name.
    pub(crate) fn of(path: &FilePath) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Format::Toml),
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    fn parse(self, text: &str, file: usize) -> Result<Node, Vec<Found>> {
        match self {
            Format::Toml => toml::parse(text, file),
            Format::Yaml => yaml::parse(text, file),
            Format::Json => json::parse(text, file),
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(env: Env<'a>) -> Self {
        Reader {
            env,
            sources: Vec::new(),
            files: Vec::new(),
            found: Vec::new(),
            incomplete: false,
            stack: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Reads the file `path` and all that it includes. `from` is the place that included it.
    pub(super) fn file(&mut self, path: &FilePath, from: Option<Span>) -> Option<Node> {
        let problem = |message: String| match from {
            Some(span) => Found::error(span, message),
            None => Found::nowhere(message),
        };
        self.files.push(path.to_owned());
        let text = match read_text(path) {
            Ok(text) => text,
            Err(why) => {
                self.fail(problem(format!("can't read {}: {why}", path.display())));
                return None;
            }
        };
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // Without a known ending it is TOML, the primary form: `/etc/wmproxy.conf`.
        let format = Format::of(path).unwrap_or(Format::Toml);
        let dir = path.parent().unwrap_or(FilePath::new("")).to_owned();
        self.seen.push(real.clone());
        self.stack.push(real);
        let node = self.text(path.display().to_string(), dir, &text, format);
        self.stack.pop();
        node
    }

    /// Reads a text as if it were the file `name` in `dir`, and all that it includes.
    pub(super) fn text(&mut self, name: String, dir: PathBuf, text: &str, format: Format) -> Option<Node> {
        // Some editors put a byte order mark first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file = self.sources.len();
        self.sources.push(Source { name, dir, text: text.into(), hidden: Vec::new() });
        let mut node = match format.parse(text, file) {
            Ok(node) => node,
            Err(found) => {
                self.found.extend(found);
                self.incomplete = true;
                return None;
            }
        };
        if !matches!(node.value, Value::Table(_)) {
            self.fail(Found::error(node.span, format!("a config is a table, not {}", node.kind())));
            return None;
        }
        let source = self.sources[file].clone();
        let mut expander = Expander { source: &source, env: self.env, found: Vec::new(), hidden: Vec::new() };
        expander.expand(&mut node, false);
        self.found.append(&mut expander.found);
        self.sources[file].hidden = expander.hidden;
        for (pattern, span) in self.take_includes(&mut node) {
            self.include(&mut node, &source.dir, &pattern, span);
        }
        Some(node)
    }

    fn fail(&mut self, found: Found) {
        self.found.push(found);
        self.incomplete = true;
    }

    /// Takes the patterns out of the tree.
    fn take_includes(&mut self, root: &mut Node) -> Vec<(String, Span)> {
        let Value::Table(table) = &mut root.value else { return Vec::new() };
        let Some(entry) = table.remove("include") else { return Vec::new() };
        let patterns = match entry.node.value {
            _ if entry.node.dropped => Vec::new(),
            Value::List(list) => list,
            _ => vec![entry.node],
        };
        let mut includes = Vec::new();
        for node in patterns.into_iter().filter(|node| !node.dropped) {
            match node.value {
                Value::Text(pattern) => includes.push((pattern, node.span)),
                _ => {
                    let message = format!("expected a path or a list of paths, found {}", node.kind());
                    self.fail(Found::error(node.span, message).path(Path::default().key("include")));
                }
            }
        }
        includes
    }

    fn include(&mut self, root: &mut Node, dir: &FilePath, pattern: &str, span: Span) {
        let is_pattern = pattern.contains(['*', '?', '[']);
        let paths = if is_pattern { self.matches(dir, pattern, span) } else { vec![dir.join(pattern)] };
        if self.stack.len() > MAX_DEPTH {
            return self
                .fail(Found::error(span, format!("included files nest deeper than {MAX_DEPTH} levels")));
        }
        for path in paths {
            let real = fs::canonicalize(&path).ok();
            // `*.toml` in the file's own directory means the others.
            if is_pattern && real.as_ref().is_some_and(|real| self.stack.contains(real)) {
                continue;
            }
            if let Some(real) = real.filter(|real| self.seen.contains(real)) {
                let what = if self.stack.contains(&real) { "includes itself" } else { "is included twice" };
                self.fail(Found::error(span, format!("{} {what}", path.display())));
                continue;
            }
            if self.sources.len() >= MAX_FILES {
                return self.fail(Found::error(span, format!("more than {MAX_FILES} files are included")));
            }
            if let Some(node) = self.file(&path, Some(span)) {
                self.merge(root, node, &Path::default());
            }
        }
    }

    /// The files that a pattern stands for, sorted by name.
    fn matches(&mut self, dir: &FilePath, pattern: &str, span: Span) -> Vec<PathBuf> {
        // Only what was written is a pattern, not the directory in front of it.
        let dir = dir.to_str().map(glob::Pattern::escape);
        let joined = match &dir {
            Some(dir) if !dir.is_empty() && !pattern.starts_with('/') => format!("{dir}/{pattern}"),
            _ => pattern.to_owned(),
        };
        let matches = match glob::glob(&joined) {
            Ok(matches) => matches,
            Err(error) => {
                self.fail(Found::error(span, format!("this is no pattern: {}", error.msg)));
                return Vec::new();
            }
        };
        let mut paths = Vec::new();
        for path in matches.take(MAX_FILES + 1) {
            match path {
                Ok(path) if path.is_file() => paths.push(path),
                Ok(_) => {}
                Err(error) => {
                    let message = format!("can't read {}: {}", error.path().display(), error.error());
                    self.fail(Found::error(span, message));
                }
            }
        }
        paths.sort();
        paths
    }

    /// Adds what another file says: tables join, lists of tables join, anything else may be said once.
    fn merge(&mut self, own: &mut Node, other: Node, path: &Path) {
        match (&mut own.value, other.value) {
            (Value::Table(table), Value::Table(others)) => {
                for (key, entry) in others {
                    let path = path.key(&key);
                    match table.get_mut(&key) {
                        Some(own) => self.merge(&mut own.node, entry.node, &path),
                        None => {
                            table.insert(key, entry);
                        }
                    }
                }
            }
            (Value::List(list), Value::List(others)) if all_tables(list) && all_tables(&others) => {
                list.extend(others);
            }
            _ => {
                let message = format!("`{path}` is given twice");
                let found = Found::error(other.span, message).path(path.clone());
                self.found.push(found.related(own.place(), "first given here"));
            }
        }
    }
}

fn all_tables(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

/// Opens a regular file to be read. Anything else is refused: a fifo that nobody writes would hold a reload, and with
/// it every signal, for good, and a device may have no end.
pub(crate) fn open(path: &FilePath) -> io::Result<File> {
    // Without O_NONBLOCK the opening itself would wait; regular files do not care.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

/// What to say of a file with a secret that everybody on this machine may read; nothing if it is not so, or not to be seen.
pub(crate) fn exposed(path: &FilePath) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(Metadata::is_file)?;
    let is_exposed = metadata.permissions().mode() & 0o004 != 0;
    is_exposed
        .then(|| format!("{} holds a secret, and everybody on this machine may read it", path.display()))
}

/// A file as text, or why not.
pub(super) fn read_text(path: &FilePath) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = open(path).map_err(|error| reason(&error))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {} MiB", MAX_FILE_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })
}

/// The system's words without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
