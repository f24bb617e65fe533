use std::fs::{FileTimes, OpenOptions};
use std::io::Write;
use std::path::Path;

use wmproxy_testkit::TempDir;

use super::*;

fn open(path: &Path) -> File {
    let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
    let version = Version::of(&fstat(&fd).unwrap());
    File::new(fd, version, "text/plain".into(), None)
}

fn read(file: &File, room: usize, offset: u64, effort: Effort) -> Result<Vec<u8>, ReadError> {
    let mut buffer = vec![0; room];
    let read = file.read_at(&mut buffer, offset, effort)?;
    buffer.truncate(read);
    Ok(buffer)
}

#[test]
fn no_more_is_read_than_was_found() {
    let dir = TempDir::new();
    let path = dir.write("f", "0123456789");
    let file = open(&path);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    for effort in [Effort::Full, Effort::Cached] {
        assert_eq!(read(&file, 100, 0, effort).unwrap(), b"0123456789");
        assert_eq!(read(&file, 3, 4, effort).unwrap(), b"456");
        assert_eq!(read(&file, 100, 7, effort).unwrap(), b"789");
        for offset in [10, 12, u64::MAX] {
            assert_eq!(read(&file, 100, offset, effort).unwrap(), b"");
        }
        assert_eq!(read(&file, 0, 0, effort).unwrap(), b"");
    }
}

#[test]
fn a_file_that_shrinks_is_not_made_up_for() {
    let dir = TempDir::new();
    let path = dir.write("f", "0123456789");
    let file = open(&path);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    for effort in [Effort::Full, Effort::Cached] {
        assert_eq!(read(&file, 100, 0, effort).unwrap(), b"01234");
        assert!(matches!(read(&file, 100, 5, effort), Err(ReadError::Shorter)));
    }
}

/// Whether a file that is open is unchanged after something was done to its path, and whether it is the same as what is there.
fn after(what: impl Fn(&Path)) -> (bool, bool) {
    let dir = TempDir::new();
    let path = dir.write("f", "0123456789");
    let file = open(&path);
    assert!(file.is_unchanged() && file.is_same(&open(&path)));
    // Time has to go on by one tick of the kernel's for its stamps to differ.
    while open(&path).version.changed == file.version.changed {
        what(&path);
    }
    (file.is_unchanged(), file.is_same(&open(&path)))
}

#[test]
fn a_change_of_bytes_is_noticed_and_a_new_file_in_its_place_spares_the_old() {
    let writable = |path: &Path| OpenOptions::new().write(true).open(path).unwrap();
    assert_eq!(after(|path| writable(path).write_all(b"9876543210").unwrap()), (false, false));
    assert_eq!(after(|path| writable(path).set_len(9).unwrap()), (false, false));
    let replace = |path: &Path| {
        std::fs::write(path.with_extension("new"), "9876543210").unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    assert_eq!(after(replace), (true, false));
    // What is set back is not noticed by who reads, but by who looks again.
    let set_back = |path: &Path| {
        let mut file = writable(path);
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all(b"x").unwrap();
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    };
    assert_eq!(after(set_back), (true, false));
}

#[test]
fn bytes_in_memory_are_read_where_the_kernel_does_not_tell() {
    let dir = TempDir::new();
    let disk = open(&dir.write("f", "0123456789"));
    // What a file system without an answer leaves: nothing is read on a worker, everything beside it.
    disk.memory.0.store(UNKNOWN, Ordering::Relaxed);
    assert!(matches!(read(&disk, 10, 0, Effort::Cached), Err(ReadError::WouldBlock)));
    assert_eq!(read(&disk, 10, 0, Effort::Full).unwrap(), b"0123456789");

    let memory = rustix::fs::memfd_create("f", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&memory, b"0123456789").unwrap();
    let version = Version::of(&fstat(&memory).unwrap());
    let memory = File::new(memory, version, "text/plain".into(), None);
    assert_eq!(read(&memory, 10, 0, Effort::Cached).unwrap(), b"0123456789");
    assert_ne!(memory.memory.0.load(Ordering::Relaxed), UNKNOWN);
}

#[test]
fn times_before_1970_and_after_9999_are_told_somehow() {
    let version = Version { device: 0, inode: 0, len: 1, modified: -1, changed: 0 };
    assert_eq!(&version.last_modified(), b"Thu, 01 Jan 1970 00:00:00 GMT");
    assert_eq!(version.etag(None).len(), 2 + 32 + 2);
    let late = Version { modified: i128::MAX, ..version };
    assert_eq!(&late.last_modified(), b"Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn a_time_that_was_cut_off_to_its_second_is_not_older() {
    const SECOND: i128 = NANOSECONDS;
    let version = |modified| Version { device: 0, inode: 0, len: 1, modified, changed: 0 };
    for (form, original, is_older) in [
        (7 * SECOND + 5, 7 * SECOND + 5, false),
        (7 * SECOND + 6, 7 * SECOND + 5, false),
        (7 * SECOND + 4, 7 * SECOND + 5, true),
        (7 * SECOND, 7 * SECOND + 5, false),
        (6 * SECOND, 7 * SECOND + 5, true),
        (7 * SECOND, 7 * SECOND, false),
        (-SECOND, -1, false),
        (-2 * SECOND, -1, true),
    ] {
        assert_eq!(version(form).is_older(&version(original)), is_older, "{form} {original}");
    }
}
