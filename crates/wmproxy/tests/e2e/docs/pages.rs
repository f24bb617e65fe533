//! Pages of Markdown, and the blocks of code in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A page, by its path from the root of the repository.
pub(super) struct Page {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What stands between two fences.
pub(super) struct Block {
    /// The line of the page that it begins with, from 1.
    pub(super) line: usize,
    /// What stands behind the first fence.
    pub(super) info: String,
    pub(super) text: String,
}

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All pages below docs/, and the READMEs.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".into(), "README.zh-CN.md".into()];
    below(&root(), Path::new("docs"), &mut paths);
    paths.sort();
    let text = |path: &PathBuf| fs::read_to_string(root().join(path)).unwrap();
    paths.into_iter().map(|path| Page { text: text(&path), path }).collect()
}

fn below(root: &Path, dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(dir)).unwrap() {
        let entry = entry.unwrap();
        let path = dir.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            below(root, &path, paths);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            paths.push(path);
        }
    }
}

impl Page {
    /// The blocks of code.
    ///
    /// # Panics
    /// When the last one has no end.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(self.text.lines()) {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(Block { line: number + 1, info: info.trim().into(), text: String::new() });
                }
                (Some(_), Some("")) => blocks.extend(open.take()),
                (Some(block), _) => block.text.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.path.display());
        blocks
    }

    /// The lines that are in no block of code.
    pub(super) fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }
}
