//! The endpoint `files`: whether its directory is there, and what lies in it that hardly is for everybody.

use std::collections::BTreeMap;
use std::path::{Component, Path as FilePath, PathBuf};

use rustix::fs::Access;
use wmproxy_files::options::{FilesOptions, FilesSpec, Place};
use wmproxy_http::options::FilesEndpointOptions;

use super::super::resolve::Planner;
use super::super::tree::Path;

/// Where the directories of users are.
const HOMES: &str = "/home";

/// The directory that RFC 8615 has for what programs look for: its dot hides nothing.
const WELL_KNOWN: &str = ".well-known";

/// A directory that is served, to be compared with what should not be.
pub(in crate::config) struct Served {
    root: PathBuf,
    hidden: bool,
    path: Path,
}

/// Why a directory can't be served, if it can't. `browse` is whether it is listed.
pub(crate) fn root_problem(root: &FilePath, browse: bool) -> Option<String> {
    let why = match std::fs::metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        Err(error) => error.to_string(),
        Ok(found) if !found.is_dir() => "it is not a directory".to_owned(),
        Ok(_) => {
            let needed = if browse { Access::EXEC_OK | Access::READ_OK } else { Access::EXEC_OK };
            rustix::fs::access(root, needed).err()?.to_string()
        }
    };
    Some(format!("can't serve {}: {why}", root.display()))
}

impl Planner<'_> {
    /// What serves files; none if something is wrong with it.
    pub(super) fn files(&mut self, options: &FilesEndpointOptions, path: &Path) -> Option<FilesSpec> {
        let before = self.errors();
        let table = options.table();
        // A root alone is written where the table would be.
        let place = match options {
            FilesEndpointOptions::Root(_) => path.clone(),
            FilesEndpointOptions::Table(_) => path.key("root"),
        };
        let root = self.root(&table, &place, path);
        let spec = table.spec(root.clone().unwrap_or_default());
        for wrong in spec.as_ref().err().into_iter().flatten() {
            let place = match &wrong.place {
                Place::Key(key) => path.key(key),
                Place::Entry(key, entry) => path.key(key).key(entry),
                Place::Item(key, index) => path.key(key).index(*index),
            };
            self.problem(&place, wrong.message.clone());
        }
        let (Some(root), Ok(spec)) = (root, spec) else { return None };
        if let Ok(root) = root.canonicalize() {
            self.check_pages(&spec, &root, path);
            self.check_reach(&root, spec.hidden, &place);
            self.served.push(Served { root, hidden: spec.hidden, path: place });
        }
        (self.errors() == before).then_some(spec)
    }

    /// The directory, if there is one to serve.
    fn root(&mut self, table: &FilesOptions, place: &Path, path: &Path) -> Option<PathBuf> {
        if table.root.is_empty() {
            if !self.is_damaged(path) && !self.was_dropped(place) {
                let found = self.error(path, "`root` is missing: the directory whose files are served");
                self.push(found.hint("write files = { root = \"/srv/www\" }, or files = \"/srv/www\""));
            }
            return None;
        }
        let root = self.path_of(place, &table.root);
        let Some(problem) = root_problem(&root, table.browse) else { return Some(root) };
        let found = self.error(place, problem);
        self.push(match table.root.starts_with('~') {
            true => found.hint("`~` stands for itself here; write the whole path"),
            false => found,
        });
        None
    }

    /// Warns of pages that are named and not there. They may come later, so that is no error.
    fn check_pages(&mut self, spec: &FilesSpec, root: &FilePath, path: &Path) {
        let pages = path.key("error_pages");
        let pages = spec.error_pages.iter().map(|(status, page)| (pages.key(&status.to_string()), page));
        let spa = spec.spa.iter().map(|page| (path.key("spa"), page));
        for (place, page) in spa.chain(pages) {
            if let Some(why) = not_served(page, root, spec) {
                let found = self.error(&place, why);
                self.push(found.warning());
            }
        }
        // Who leaves out `index` may have directories without one; who writes it expects one at least at the top.
        let place = path.key("index");
        let is_missing = spec.index.iter().all(|name| not_served(name, root, spec).is_some());
        if self.is_said(&place) && is_missing && !spec.index.is_empty() && !spec.browse && spec.spa.is_none()
        {
            let message = format!("none of these is in {}, so `/` will be a 404", spec.root.display());
            let found = self.error(&place, message);
            self.push(found.warning());
        }
    }

    /// Warns of a directory that holds far more than a site.
    fn check_reach(&mut self, root: &FilePath, hidden: bool, place: &Path) {
        let message = if root == FilePath::new("/") {
            "this serves every file of the machine that the process may read"
        } else if hidden && is_home(root) {
            "this serves a home directory with all that is hidden in it: keys, passwords, histories"
        } else {
            return;
        };
        let found = self.error(place, message).warning();
        self.push(found.hint("serve a directory that is made for it"));
    }

    /// Warns of directories in which files of the config lie: it says where servers are, and may have secrets.
    pub(in crate::config) fn check_served(&mut self, config: &[PathBuf]) {
        if self.served.is_empty() {
            return;
        }
        let config = config.iter().map(|file| (file, "the config"));
        let private = std::mem::take(&mut self.private);
        let private = private.iter().map(|(file, what)| (file, *what));
        // Ordered, so that those below a directory stand together.
        let real = config.chain(private).filter_map(|named| Some((named.0.canonicalize().ok()?, named)));
        let real: BTreeMap<PathBuf, (&PathBuf, &str)> = real.collect();
        for Served { root, hidden, path } in std::mem::take(&mut self.served) {
            let below = real.range(root.clone()..).take_while(|(file, _)| file.starts_with(&root));
            let mut below =
                below.filter(|(file, _)| hidden || !is_hidden(file.strip_prefix(&root).unwrap_or(file)));
            let Some((_, (file, what))) = below.next() else { continue };
            let more = match below.count() {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            let message =
                format!("whoever asks gets {what}, for {} lies in this directory{more}", file.display());
            let found = self.error(&path, message).warning();
            self.push(found.hint("keep what is served in a directory of its own"));
        }
    }
}

/// Why a file below a root, of which `root` is the real path, is not served under its own name, if it is not.
fn not_served(name: &str, root: &FilePath, spec: &FilesSpec) -> Option<String> {
    let file = root.join(name);
    let shown = spec.root.join(name);
    let shown = shown.display();
    match std::fs::metadata(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some(format!("there is no file {shown}"));
        }
        Err(error) => return Some(format!("{shown}: {error}")),
        Ok(found) if !found.is_file() => return Some(format!("{shown} is not a regular file")),
        Ok(_) => {}
    }
    match file.canonicalize() {
        Ok(real) if !real.starts_with(root) => {
            Some(format!("{shown} is a symbolic link out of the root, which is never followed"))
        }
        Ok(real) if real != file && !spec.follow_symlinks => {
            Some(format!("{shown} is reached by a symbolic link, and `follow_symlinks` is off"))
        }
        _ => None,
    }
}

fn is_home(root: &FilePath) -> bool {
    let own = std::env::var_os("HOME").map(PathBuf::from).and_then(|home| home.canonicalize().ok());
    own.as_deref() == Some(root) || root.parent() == Some(FilePath::new(HOMES))
}

/// Whether a path below a root is hidden by a dot in front of one of its names.
fn is_hidden(path: &FilePath) -> bool {
    let mut names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_encoded_bytes()),
        _ => None,
    });
    let first = names.next().filter(|name| *name != WELL_KNOWN.as_bytes());
    first.into_iter().chain(names).any(|name| name.starts_with(b"."))
}
