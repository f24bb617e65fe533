//! Links between the pages, and the guide's table of contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::pages::{Page, pages, root};

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let pages = pages();
    let anchors: BTreeMap<_, _> = pages.iter().map(|page| (root.join(&page.path), anchors(page))).collect();
    let mut wrong = Vec::new();
    for page in &pages {
        let from = root.join(&page.path);
        for link in links(page) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let to =
                if path.is_empty() { Ok(from.clone()) } else { from.with_file_name(path).canonicalize() };
            let leads = to.is_ok_and(|to| {
                anchor.is_empty() || anchors.get(&to).is_none_or(|anchors| anchors.contains(anchor))
            });
            if !leads {
                wrong.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_guide_has_every_page_once() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.path.ends_with("SUMMARY.md")).unwrap();
    let listed = links(summary);
    for page in &pages {
        let Ok(path) = page.path.strip_prefix("docs") else { continue };
        let count = listed.iter().filter(|link| Path::new(link) == path).count();
        let expected = usize::from(path != Path::new("SUMMARY.md"));
        assert_eq!(count, expected, "{} in docs/SUMMARY.md", path.display());
    }
    let book: toml::Table = fs::read_to_string(root().join("docs/book.toml")).unwrap().parse().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("."));
    // What is built is not part of the repository.
    assert!(book["build"]["build-dir"].as_str().unwrap().starts_with("../target/"));
}

/// What the page's links name, but for other sites.
fn links(page: &Page) -> Vec<String> {
    let text: String = page.prose().flat_map(|line| [line, "\n"]).collect();
    // What is between two backticks is code.
    let text: String = text.split('`').step_by(2).collect();
    let after = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    after.map(|(link, _)| link.to_owned()).filter(|link| !link.contains("://")).collect()
}

/// The names that sites and mdBook give the headings of a page.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in page.prose().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let mut name = anchor.clone();
        for number in 1.. {
            if anchors.insert(name) {
                break;
            }
            name = format!("{anchor}-{number}");
        }
    }
    anchors
}
