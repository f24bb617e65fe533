use std::io;
use std::sync::{Mutex, mpsc};

use wmproxy_files::options::FilesOptions;
use wmproxy_files::produce::Produce;
use wmproxy_testkit::TempDir;
use wmproxy_wire::head::Fields;

use super::*;
use crate::exchange::{Break, Cut};
use crate::scratch::Scratch;

fn on_a_worker(test: impl Future<Output = ()>) {
    tokio::runtime::LocalRuntime::new().unwrap().block_on(test);
}

fn files(dir: &TempDir) -> Files {
    Files::new(FilesOptions::default().spec(dir.path().to_owned()).unwrap()).unwrap()
}

fn name(path: &str) -> PathName {
    let mut name = PathName::default();
    name.read(path.as_bytes()).unwrap();
    name
}

/// The file at a path.
fn found(files: &Files, path: &str) -> Arc<File> {
    match files.site.look(&name(path), &Preferred::default(), Effort::Full) {
        Ok(Found::File(file)) => file,
        other => panic!("{path} is {other:?}"),
    }
}

#[test]
fn a_file_that_others_are_busy_with_closes_no_other() {
    on_a_worker(async {
        let dir = TempDir::new();
        std::fs::write(dir.path().join("other"), "other").unwrap();
        let (files, preferred) = (files(&dir), Preferred::default());
        let kept = files.learn(&name("/other"), &preferred, Ok(Found::File(found(&files, "/other"))));
        assert!(matches!(kept, Answer::File(_)));
        let busy = files.learn(&name("/busy"), &preferred, Err(LookError::Busy));
        assert!(matches!(busy, Answer::Status(503)));
        assert!(cache::get(files.id, &name("/other"), &preferred).is_some());
    });
}

#[test]
fn a_look_that_takes_too_long_is_a_503() {
    let dir = TempDir::new();
    let files = files(&dir);
    assert_eq!(files.told(Ok(1)), Ok(Some(1)));
    assert_eq!(files.told::<()>(Err(Undone::Panicked)), Ok(None));
    assert_eq!(files.told::<()>(Err(Undone::Late)), Err(Failure::Status(503)));
}

/// What becomes of a response whose body comes from `source`.
async fn outcome(source: &mut impl Source) -> Outcome {
    let piece = poll_fn(|cx| {
        let mut scratch = Scratch::take();
        source.poll_piece(cx, &mut scratch, usize::MAX, &mut Fields::new()).map_ok(|_| ())
    });
    Cut::from(Break::Source(piece.await.unwrap_err())).outcome()
}

/// Makes nothing until the test is over.
#[derive(Debug)]
struct Hangs(Arc<Mutex<mpsc::Receiver<()>>>);

impl Hangs {
    fn wait(&self) -> bool {
        self.0.lock().unwrap().recv().is_ok()
    }
}

impl Produce for Hangs {
    fn produce(&mut self, _: &mut Vec<u8>) -> io::Result<bool> {
        Ok(self.wait())
    }

    fn descriptors(&self) -> usize {
        0
    }
}

#[test]
fn a_body_of_which_nothing_more_comes_is_cut_off() {
    on_a_worker(async {
        let dir = TempDir::new();
        std::fs::write(dir.path().join("file"), "file").unwrap();
        let disk = Disk::impatient();
        let (go, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let hang = |_| {
            let hangs = Hangs(Arc::clone(&gate));
            disk.start(move || hangs.wait())
        };
        // As many as are done at once, and more.
        let hanging: Vec<_> = (0..64).map(hang).collect();
        let mut source = FileSource::new(Arc::clone(&disk), found(&files(&dir), "/file"), 0..4);
        source.forget();
        assert_eq!(outcome(&mut source).await, Outcome::FileUnreadable);
        let produce = Box::new(Hangs(Arc::clone(&gate)));
        let mut source = ProducedSource::new(Arc::clone(&disk), None, produce).unwrap();
        assert_eq!(outcome(&mut source).await, Outcome::FileUnreadable);
        drop((go, hanging));
    });
}
