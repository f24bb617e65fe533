//! The files that the servers of files are asked for: what they are called, what they hold, and how they are made.
//!
//! They lie below `site` in the run's directory. What a scenario needs is made before its first round and stays.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::backend::CHUNK;
use crate::load::STEP;
use crate::pattern::Pattern;
use crate::scenario::{Kind, Spec};

/// The directory that is listed.
pub(crate) const LISTED: &str = "listed";

/// What the names of its files begin with, before a number of six digits.
pub(crate) const ENTRY: &str = "entry-";

/// Files are this old, as most are. A server may take care of files that were changed a moment ago.
const AGE: Duration = Duration::from_secs(86_400);

/// Distinct files that share a directory.
const IN_DIRECTORY: u64 = 1000;

/// All files that a load of some kind asks for, counted from 0.
#[derive(Clone, Copy)]
pub(crate) struct Files {
    distinct: bool,
    size: u64,
    pub(crate) count: u64,
}

impl Files {
    /// The files of `kind`, of so many bytes each, where `requests` are made for them; `None` where it is for something
    /// else.
    pub(crate) fn of(kind: Kind, size: usize, requests: u64) -> Option<Self> {
        let size = size as u64;
        match kind {
            // A hundred, or what stays well within the page cache.
            Kind::FileGet | Kind::FileTls | Kind::FileUnchanged => {
                Some(Self { distinct: false, size, count: (40_000_000 / size).clamp(1, 100) })
            }
            Kind::FileDistinct => Some(Self { distinct: true, size, count: requests }),
            _ => None,
        }
    }

    /// A file's path in requests and below the site.
    pub(crate) fn path(&self, index: u64) -> String {
        if self.distinct {
            format!("/distinct/{}/{index}.jpg", index / IN_DIRECTORY)
        } else {
            format!("/{}/{index}.jpg", self.size)
        }
    }

    /// A file's length. Distinct files differ in it, so that an answer to another request shows.
    pub(crate) fn len(&self, index: u64) -> u64 {
        if self.distinct { 1 + index % self.size } else { self.size }
    }

    /// Where in the `pattern` the bytes of a file begin.
    pub(crate) fn offset(&self, index: u64) -> u64 {
        index * STEP
    }

    /// The stream of bytes of which each file is a part. Distinct files are one hole each: a million of them take no
    /// space on the disk.
    pub(crate) fn pattern(&self) -> Pattern {
        if self.distinct { Pattern::zeros(CHUNK) } else { Pattern::new(CHUNK) }
    }

    fn make(&self, site: &Path) -> Result<()> {
        let pattern = self.pattern();
        for index in 0..self.count {
            let path = site.join(&self.path(index)[1..]);
            if index % IN_DIRECTORY == 0 {
                fs::create_dir_all(path.parent().context("a file without a directory")?)?;
            }
            let mut file = File::create(path)?;
            let len = self.len(index);
            if self.distinct {
                file.set_len(len)?;
            } else {
                let mut written = 0;
                while written < len {
                    written += file.write(pattern.at(self.offset(index) + written, len - written))? as u64;
                }
            }
            age(&file)?;
        }
        Ok(())
    }
}

/// Makes what `spec` needs and is not there yet.
pub(crate) fn prepare(spec: &Spec, quick: bool, dir: &Path) -> Result<()> {
    let site = dir.join("site");
    if spec.kind == Kind::FileListing {
        return make_listed(&site.join(LISTED), spec.size);
    }
    match Files::of(spec.kind, spec.size, spec.warmup + spec.work(quick)) {
        Some(files) if !site.join(&files.path(0)[1..]).exists() => files.make(&site),
        _ => Ok(()),
    }
}

fn make_listed(dir: &Path, entries: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    // Made in an order that is not theirs by name.
    for index in (0..entries).rev() {
        let file = File::create(dir.join(format!("{ENTRY}{index:06}.jpg")))?;
        file.set_len(index as u64)?;
        age(&file)?;
    }
    Ok(())
}

fn age(file: &File) -> Result<()> {
    Ok(file.set_modified(SystemTime::now() - AGE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_what_requests_for_them_expect() {
        let site = std::env::temp_dir().join(format!("wmproxy-bench-site-{}", std::process::id()));
        for (kind, size) in [(Kind::FileGet, 300_000), (Kind::FileDistinct, 16)] {
            let files = Files::of(kind, size, 20).unwrap();
            files.make(&site).unwrap();
            for index in 0..files.count {
                let text = fs::read(site.join(&files.path(index)[1..])).unwrap();
                assert_eq!(text.len() as u64, files.len(index));
                let first = text.len().min(CHUNK);
                assert!(files.pattern().agrees(files.offset(index), &text[..first]));
            }
        }
        fs::remove_dir_all(site).unwrap();
    }
}
