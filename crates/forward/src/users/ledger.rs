//! The file in which quotas outlive restarts: how many bytes each user has used up of the day or the month.
//!
//! Several processes may have it in common, as the old and the new one do during an upgrade. None of them owns the numbers:
//! each adds to the file what has passed through it since the last time, under a lock, and takes the sum for its own. The file
//! is replaced whole, so that it is never half a file.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::period::Period;

const FILE: &str = "forward-quotas.json";
const LOCK: &str = "forward-quotas.lock";

/// The form of the file. Another one is somebody else's.
const VERSION: u32 = 1;

/// How long another process is waited for: it holds the lock while it writes a few KiB.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that is read: a hundred thousand users are less. What is larger is not ours.
const LARGEST: u64 = 16 << 20;

/// What a user has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(with = "period_text")]
    pub(super) period: Period,
    /// Bytes of both ways in the period.
    pub(super) bytes: u64,
}

impl Entry {
    /// Whether its day or month is over.
    pub(super) fn is_over(self, now: SystemTime) -> bool {
        self.period.gives_way_to(Period::of(self.period.kind(), now))
    }
}

/// What all have used up, by their names.
pub(super) type Entries = BTreeMap<Arc<str>, Entry>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    version: u32,
    users: BTreeMap<String, Entry>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// The one in a directory, which need not be there yet.
    pub(super) fn new(directory: &Path) -> Ledger {
        Ledger { directory: directory.to_owned() }
    }

    /// Where it is.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What it says. A file that is none of ours is put aside and named in the log, and the counts begin at zero.
    pub(super) fn read(&self) -> io::Result<Entries> {
        // Without a file there is nothing to lock, and perhaps no directory.
        if !self.file().try_exists()? {
            return Ok(Entries::new());
        }
        // What can't be locked, for nobody may write there, can be read all the same: the file is always whole.
        let _lock = self.lock();
        self.entries()
    }

    /// Changes it, and answers what it says then.
    pub(super) fn update(&self, change: impl FnOnce(&mut Entries)) -> io::Result<Entries> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let _lock = self.lock()?;
        let mut entries = self.entries()?;
        change(&mut entries);
        self.write(&entries)?;
        Ok(entries)
    }

    /// Keeps other processes out until it is dropped.
    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.directory.join(LOCK))?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock"));
                }
            }
        }
    }

    fn entries(&self) -> io::Result<Entries> {
        let file = self.file();
        match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
            Err(error) => return Err(error),
            Ok(meta) if meta.len() > LARGEST => return self.put_aside("it is larger than 16 MiB"),
            Ok(_) => {}
        }
        let sheet = serde_json::from_slice::<Sheet>(&fs::read(&file)?);
        match sheet {
            Ok(sheet) if sheet.version == VERSION => {
                Ok(sheet.users.into_iter().map(|(name, entry)| (name.into(), entry)).collect())
            }
            Ok(sheet) => {
                self.put_aside(&format!("it is of version {}, which is not known here", sheet.version))
            }
            Err(error) => self.put_aside(&error.to_string()),
        }
    }

    /// Keeps a file for whoever wants to look into it, out of the way.
    fn put_aside(&self, reason: &str) -> io::Result<Entries> {
        let (file, seconds) = (self.file(), SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs());
        let aside = file.with_extension(format!("json.broken-{seconds}"));
        fs::rename(&file, &aside)?;
        let (file, aside) = (file.display(), aside.display());
        tracing::warn!(%file, %aside, reason, "the file of quotas can't be read: it is put aside, and users begin at zero");
        Ok(Entries::new())
    }

    fn write(&self, entries: &Entries) -> io::Result<()> {
        let users = entries.iter().map(|(name, entry)| (String::from(&**name), *entry)).collect();
        let text = serde_json::to_vec_pretty(&Sheet { version: VERSION, users })?;
        // Nobody else writes under this name, for the lock is held; what is there was left by a crash.
        let draft = self.directory.join(format!("{FILE}.new"));
        let _ = fs::remove_file(&draft);
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        open.write_all(&text)?;
        open.sync_all()?;
        fs::rename(&draft, self.file())?;
        // The name has to last as well.
        File::open(&self.directory)?.sync_all()
    }
}

mod period_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Period;

    pub(super) fn serialize<S: Serializer>(period: &Period, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(period)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
