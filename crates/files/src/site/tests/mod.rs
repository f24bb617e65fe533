//! Trees on a disk, looked for things in both ways of keeping the bounds.

mod bounds;
mod races;
mod root;
mod rules;

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_testkit::TempDir;
use wmproxy_wire::head::coding::{Encoding, Preferred};

use super::{Found, Site};
use crate::Effort;
use crate::beneath::Way;
use crate::file::File;
use crate::options::{FilesOptions, FilesSpec};
use crate::path::PathName;

/// Both, for all that is true in one is in the other.
const WAYS: [Way; 2] = [Way::Kernel { cached: true }, Way::Walk];
const SECRET: &str = "nobody may read this";

/// A root with a secret beside it.
struct Tree {
    dir: TempDir,
}

impl Tree {
    fn new() -> Tree {
        let dir = TempDir::new();
        dir.write("secret", SECRET);
        std::fs::create_dir(dir.join("root")).unwrap();
        Tree { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn write(&self, name: &str, text: &str) {
        self.dir.write(&format!("root/{name}"), text);
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.root().join(name)).unwrap();
    }

    fn spec(&self, edit: impl FnOnce(&mut FilesOptions)) -> FilesSpec {
        let root = self.root();
        let mut options = FilesOptions { root: root.display().to_string(), ..FilesOptions::default() };
        edit(&mut options);
        options.spec(root).unwrap()
    }

    /// A site for each way.
    fn sites(&self, edit: impl FnOnce(&mut FilesOptions)) -> [Arc<Site>; 2] {
        sites_of(&self.spec(edit))
    }
}

fn sites_of(spec: &FilesSpec) -> [Arc<Site>; 2] {
    WAYS.map(|way| Site::with(spec.clone(), Some(way), Duration::ZERO).unwrap())
}

/// What is found, in words: the file's text with its coding, or what else there is.
fn look(site: &Arc<Site>, path: &str) -> String {
    look_for(site, path, &[])
}

fn look_for(site: &Arc<Site>, path: &str, encodings: &[Encoding]) -> String {
    match found(site, path, encodings) {
        Found::File(file) => match file.encoding {
            Some(encoding) => format!("{}: {}", encoding.token(), text(&file)),
            None => text(&file),
        },
        Found::Directory(directory) => format!("[{}]", String::from_utf8_lossy(&directory.path)),
        other => format!("{other:?}"),
    }
}

fn found(site: &Arc<Site>, path: &str, encodings: &[Encoding]) -> Found {
    let mut preferred = Preferred::default();
    preferred.iter_mut().zip(encodings).for_each(|(place, encoding)| *place = Some(*encoding));
    site.look(&name(path), &preferred, Effort::Full).unwrap()
}

fn name(path: &str) -> PathName {
    let mut name = PathName::default();
    name.read(path.as_bytes()).unwrap();
    name
}

fn text(file: &File) -> String {
    let mut buffer = vec![0; 1000];
    let read = file.read_at(&mut buffer, 0, Effort::Full).unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}
