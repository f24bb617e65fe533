//! Directories: the page, JSON, and archives. How the page behaves in a browser is tried in `interop`, as is what programs
//! make of the archives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use serde_json::Value;
use wmproxy_testkit::Client;

use super::{By, Tree, Web, ask, get, request, start_routes};

/// Names that would be markup, script, other links or other lines.
const NAMES: &[&[u8]] = &[
    b"\"><script>alert(1).txt",
    b"<img src=x onerror=alert(1)>",
    b"'onmouseover='alert(1)",
    b"javascript:alert(1)",
    b"&lt;b&gt;.txt",
    b"a%20b.txt",
    b"a b?c#d.txt",
    b"line\nbreak.txt",
    b"--><!--<svg onload=alert(1)>",
    b"\xff\xfe not UTF-8.txt",
    "right \u{202e}txt.exe".as_bytes(),
    "line \u{2028} separator.txt".as_bytes(),
    "caf\u{e9}.txt".as_bytes(),
    b"{}.txt",
    b"${x}`.txt",
];

fn tree() -> Tree {
    let tree = Tree::new(&[
        ("plain.txt", "plain"),
        ("file10.txt", "0123456789"),
        ("file2.txt", "01"),
        ("zebra/a.txt", "alpha"),
        ("Apple/b.txt", "beta"),
        (".hidden.txt", "hidden"),
        (".git/config", "hidden"),
        ("empty/.keep", ""),
    ]);
    for name in NAMES {
        tree.file(OsStr::from_bytes(name), name);
    }
    tree.link("out.txt", "../secret/file.txt");
    tree.link("in.txt", "plain.txt");
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.path("fifo"), rustix::fs::Mode::RUSR).unwrap();
    tree
}

/// The links of a page, decoded from HTML.
fn links(page: &str) -> Vec<String> {
    let parts = page.split("href=\"").skip(1);
    let text = parts.map(|part| part.split('"').next().unwrap());
    text.map(|link| link.replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", "\"")).collect()
}

#[test]
fn a_page_has_no_markup_of_names_and_links_that_lead_to_the_files() {
    let tree = tree();
    let web = Web::new(&tree, "browse = true", "");
    for by in By::ALL {
        let answer = web.get(by, "/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n");
        assert_eq!(answer.status(), 200, "{by:?}");
        assert_eq!(answer.head.get("content-type"), Some("text/html; charset=utf-8"));
        assert!(
            answer.head.lists("vary", "accept")
                && answer.head.get("x-content-type-options") == Some("nosniff")
        );
        let policy = answer.head.get("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let page = answer.text();
        for bad in ["<script>alert", "<img", "<svg onload", "onerror=alert(1)>", "'onmouseover"] {
            assert!(!page.contains(bad), "{by:?}: {bad} in {page}");
        }
        let links = links(page);
        for absent in [".hidden.txt", ".git/", "fifo", "out.txt", "in.txt"] {
            assert!(!links.iter().any(|link| link == absent), "{by:?}: {absent} in {links:#?}");
        }
    }
    let page = web.get(By::H1, "/", "").text().to_owned();
    let links = links(&page);
    for name in NAMES {
        let answers = links.iter().filter_map(|link| follow(&web, link)).any(|body| body == *name);
        assert!(answers, "no link leads to {:?}: {links:#?}", String::from_utf8_lossy(name));
    }
    for link in &links {
        assert!(!link.starts_with("javascript:") && !link.starts_with("//"), "{link}");
    }
}

/// What a link of the page at `/` leads to, as a browser finds it.
fn follow(web: &Web, link: &str) -> Option<Vec<u8>> {
    let link = link.strip_prefix("./").unwrap_or(link);
    if link.is_empty() || link.starts_with(['?', '#', '.', '/']) {
        return None;
    }
    let answer = web.get(By::H1, &format!("/{link}"), "");
    (answer.status() == 200).then_some(answer.body)
}

#[test]
fn the_order_is_folders_first_and_numbers_as_numbers() {
    let tree = tree();
    let proxy = tree.serve("browse = true", "");
    let page = get(&proxy, "/", "").text().to_owned();
    let links = links(&page);
    let place = |name: &str| {
        let found = links.iter().position(|link| link.trim_start_matches("./") == name);
        found.unwrap_or_else(|| panic!("{name} in {links:#?}"))
    };
    let order = ["Apple/", "empty/", "zebra/", "file2.txt", "file10.txt", "plain.txt"].map(place);
    assert!(order.is_sorted(), "{order:?}: {links:#?}");
    // Below the root there is a way up.
    let page = get(&proxy, "/zebra/", "").text().to_owned();
    let up = self::links(&page);
    assert!(up.iter().any(|link| link == "../" || link == "/"), "{up:?}");
    let answer = get(&proxy, "/zebra", "");
    assert_eq!((answer.status(), answer.head.get("location")), (308, Some("/zebra/")));
    assert_eq!(get(&proxy, "/none/", "").status(), 404);
    assert_eq!(get(&proxy, "/.git/", "").status(), 404);
    let head = ask(&proxy, "HEAD", "/", "");
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(ask(&proxy, "POST", "/", "").status(), 405);
}

#[test]
fn programs_get_json() {
    let tree = tree();
    let web = Web::new(&tree, "browse = true, index = []", "");
    for by in By::ALL {
        let answer = web.get(by, "/", "Accept: application/json\r\n");
        assert_eq!(
            (answer.status(), answer.head.get("content-type")),
            (200, Some("application/json")),
            "{by:?}"
        );
        assert!(answer.head.lists("vary", "accept"), "{by:?}");
        let entries: Value = serde_json::from_slice(&answer.body).unwrap();
        let entries = entries.as_array().unwrap();
        let find = |name: &str| entries.iter().find(|entry| entry["name"] == name);
        let file = find("file10.txt").unwrap_or_else(|| panic!("{entries:#?}"));
        assert_eq!((file["type"].as_str(), file["size"].as_u64()), (Some("file"), Some(10)), "{file}");
        assert_eq!(&file["modified"].as_str().unwrap()[..19], "2024-02-03T04:05:06", "{file}");
        assert_eq!(find("zebra").unwrap()["type"], "directory");
        for name in NAMES {
            if let Ok(name) = std::str::from_utf8(name) {
                assert!(find(name).is_some(), "{name:?} in {entries:#?}");
            }
        }
        for absent in [".hidden.txt", ".git", "fifo", "out.txt", "in.txt"] {
            assert!(find(absent).is_none(), "{absent}");
        }
        assert_eq!(entries.len(), 6 + NAMES.len(), "{entries:#?}");
    }
    for (accept, kind) in [
        ("text/html, application/json;q=0.5", "text/html; charset=utf-8"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("*/*", "text/html; charset=utf-8"),
        ("image/png", "text/html; charset=utf-8"),
    ] {
        let answer = web.get(By::H1, "/", &format!("Accept: {accept}\r\n"));
        assert_eq!(answer.head.get("content-type"), Some(kind), "{accept}");
    }
}

#[test]
fn a_folder_comes_as_an_archive() {
    let tree = tree();
    let web = Web::new(&tree, "browse = true", "");
    for by in By::ALL {
        for (kind, magic, at) in [("tar", &b"ustar"[..], 257), ("zip", b"PK\x03\x04", 0)] {
            let answer = web.get(by, &format!("/zebra/?archive={kind}"), "");
            assert_eq!(answer.status(), 200, "{by:?} {kind}");
            let disposition = answer.head.get("content-disposition").unwrap();
            assert!(
                disposition.starts_with("attachment") && disposition.contains(&format!("zebra.{kind}")),
                "{disposition}"
            );
            assert_eq!(&answer.body[at..at + magic.len()], magic, "{by:?} {kind}");
            let text = String::from_utf8_lossy(&answer.body);
            assert!(text.contains("a.txt") && text.contains("alpha"), "{by:?} {kind}");
            let whole = web.get(by, &format!("/?archive={kind}"), "");
            let text = String::from_utf8_lossy(&whole.body);
            assert!(
                !text.contains(".hidden") && !text.contains(super::SECRET) && !text.contains("fifo"),
                "{by:?} {kind}"
            );
            let head = web.ask(by, "HEAD", &format!("/zebra/?archive={kind}"), "");
            assert_eq!((head.status(), head.body.len()), (200, 0));
        }
        // What it does not know is the page.
        let page = web.get(by, "/zebra/?archive=rar", "");
        assert!(matches!(page.status(), 200 | 400), "{}", page.status());
    }
    drop(web);
    let proxy = tree.serve("", "");
    assert_eq!(get(&proxy, "/zebra/?archive=tar", "").status(), 404, "not without browse");
}

#[test]
fn an_archive_has_nothing_that_another_route_refuses() {
    let tree = Tree::new(&[("a.txt", "alpha"), ("private/key.txt", "for some")]);
    let deny = tree.route("browse = true", "path = \"/private\"\ndeny = \"127.0.0.0/8\"\n");
    let start =
        |archive| start_routes(&format!("{deny}{}", tree.route(&format!("browse = true{archive}"), "")));
    let proxy = start("");
    proxy.expect_warn("directories can't be had as archives");
    assert_eq!(get(&proxy, "/private/key.txt", "").status(), 403);
    for target in ["/", "/?archive=tar", "/?archive=zip"] {
        let page = get(&proxy, target, "");
        assert_eq!(page.head.get("content-type"), Some("text/html; charset=utf-8"), "{target}");
        assert!(!page.text().contains("?archive=") && page.text().contains("a.txt"), "{target}");
    }
    let whole = get(&start(", archive = true"), "/?archive=tar", "");
    assert!(String::from_utf8_lossy(&whole.body).contains("for some"), "what is asked for is done");
}

#[test]
fn a_listing_has_an_end_for_clients_of_1_0_too() {
    let tree = Tree::new(&[("a.txt", "alpha"), ("sub/b.txt", "beta")]);
    let proxy = tree.serve("browse = true", "");
    for target in ["/", "/?archive=tar"] {
        let mut client = Client::connect(&proxy.tcp("h"));
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status(), 200);
        assert!(!answer.head.has("transfer-encoding"), "{:?}", answer.head);
        assert!(String::from_utf8_lossy(&answer.body).contains("a.txt"), "{target}");
        client.expect_closed();
    }
    // And one after the other on a connection of 1.1.
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(["/", "/a.txt", "/?archive=zip", "/sub/"].map(|target| request("GET", target, "")).concat());
    assert!(client.response().text().contains("sub"));
    assert_eq!(client.response().text(), "alpha");
    assert!(client.response().body.starts_with(b"PK"));
    assert!(client.response().text().contains("b.txt"));
    client.expect_idle();
}

#[test]
fn a_hundred_thousand_entries_come_at_once() {
    const ENTRIES: usize = 100_000;
    let tree = Tree::new(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]);
    // Links by other names are made quicker than files. No file has more than some 60,000 of them.
    for number in 0..ENTRIES {
        let from = tree.path(["a", "b", "c", "d"][number % 4]);
        std::fs::hard_link(from, tree.path(format!("entry-{number}.txt"))).unwrap();
    }
    let proxy = tree.serve("browse = true", "");
    let before = proxy.peak_rss_kb();
    let mut client = Client::connect(&proxy.tcp("h"));
    let mut page = Vec::new();
    let mut list = || {
        page.clear();
        let begun = Instant::now();
        client.send(request("GET", "/", "Accept: text/html\r\n"));
        let head = client.head();
        let first = begun.elapsed();
        let framing = head.response_framing("GET").unwrap();
        client.body(framing, |part| page.extend_from_slice(part)).unwrap();
        (first, begun.elapsed())
    };
    // A busy machine may delay the first byte, but not each time.
    let mut times = Vec::new();
    let at_once = (0..5).any(|_| {
        times.push(list());
        times.last().is_some_and(|&(first, all)| first * 4 < all)
    });
    assert!(at_once, "when the first byte came and when the last: {times:?}");
    let page = String::from_utf8(page).unwrap();
    assert_eq!(links(&page).iter().filter(|link| link.contains("entry-")).count(), ENTRIES);
    let (two, ten) = (page.find("entry-2.txt").unwrap(), page.find("entry-10.txt").unwrap());
    assert!(two < ten && page.ends_with("</script>\n"), "in order, and whole");
    assert!(proxy.peak_rss_kb() < before + 48 * 1024, "{} KiB, {before} before", proxy.peak_rss_kb());
    // Who leaves in the middle is no trouble, and others are served meanwhile.
    let mut leaving = Client::connect(&proxy.tcp("h"));
    leaving.read_slowly();
    leaving.send(request("GET", "/", ""));
    leaving.head();
    let begun = Instant::now();
    assert_eq!(get(&proxy, "/entry-7.txt", "").status(), 200);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    leaving.reset();
}
