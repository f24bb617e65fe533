//! Sinks against files, pipes that nobody reads and a disk that is full.

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode};

use super::scratch::Scratch;
use super::sink::{QUEUE_BYTES, Sink, SinkCounters, Target};
use super::sinks::Sinks;

const LONG: Duration = Duration::from_secs(10);

#[test]
fn logs_that_name_one_file_share_its_writer() {
    let dir = Scratch::new("sink-share");
    let sinks = Sinks::new();
    let one = sinks.open(&Target::File(dir.path("a.log"))).unwrap();
    let two = sinks.open(&Target::File(dir.path("./a.log"))).unwrap();
    assert!(Arc::ptr_eq(one.handle(), two.handle()));
    for i in 0..1000 {
        let sink = if i % 2 == 0 { &one } else { &two };
        sink.write(format!("line {i}\n").as_bytes());
    }
    assert!(sinks.flush(LONG));
    let expected: String = (0..1000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(fs::read_to_string(dir.path("a.log")).unwrap(), expected);
    assert_eq!(fs::metadata(dir.path("a.log")).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn what_is_queued_outlives_the_last_sink() {
    let dir = Scratch::new("sink-last");
    let sinks = Sinks::new();
    let target = Target::File(dir.path("a.log"));
    let sink = sinks.open(&target).unwrap();
    sink.write(b"first\n");
    drop(sink);
    assert!(sinks.flush(LONG));
    assert_eq!(fs::read_to_string(dir.path("a.log")).unwrap(), "first\n");
    // The closed writer is not handed out again.
    sinks.open(&target).unwrap().write(b"second\n");
    drop(sinks);
    assert_eq!(fs::read_to_string(dir.path("a.log")).unwrap(), "first\nsecond\n");
}

#[test]
fn reopening_goes_on_in_a_new_file() {
    let dir = Scratch::new("sink-reopen");
    let sinks = Sinks::new();
    let sink = sinks.open(&Target::File(dir.path("a.log"))).unwrap();
    sink.write(b"old\n");
    assert!(sinks.flush(LONG));
    fs::rename(dir.path("a.log"), dir.path("a.log.1")).unwrap();
    sinks.reopen();
    // The writer may take the request and the line in one go, and then the line still belongs to the old file.
    let until = Instant::now() + LONG;
    while !dir.path("a.log").exists() {
        assert!(Instant::now() < until, "the file was not made anew");
        std::thread::yield_now();
    }
    sink.write(b"new\n");
    assert!(sinks.flush(LONG));
    assert_eq!(fs::read_to_string(dir.path("a.log.1")).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(dir.path("a.log")).unwrap(), "new\n");
}

#[test]
fn a_reader_that_stops_costs_lines_and_not_time() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let counters = Arc::new(SinkCounters::default());
    let sink = Sink::over(Target::Stdout, OwnedFd::from(writer).into(), counters.clone()).unwrap();
    let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<u8>>();
    let lines = 3 * QUEUE_BYTES / line.len();
    let started = Instant::now();
    for _ in 0..lines {
        sink.write(&line);
    }
    assert!(started.elapsed() < LONG, "a full queue made the caller wait");
    let dropped = counters.dropped.get();
    assert!(dropped > 0 && (dropped as usize) < lines);
    drop(sink);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), (lines - dropped as usize) * line.len());
    assert!(all.chunks(line.len()).all(|chunk| chunk == line));
}

#[test]
fn a_full_disk_is_counted_and_survived() {
    let sinks = Sinks::new();
    let sink = sinks.open(&Target::File("/dev/full".into())).unwrap();
    sink.write(b"lost\n");
    assert!(sinks.flush(LONG));
    assert_eq!(sinks.counters().failed.get(), 1);
    sink.write(b"lost too\n");
    assert!(sinks.flush(LONG));
    assert_eq!(sinks.counters().failed.get(), 2);
}

#[test]
fn a_log_that_is_stuck_is_waited_for_once() {
    let dir = Scratch::new("sink-stuck");
    let path = dir.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Open at both ends, but never read.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sinks = Sinks::new();
    let sink = sinks.open(&Target::File(path)).unwrap();
    // More than a pipe holds.
    sink.write(&[b'x'; 1 << 20]);
    assert!(!sinks.flush(Duration::from_millis(10)));
    let started = Instant::now();
    drop(sinks);
    assert!(started.elapsed() < Duration::from_secs(1), "the end waited a second time");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let sinks = Sinks::new();
    let dir = Scratch::new("sink-missing");
    assert!(sinks.open(&Target::File(dir.path("none/a.log"))).is_err());
    assert!(sinks.open(&Target::File(dir.path(""))).is_err());
}

#[test]
fn the_first_line_goes_at_once_and_the_next_go_together() {
    // On a datagram socket each write is a message of its own.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(LONG)).unwrap();
    let counters = Arc::new(SinkCounters::default());
    let sink = Sink::over(Target::Stdout, OwnedFd::from(theirs).into(), counters).unwrap();
    let mut buf = [0; 4096];
    sink.write(b"first\n");
    let n = ours.recv(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"first\n");
    for _ in 0..100 {
        sink.write(b"more\n");
    }
    let mut got = 0;
    let mut writes = 0;
    while got < 500 {
        got += ours.recv(&mut buf).unwrap();
        writes += 1;
    }
    assert!(writes <= 2, "{writes} writes");
}
