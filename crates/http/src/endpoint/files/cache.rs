//! The open files of a worker, so that one that is asked for often is neither looked for nor opened each time.
//!
//! What is here was right a moment ago: after a second it is looked for again. Small files lie here with their bytes, read
//! between two looks that saw the same version. Nothing of it is shared with other workers, and what nobody asks for any more
//! is closed, so that a file that was deleted gives its space back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wmproxy_files::Effort;
use wmproxy_files::file::File;
use wmproxy_files::path::PathName;
use wmproxy_net::pressure;
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_runtime::scope::Scope;
use wmproxy_runtime::worker;
use wmproxy_wire::head::coding::Preferred;

/// Files of a worker at the most. Few sites have more that are asked for all the time, and looking for one costs some
/// microseconds, not milliseconds.
const MOST: usize = 1024;

/// All workers together have no more than this part of the descriptors: the rest is for connections.
const SHARE: u64 = 8;

/// How long a file is believed to be the one at its path.
const TRUSTED: Duration = Duration::from_secs(1);

/// A file that nobody asks for is closed after this long, or up to [`LOOK_EVERY`] later.
const UNUSED: Duration = Duration::from_secs(20);

/// How often a worker looks for those.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Files of up to this size lie here with their bytes from the first request on: to send them then takes one call less, which
/// is some percent of such a request.
const SMALL: u64 = 16 * 1024;

/// Up to this size they do from the second request on. They are sent from here by one call, head and all; otherwise each
/// request would copy them twice, and look whether they have changed. Beyond it the kernel sends what it has itself for less.
const MEDIUM: u64 = 128 * 1024;

/// The bytes of a worker's files together.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// What was changed so lately could change again without another time to tell by: the clocks of file systems move on with the
/// kernel's ticks, of up to 10 ms, and a few have whole seconds only, FAT two of them.
const TICK: Duration = Duration::from_millis(50);
const COARSE_TICK: Duration = Duration::from_secs(2);

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
    /// The task that closes what is unused. Nobody waits for it at the end.
    static TENDING: Scope = Scope::new();
}

/// How many files all workers hold open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many files are held open because they may be asked for again.
pub fn files_open() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// A file that is held open.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) file: Arc<File>,
    /// All of its bytes, if they are here.
    bytes: Option<Box<[u8]>>,
    _counted: Counted,
}

/// Counts as one until it is dropped.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Counted {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Cache {
    places: HashMap<Rc<[u8]>, usize>,
    entries: Vec<Entry>,
    /// Where the next one to go is looked for.
    hand: usize,
    /// How many bytes of files are here.
    bytes: usize,
    /// Where keys are put together.
    key: Vec<u8>,
    is_tended: bool,
}

struct Entry {
    key: Rc<[u8]>,
    kept: Rc<Kept>,
    checked: Ticks,
    used: Ticks,
    /// Whether it was asked for since the hand passed it. Those that were not go first, so that who asks for all files
    /// once does not push out those that many ask for.
    is_wanted: bool,
}

/// What a path of a site names, if that is known.
pub(super) fn get(site: u64, name: &PathName, preferred: &Preferred) -> Option<Rc<Kept>> {
    CACHE.with_borrow_mut(|cache| {
        cache.write_key(site, name, preferred);
        let place = *cache.places.get(&cache.key[..])?;
        let now = clock::now();
        cache.hold_bytes(place);
        let entry = &mut cache.entries[place];
        (entry.used, entry.is_wanted) = (now, true);
        // What is yet to be read would be found out to be another one at its end, when its head is gone.
        let is_right = entry.kept.bytes.is_some() || entry.kept.file.is_unchanged();
        (is_right && now.since(entry.checked) < TRUSTED).then(|| Rc::clone(&entry.kept))
    })
}

/// Keeps what a path of a site names. The answer is what was there already, if that is the same.
pub(super) fn put(site: u64, name: &PathName, preferred: &Preferred, file: Arc<File>) -> Rc<Kept> {
    CACHE.with_borrow_mut(|cache| {
        if pressure::check(file.descriptor()).is_err() {
            cache.clear();
            return Rc::new(Kept { file, bytes: None, _counted: Counted::new() });
        }
        cache.write_key(site, name, preferred);
        let kept = cache.put(file);
        if !cache.is_tended {
            cache.is_tended = true;
            TENDING.with(|scope| scope.spawn(tend()));
        }
        kept
    })
}

/// Forgets what a path of a site named.
pub(super) fn remove(site: u64, name: &PathName, preferred: &Preferred) {
    CACHE.with_borrow_mut(|cache| {
        cache.write_key(site, name, preferred);
        if let Some(&place) = cache.places.get(&cache.key[..]) {
            cache.remove(place);
        }
    });
}

/// Closes all files that nobody is sending. False if there were none.
pub(super) fn clear() -> bool {
    CACHE.with_borrow_mut(|cache| {
        let had_some = !cache.entries.is_empty();
        cache.clear();
        had_some
    })
}

/// Closes what is unused from time to time, until nothing is left.
async fn tend() {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let is_over = CACHE.with_borrow_mut(|cache| {
            cache.close_unused(clock::now());
            cache.is_tended = !cache.entries.is_empty();
            !cache.is_tended
        });
        if is_over {
            return;
        }
    }
}

impl Kept {
    /// The file, with its bytes if they are no more than `most`, at hand and at rest.
    fn new(file: Arc<File>, most: u64) -> Kept {
        let bytes = if file.version.len <= most && is_at_rest(&file) { read(&file) } else { None };
        Kept { file, bytes, _counted: Counted::new() }
    }

    /// All bytes of the file, if they are here.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }

    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }
}

/// Whether a file was changed long enough ago that another change would show.
fn is_at_rest(file: &File) -> bool {
    let is_coarse = file.version.changed % 1_000_000_000 == 0;
    let tick = if is_coarse { COARSE_TICK } else { TICK };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
    now - file.version.changed >= i128::from(tick.as_nanos() as u64)
}

/// The bytes of a file, if they are in memory.
fn read(file: &File) -> Option<Box<[u8]>> {
    let mut bytes = vec![0; usize::try_from(file.version.len).ok()?].into_boxed_slice();
    let mut at = 0;
    while at < bytes.len() {
        at += file.read_at(&mut bytes[at..], at as u64, Effort::Cached).ok()?;
    }
    file.is_unchanged().then_some(bytes)
}

/// How many files a worker holds open.
fn capacity() -> usize {
    static CAPACITY: OnceLock<usize> = OnceLock::new();
    *CAPACITY.get_or_init(|| {
        let workers = worker::default_count().max(1);
        let share = usize::try_from(pressure::descriptors() / SHARE).unwrap_or(usize::MAX);
        (share / workers).clamp(1, MOST)
    })
}

impl Cache {
    fn write_key(&mut self, site: u64, name: &PathName, preferred: &Preferred) {
        self.key.clear();
        self.key.extend_from_slice(&site.to_ne_bytes());
        self.key.extend(preferred.iter().map(|coding| coding.map_or(0, |coding| coding as u8 + 1)));
        self.key.extend([name.is_directory(), name.shows_directory()].map(u8::from));
        self.key.extend_from_slice(name.as_bytes());
    }

    /// Keeps a file by the key that is written.
    fn put(&mut self, file: Arc<File>) -> Rc<Kept> {
        let now = clock::now();
        if let Some(&place) = self.places.get(&self.key[..]) {
            let entry = &mut self.entries[place];
            let is_same = entry.kept.file.is_same(&file);
            if is_same {
                entry.checked = now;
                return Rc::clone(&entry.kept);
            }
            self.remove(place);
        }
        let kept = Rc::new(Kept::new(file, SMALL));
        while !self.entries.is_empty()
            && (self.entries.len() >= capacity() || self.bytes + kept.len() > MOST_BYTES)
        {
            self.remove_one();
        }
        let key: Rc<[u8]> = self.key[..].into();
        self.bytes += kept.len();
        self.places.insert(Rc::clone(&key), self.entries.len());
        let entry = Entry { key, kept: Rc::clone(&kept), checked: now, used: now, is_wanted: false };
        self.entries.push(entry);
        kept
    }

    /// Has the bytes of a file here that is asked for again, if it has the size for that.
    fn hold_bytes(&mut self, place: usize) {
        let Entry { kept, .. } = &self.entries[place];
        if kept.bytes.is_some()
            || self.bytes + kept.file.version.len as usize > MOST_BYTES
            || kept.file.version.len > MEDIUM
        {
            return;
        }
        let kept = Kept::new(Arc::clone(&kept.file), MEDIUM);
        self.bytes += kept.len();
        self.entries[place].kept = Rc::new(kept);
    }

    fn remove(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.bytes -= entry.kept.len();
        self.places.remove(&entry.key);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(Rc::clone(&moved.key), place);
        }
    }

    /// Makes room: the hand goes round, and takes the first that was not asked for since it came by.
    fn remove_one(&mut self) {
        loop {
            self.hand = if self.hand < self.entries.len() { self.hand } else { 0 };
            let Some(entry) = self.entries.get_mut(self.hand) else { return };
            if !std::mem::take(&mut entry.is_wanted) {
                return self.remove(self.hand);
            }
            self.hand += 1;
        }
    }

    fn close_unused(&mut self, now: Ticks) {
        if pressure::is_high() {
            return self.clear();
        }
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            match now.since(entry.used) >= UNUSED {
                true => self.remove(place),
                false => place += 1,
            }
        }
        if self.entries.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        (self.places, self.entries) = (HashMap::new(), Vec::new());
        (self.hand, self.bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests;
