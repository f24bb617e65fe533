use std::future::poll_fn;
use std::sync::mpsc;

use wmproxy_testkit::TempDir;

use super::*;

fn on_a_worker(test: impl Future<Output = ()>) {
    tokio::runtime::LocalRuntime::new().unwrap().block_on(test);
}

/// One that is given all the time that a test may need.
fn disk() -> Arc<Disk> {
    Arc::new(Disk::new(PATIENCE, PATIENCE))
}

/// What waits until the test lets it go.
struct Gate(Option<mpsc::Sender<()>>, Arc<Mutex<mpsc::Receiver<()>>>);

impl Gate {
    fn new() -> Gate {
        let (go, gate) = mpsc::channel();
        Gate(Some(go), Arc::new(Mutex::new(gate)))
    }

    fn wait(&self) -> impl FnOnce() -> bool + Send + 'static {
        let gate = Arc::clone(&self.1);
        move || gate.lock().unwrap().recv().is_ok()
    }

    fn open(&mut self) {
        self.0 = None;
    }
}

async fn done<T: Send + 'static>(work: &mut Work<T>) -> Result<T, Undone> {
    poll_fn(|cx| work.poll(cx)).await
}

#[test]
fn who_does_not_ask_for_what_comes_holds_nobody_up() {
    on_a_worker(async {
        let (disk, mut gate) = (disk(), Gate::new());
        let mut first: Vec<_> = (0..FOR_ONE).map(|_| disk.start(gate.wait())).collect();
        let mut behind: Vec<_> = (0..FOR_ONE).map(|_| disk.start(|| 1)).collect();
        // They wait in line, and nobody asks for them again.
        for work in &mut behind {
            assert!(poll_fn(|cx| Poll::Ready(work.poll(cx))).await.is_pending());
        }
        gate.open();
        for work in &mut first {
            assert_eq!(done(work).await, Ok(false));
        }
        assert_eq!(done(&mut disk.start(|| 2)).await, Ok(2));
    });
}

#[test]
fn who_waits_for_a_disk_does_not_stand_behind_toil() {
    on_a_worker(async {
        let (disk, mut gate) = (disk(), Gate::new());
        let toils: Vec<_> = (0..2 * AT_ONCE).map(|_| disk.start_toil(gate.wait())).collect();
        assert_eq!(done(&mut disk.start(|| 1)).await, Ok(1));
        gate.open();
        for mut toil in toils {
            assert_eq!(done(&mut toil).await, Ok(false));
        }
    });
}

#[test]
fn a_disk_that_hangs_holds_up_its_own_and_nobody_else() {
    on_a_worker(async {
        let (hangs, mut gate) = (Disk::impatient(), Gate::new());
        let works: Vec<_> = (0..2 * AT_ONCE).map(|_| hangs.start(gate.wait())).collect();
        let toils: Vec<_> = (0..2 * AT_ONCE).map(|_| hangs.start_toil(gate.wait())).collect();
        // Those that run and those that wait in line alike are waited for so long and no longer.
        for mut work in works.into_iter().chain(toils) {
            assert_eq!(done(&mut work).await, Err(Undone::Late));
        }
        // The threads still wait there, and another disk has its own.
        let well = disk();
        assert_eq!(done(&mut well.start(|| 1)).await, Ok(1));
        assert_eq!(done(&mut well.start_toil(|| 2)).await, Ok(2));
        gate.open();
        let mut again = hangs.works.own.clone().acquire_many_owned(FOR_ONE as u32).await;
        assert!(again.as_mut().is_ok(), "what is answered at last gives its place back");
    });
}

#[test]
fn what_has_come_in_time_is_had_whenever_somebody_asks() {
    on_a_worker(async {
        let disk = Disk::impatient();
        let mut work = disk.start(|| 1);
        while work.done.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        work.late.as_mut().await;
        assert_eq!(done(&mut work).await, Ok(1));
    });
}

#[test]
fn what_panics_comes_to_nothing() {
    on_a_worker(async {
        let mut work = disk().start(|| -> () { panic!("on purpose") });
        assert_eq!(done(&mut work).await, Err(Undone::Panicked));
    });
}

#[test]
fn directories_of_one_file_system_share_its_places() {
    let dir = TempDir::new();
    let here = Disk::of(dir.path()).unwrap();
    assert!(Arc::ptr_eq(&here, &Disk::of(dir.path()).unwrap()));
    assert!(!Arc::ptr_eq(&here, &Disk::of(Path::new("/proc")).unwrap()));
    assert!(Disk::of(&dir.path().join("missing")).is_err());
}
