use wmproxy_files::options::FilesOptions;
use wmproxy_files::site::{Found, Site};
use wmproxy_testkit::TempDir;

use super::*;

struct Tree {
    root: TempDir,
    site: Arc<Site>,
    cache: Cache,
}

impl Tree {
    fn new() -> Tree {
        let root = TempDir::new();
        let site = Site::new(FilesOptions::default().spec(root.path().to_owned()).unwrap()).unwrap();
        Tree { root, site, cache: Cache::default() }
    }

    fn file(&self, name: &str) -> (PathName, Arc<File>) {
        let mut path = PathName::default();
        path.read(format!("/{name}").as_bytes()).unwrap();
        match self.site.look(&path, &Preferred::default(), Effort::Full).unwrap() {
            Found::File(file) => (path, file),
            other => panic!("{name} is {other:?}"),
        }
    }

    fn put(&mut self, name: &str) -> Rc<Kept> {
        let (path, file) = self.file(name);
        self.cache.write_key(1, &path, &Preferred::default());
        self.cache.put(file)
    }

    /// What a second request finds.
    fn ask_again(&mut self, name: &str) -> Rc<Kept> {
        let (path, _) = self.file(name);
        self.cache.write_key(1, &path, &Preferred::default());
        let place = self.cache.places[&self.cache.key[..]];
        self.cache.hold_bytes(place);
        Rc::clone(&self.cache.entries[place].kept)
    }

    fn has(&mut self, name: &str) -> bool {
        let mut path = PathName::default();
        path.read(format!("/{name}").as_bytes()).unwrap();
        self.cache.write_key(1, &path, &Preferred::default());
        let Some(&place) = self.cache.places.get(&self.cache.key[..]) else { return false };
        self.cache.entries[place].is_wanted = true;
        true
    }

    fn check(&self) {
        self.cache.check();
    }
}

impl Cache {
    fn check(&self) {
        assert_eq!(self.places.len(), self.entries.len());
        for (key, &place) in &self.places {
            assert_eq!(*key, self.entries[place].key);
        }
        let bytes: usize = self.entries.iter().map(|entry| entry.kept.len()).sum();
        assert_eq!(bytes, self.bytes);
    }
}

/// Until what was written is at rest.
fn rest() {
    std::thread::sleep(TICK + Duration::from_millis(10));
}

#[test]
fn who_asks_for_everything_once_pushes_nobody_out() {
    let mut tree = Tree::new();
    for name in 0..3 * capacity() {
        tree.root.write(&name.to_string(), "");
    }
    tree.root.write("wanted", "");
    tree.put("wanted");
    for name in 0..3 * capacity() {
        tree.put(&name.to_string());
        assert!(tree.has("wanted"));
        assert!(tree.cache.entries.len() <= capacity());
    }
    tree.check();
    assert!(!tree.has("0"));
    assert!(tree.has(&(3 * capacity() - 1).to_string()));
}

#[test]
fn the_bytes_of_files_have_a_limit() {
    let mut tree = Tree::new();
    let files = (MOST_BYTES / MEDIUM as usize) + 3;
    for name in 0..files {
        tree.root.write(&name.to_string(), &"x".repeat(MEDIUM as usize));
    }
    tree.root.write("small", &"x".repeat(SMALL as usize));
    tree.root.write("large", &"x".repeat(MEDIUM as usize + 1));
    rest();
    for name in 0..files {
        let name = name.to_string();
        assert_eq!(tree.put(&name).bytes(), None, "who asks once costs no memory");
        let has_room = tree.cache.bytes + MEDIUM as usize <= MOST_BYTES;
        assert_eq!(tree.ask_again(&name).bytes().map(<[u8]>::len), has_room.then_some(MEDIUM as usize));
        assert!(tree.cache.bytes <= MOST_BYTES);
    }
    assert_eq!(tree.cache.bytes, MOST_BYTES);
    tree.check();
    // A small one has its bytes at once, and makes room for them.
    assert_eq!(tree.put("small").bytes().map(<[u8]>::len), Some(SMALL as usize));
    assert!(tree.cache.bytes <= MOST_BYTES);
    tree.put("large");
    assert_eq!(tree.ask_again("large").bytes(), None);
    tree.check();
    tree.cache.clear();
    tree.check();
}

#[tokio::test(flavor = "local")]
async fn what_is_the_same_stays_and_what_is_not_is_replaced() {
    let tree = Tree::new();
    let plain = Preferred::default();
    let found = || {
        let (name, file) = tree.file("a");
        put(1, &name, &plain, file);
        get(1, &name, &plain).unwrap()
    };
    tree.root.write("a", "one");
    // Changed just now, it may be changed again without a trace.
    assert_eq!(found().bytes(), None);
    rest();
    let first = found();
    assert_eq!(first.bytes(), Some(&b"one"[..]));
    assert!(Rc::ptr_eq(&first, &found()));
    tree.root.write("a", "other");
    rest();
    assert_eq!(found().bytes(), Some(&b"other"[..]));
    assert_eq!(first.bytes(), Some(&b"one"[..]), "who is sending it goes on");
    CACHE.with_borrow(Cache::check);
}

#[test]
fn what_nobody_asks_for_is_closed() {
    let mut tree = Tree::new();
    ["a", "b"].iter().for_each(|name| drop(tree.root.write(name, "some")));
    let file = Rc::downgrade(&tree.put("a"));
    tree.put("b");
    let later = clock::now() + UNUSED;
    tree.cache.entries[1].used = later;
    tree.cache.close_unused(later);
    assert!(file.upgrade().is_none() && !tree.has("a") && tree.has("b"));
    tree.check();
    tree.cache.close_unused(later + UNUSED);
    assert!(tree.cache.entries.is_empty() && tree.cache.entries.capacity() == 0);
}

#[tokio::test(flavor = "local")]
async fn sites_and_encodings_are_told_apart() {
    let tree = Tree::new();
    tree.root.write("a", "some");
    let (name, file) = tree.file("a");
    let plain = Preferred::default();
    put(1, &name, &plain, file);
    assert!(get(1, &name, &plain).is_some());
    assert!(get(2, &name, &plain).is_none());
    let zipped = [Some(wmproxy_wire::head::coding::Encoding::Gzip), None, None];
    assert!(get(1, &name, &zipped).is_none());
    let mut other = PathName::default();
    other.read(b"/a/").unwrap();
    assert!(get(1, &other, &plain).is_none());
    other.read(b"/a").unwrap();
    assert!(get(1, &other, &plain).is_some());
    other.show_directory();
    assert!(get(1, &other, &plain).is_none());
    remove(1, &name, &plain);
    assert!(get(1, &name, &plain).is_none());
    assert!(!clear());
}
