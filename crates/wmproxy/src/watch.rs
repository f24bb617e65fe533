//! Watching the config's files.
//!
//! Directories are watched, not files: editors and config managers replace a file, and a watch of the old one would
//! never hear of it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config;

/// A change is acted on when no other has followed it for so long: an editor writes in several steps.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Tells when the content of a set of files has changed.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<()>,
    files: Vec<PathBuf>,
    directories: BTreeSet<PathBuf>,
    seen: u64,
}

impl Watch {
    /// Begins to watch. Where that can't be done a warning says so, and nothing is ever heard.
    pub(crate) fn new(files: &[PathBuf]) -> Watch {
        let (tell, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too, and must not lead to reading them again.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = tell.send(());
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "the config can't be watched"))
        .ok();
        let mut watch = Watch { watcher, events, files: Vec::new(), directories: BTreeSet::new(), seen: 0 };
        watch.follow(files);
        watch
    }

    /// Watches these files from now on, as they are now.
    pub(crate) fn follow(&mut self, files: &[PathBuf]) {
        self.files = files.to_vec();
        self.seen = fingerprint(files);
        let wanted: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for old in self.directories.difference(&wanted) {
            // It may be gone altogether.
            let _ = watcher.unwatch(old);
        }
        for new in wanted.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "the config can't be watched");
            }
        }
        self.directories = wanted;
    }

    /// Waits until the files have another content than before. Never resolves without a watch. Cancel safe.
    pub(crate) async fn changed(watch: &mut Option<Watch>) {
        let Some(watch) = watch else { return std::future::pending().await };
        loop {
            if watch.events.recv().await.is_none() {
                return std::future::pending().await;
            }
            while let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, watch.events.recv()).await {}
            let now = fingerprint(&watch.files);
            if now != watch.seen {
                watch.seen = now;
                return;
            }
        }
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A number for what the files hold. Directories of an `include` pattern count with their entries.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        content(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// What the config's reader would take for the file: nothing that it would refuse, or would wait for.
fn content(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    config::open(file)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_a_change_and_a_touched_one_is_not() {
        let dir = std::env::temp_dir().join(format!("wmproxy-watch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a.toml");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Some(Watch::new(std::slice::from_ref(&file)));
        std::fs::write(&file, "one").unwrap();
        let quiet = tokio::time::timeout(DEBOUNCE * 3, Watch::changed(&mut watch)).await;
        assert!(quiet.is_err(), "the content is the same");
        std::fs::write(dir.join("b"), "two").unwrap();
        std::fs::rename(dir.join("b"), &file).unwrap();
        tokio::time::timeout(Duration::from_secs(10), Watch::changed(&mut watch)).await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
