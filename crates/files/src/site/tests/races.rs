//! What changes while it is looked for.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use super::*;

/// So often a name is looked for while what is on its way changes, and so often in the other cases.
const MANY: u32 = 10_000;
const SOME: u32 = 2_000;

/// Looks for a path while two names in the root change places: how often the text `good` was found, and what else was.
fn look_while_swapped(
    tree: &Tree,
    swapped: [&str; 2],
    (site, path): (&Arc<Site>, &str),
    most: u32,
) -> (u32, Vec<String>) {
    let [one, other] = &swapped.map(|name| tree.root().join(name));
    let (is_over, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut hits = 0;
    let mut others = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // To and fro, so that in the end all is as it was.
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut looks = 0;
        // On a busy machine the other thread may come late, or this one have its turns only while the names are swapped.
        while looks < most || swaps.load(Ordering::Relaxed) < 100 || (hits == 0 && looks < 100 * most) {
            looks += 1;
            match look(site, path) {
                text if text == "good" => hits += 1,
                other if others.contains(&other) => {}
                other => others.push(other),
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    (hits, others)
}

#[test]
fn a_directory_that_becomes_a_link_out_gives_nothing_away() {
    let tree = Tree::new();
    tree.write("d/f", "good");
    tree.dir.write("outside/f", SECRET);
    tree.link("e", "../outside");
    for follow in [false, true] {
        for site in tree.sites(|options| options.follow_symlinks = follow) {
            let (hits, others) = look_while_swapped(&tree, ["d", "e"], (&site, "/d/f"), MANY);
            assert!(hits > 0, "{:?}", site.beneath.way);
            assert!(others.iter().all(|found| found == "Missing"), "{:?}: {others:?}", site.beneath.way);
        }
    }
}

#[test]
fn a_file_that_becomes_a_link_out_or_a_fifo_gives_nothing_away() {
    let tree = Tree::new();
    tree.write("f", "good");
    tree.link("link", "../secret");
    let fifo = tree.root().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    for site in tree.sites(|options| options.follow_symlinks = true) {
        for swapped in ["link", "fifo"] {
            let (hits, others) = look_while_swapped(&tree, ["f", swapped], (&site, "/f"), SOME);
            assert!(hits > 0, "{:?}", site.beneath.way);
            assert!(others.iter().all(|found| found == "Missing"), "{:?}: {others:?}", site.beneath.way);
        }
    }
}

#[test]
fn links_that_go_up_are_found_while_others_rename() {
    let tree = Tree::new();
    tree.write("f", "good");
    tree.write("d/x", "x");
    tree.link("d/up", "../d/../f");
    tree.write("one", "1");
    tree.write("two", "2");
    for site in tree.sites(|options| options.follow_symlinks = true) {
        let (hits, others) = look_while_swapped(&tree, ["one", "two"], (&site, "/d/up"), SOME);
        assert!(hits >= SOME, "{:?}", site.beneath.way);
        assert_eq!(others, Vec::<String>::new(), "{:?}", site.beneath.way);
    }
}
