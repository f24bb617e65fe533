//! The file of users.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use wmproxy_runtime::clock::{self, Ticks};

use crate::auth::{Cache, Hash};

/// A line has some hundred bytes, so these are ten thousand users and more.
const LARGEST: u64 = 4 << 20;

/// How long a password that was right counts. Comparing one takes some 50 ms; once a minute that is nothing, even for many
/// users.
const LIFE: Duration = Duration::from_secs(60);

/// How often the file is looked at, as long as somebody comes.
const LOOK: Duration = Duration::from_secs(2);

/// The users of a file, as it was when last looked at, or of a list.
#[derive(Debug)]
pub struct Store {
    /// None for a list, which never changes.
    path: Option<PathBuf>,
    users: ArcSwap<Users>,
    cache: Cache,
    /// When the file was last looked at, in ticks.
    looked: AtomicU64,
    tried: Mutex<Tried>,
}

/// What was last made of the file.
#[derive(Debug)]
struct Tried {
    stamp: Option<Stamp>,
    version: u64,
}

/// By what a file shows that it is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds: of the content, and of the entry, which a copy that keeps the first does not keep.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why there are no users in a file.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It can't be read.
    #[error("can't read it: {0}")]
    Io(#[from] io::Error),
    /// It is larger than any such file.
    #[error("it is larger than 4 MiB")]
    TooLarge,
    /// It is no text.
    #[error("it is no text in UTF-8")]
    NoText,
    /// A line is wrong.
    #[error("line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Who may come.
#[derive(Debug)]
pub(super) struct Users {
    by_name: HashMap<Box<str>, User>,
    /// What a name that nobody has is compared with.
    any: Option<Arc<Hash>>,
    version: u64,
}

/// Somebody who may come.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: Arc<str>,
    pub(super) hash: Arc<Hash>,
}

impl Store {
    /// Reads a file of users.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Store, UsersError> {
        let (text, stamp) = read(path)?;
        let users = Users::parse(&text, 1)?;
        Ok(Store {
            path: Some(path.to_owned()),
            users: ArcSwap::from_pointee(users),
            cache: Cache::new(LIFE),
            looked: AtomicU64::new(clock::now().0),
            tried: Mutex::new(Tried { stamp: Some(stamp), version: 1 }),
        })
    }

    /// Names, each with its hash.
    ///
    /// # Errors
    /// What is wrong with them; a line is the number of one then.
    pub fn listed(users: &[(String, String)]) -> Result<Store, UsersError> {
        let mut all = Users::nobody(1);
        for (index, (name, hash)) in users.iter().enumerate() {
            all.add(name, hash).map_err(|reason| UsersError::Line { line: index + 1, reason })?;
        }
        Ok(Store {
            path: None,
            users: ArcSwap::from_pointee(all),
            cache: Cache::new(LIFE),
            looked: AtomicU64::new(0),
            tried: Mutex::new(Tried { stamp: None, version: 1 }),
        })
    }

    /// Reads the file anew if it has changed. What it said before stays if there is something wrong with it.
    ///
    /// # Errors
    /// What is wrong with it; that is told for each change once.
    pub fn renew(&self) -> Result<(), UsersError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(path).map(|meta| Stamp::of(&meta));
        if matches!((&stamp, &tried.stamp), (Ok(now), Some(before)) if now == before) {
            return Ok(());
        }
        let was_missing = std::mem::replace(&mut tried.stamp, stamp.ok()).is_none();
        let result = read(path).and_then(|(text, stamp)| {
            tried.stamp = Some(stamp);
            Users::parse(&text, tried.version + 1)
        });
        match result {
            Ok(users) => {
                tried.version += 1;
                self.users.store(Arc::new(users));
                Ok(())
            }
            // It was told when it went missing.
            Err(_) if was_missing && tried.stamp.is_none() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has another thread look at the file, if that is due.
    pub(super) fn follow(self: &Arc<Self>) {
        let Some(path) = &self.path else { return };
        let (now, looked) = (clock::now(), self.looked.load(Ordering::Relaxed));
        if now.since(Ticks(looked)) < LOOK {
            return;
        }
        let is_ours =
            self.looked.compare_exchange(looked, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if let (true, Ok(runtime)) = (is_ours, tokio::runtime::Handle::try_current()) {
            let (store, path) = (self.clone(), path.clone());
            runtime.spawn_blocking(move || {
                if let Err(error) = store.renew() {
                    tracing::warn!(path = %path.display(), %error, "users are as they were: the new file is not taken");
                }
            });
        }
    }

    /// Who may come now.
    pub(super) fn users(&self) -> Guard<Arc<Users>> {
        self.users.load()
    }

    /// Who came of late.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> Result<(String, Stamp), UsersError> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(UsersError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| UsersError::NoText)?;
    Ok((text, stamp))
}

impl Users {
    fn parse(text: &str, version: u64) -> Result<Users, UsersError> {
        let mut users = Users::nobody(version);
        for (index, line) in text.lines().enumerate() {
            let wrong = |reason: String| UsersError::Line { line: index + 1, reason };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let no_colon = || wrong("expected NAME:HASH".to_owned());
            let (name, hash) = line.split_once(':').ok_or_else(no_colon)?;
            // What stands behind another colon is a comment by the custom of such files.
            let hash = hash.split(':').next().unwrap_or(hash);
            users.add(name, hash).map_err(wrong)?;
        }
        Ok(users)
    }

    fn nobody(version: u64) -> Users {
        Users { by_name: HashMap::new(), any: None, version }
    }

    /// Adds somebody.
    ///
    /// # Errors
    /// What is wrong with the name or the hash.
    fn add(&mut self, name: &str, hash: &str) -> Result<(), String> {
        let hash: Arc<Hash> = Arc::new(hash.parse()?);
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("a name is not empty and has no control characters in it".to_owned());
        }
        self.any.get_or_insert_with(|| hash.clone());
        let user = User { name: name.into(), hash };
        match self.by_name.insert(Box::from(name), user) {
            Some(_) => Err(format!("`{name}` was there before")),
            None => Ok(()),
        }
    }

    /// Whoever has a name.
    pub(super) fn find(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// A hash of somebody, if there is anybody.
    pub(super) fn any_hash(&self) -> Option<&Arc<Hash>> {
        self.any.as_ref()
    }

    /// Another one for each change of the file.
    pub(super) fn version(&self) -> u64 {
        self.version
    }
}
