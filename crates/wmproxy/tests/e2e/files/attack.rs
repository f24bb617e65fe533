//! Ways that attackers try out of the root, each with the answer that it gets. Beside the root lies a secret, and no answer
//! may have it.

use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};
use wmproxy_testkit::http::Message;
use wmproxy_testkit::{Addr, Client};

use super::{SECRET, Tree, ask_at, ask_h2, get, start_routes};

/// What is in `/etc/passwd` of every system.
const PASSWD: &str = "root:";

fn tree() -> Tree {
    let tree = Tree::new(&[
        ("index.html", "home"),
        ("a.txt", "alpha"),
        ("sub/b.txt", "beta"),
        ("sub/deep/c.txt", "gamma"),
        (".hidden", "hidden"),
        (".git/config", "hidden"),
        ("sub/.hidden/d.txt", "hidden"),
        ("sub/.well-known/e.txt", "hidden"),
        (".well-known/security.txt", "contact"),
        ("%2e%2e/own.txt", "own"),
        ("back\\slash.txt", "back"),
        ("..double/own.txt", "hidden"),
        ("dots.../own.txt", "own"),
        ("a b+c;d=e&f.txt", "odd"),
        ("caf\u{e9}.txt", "coffee"),
        ("etc/hosts", "own"),
    ]);
    tree.link("in.txt", "a.txt");
    tree.link("in-twice.txt", "in.txt");
    tree.link("in-dir", "sub");
    tree.link("sub/up.txt", "../a.txt");
    tree.link("gone", "nowhere");
    tree.link("loop", "loop");
    tree.link("ping", "pong");
    tree.link("pong", "ping");
    tree.link("out", "../secret");
    tree.link("out.txt", "../secret/file.txt");
    tree.link("sub/out.txt", "../../secret/file.txt");
    tree.link("absolute", tree.secret());
    tree.link("absolute.txt", tree.secret().join("file.txt"));
    tree.link("absolute-in.txt", tree.path("a.txt"));
    tree.link("slash", "/");
    tree.link("parent", "..");
    tree.link("proc", "/proc/self/root");
    tree.link("cwd", "/proc/self/cwd");
    tree.link("fds", "/proc/self/fd");
    tree.link("in-out", "sub/../../secret");
    tree.link("chain-1.txt", "chain-2.txt");
    tree.link("chain-2.txt", "sub/out.txt");
    let mut target = "a.txt".to_owned();
    for number in 0..60 {
        let name = format!("long-{number}.txt");
        tree.link(&name, &target);
        target = name;
    }
    tree
}

/// Targets, as they are sent, and the status that each gets; with 200 also the content.
const TARGETS: &[(&str, u16, &str)] = &[
    ("/a.txt", 200, "alpha"),
    ("/sub/b.txt", 200, "beta"),
    ("//a.txt", 200, "alpha"),
    ("/sub//b.txt", 200, "beta"),
    ("/%61.txt", 200, "alpha"),
    ("/a%20b+c;d=e&f.txt", 200, "odd"),
    ("/caf%C3%a9.txt", 200, "coffee"),
    ("/caf%E9.txt", 404, ""),
    ("/.well-known/security.txt", 200, "contact"),
    // Dot segments.
    ("/..", 400, ""),
    ("/../secret/file.txt", 400, ""),
    ("/../../../../../../etc/passwd", 400, ""),
    ("/sub/../../secret/file.txt", 400, ""),
    ("/sub/../a.txt", 400, ""),
    ("/./a.txt", 400, ""),
    ("/sub/.", 400, ""),
    ("/sub/..", 400, ""),
    ("/a.txt/..", 400, ""),
    ("/a.txt/../a.txt", 400, ""),
    ("/....//....//secret/file.txt", 404, ""),
    ("/.../secret/file.txt", 404, ""),
    ("/dots.../own.txt", 200, "own"),
    // Encoded once.
    ("/%2e%2e/secret/file.txt", 400, ""),
    ("/%2E%2E/secret/file.txt", 400, ""),
    ("/.%2e/secret/file.txt", 400, ""),
    ("/%2e./secret/file.txt", 400, ""),
    ("/sub/%2e%2e/a.txt", 400, ""),
    ("/%2e%2e%2fsecret%2ffile.txt", 400, ""),
    ("/..%2fsecret%2ffile.txt", 400, ""),
    ("/sub%2fb.txt", 400, ""),
    ("/%2fetc%2fpasswd", 400, ""),
    ("/%2F", 400, ""),
    // Encoded twice: the name that it is after one decoding.
    ("/%252e%252e/secret/file.txt", 404, ""),
    ("/%252e%252e/own.txt", 200, "own"),
    ("/%252e%252e%252fsecret%252ffile.txt", 404, ""),
    ("/%25%32%65%25%32%65/own.txt", 200, "own"),
    ("/%25252e%25252e/secret", 404, ""),
    // Not shortest UTF-8, and what else once was a dot or a slash.
    ("/%c0%ae%c0%ae/secret/file.txt", 404, ""),
    ("/%c0%ae%c0%ae%c0%afsecret%c0%affile.txt", 404, ""),
    ("/%e0%80%ae%e0%80%ae/secret/file.txt", 404, ""),
    ("/%f0%80%80%ae%f0%80%80%ae/secret/file.txt", 404, ""),
    ("/%ef%bc%8e%ef%bc%8e/secret/file.txt", 404, ""),
    ("/%ff%fe/secret", 404, ""),
    ("/%u002e%u002e/secret/file.txt", 400, ""),
    // Backslashes.
    ("/..\\secret\\file.txt", 400, ""),
    ("/sub\\b.txt", 400, ""),
    ("/..%5csecret%5cfile.txt", 400, ""),
    ("/%5c..%5c..%5cetc%5cpasswd", 400, ""),
    ("/back\\slash.txt", 400, ""),
    ("/back%5Cslash.txt", 400, ""),
    ("/..%255csecret%255cfile.txt", 404, ""),
    // Other roots.
    ("//etc/passwd", 404, ""),
    ("///etc/passwd", 404, ""),
    ("/etc/passwd", 404, ""),
    ("/etc/hosts", 200, "own"),
    ("/C:/windows/win.ini", 404, ""),
    ("/file:///etc/passwd", 404, ""),
    ("/~root/.bashrc", 404, ""),
    ("/proc/self/environ", 404, ""),
    // Parameters that others leave off.
    ("/..;/secret/file.txt", 400, ""),
    ("/sub/..;/..;/secret/file.txt", 400, ""),
    ("/a.txt;x=1", 404, ""),
    ("/.;/a.txt", 404, ""),
    // NUL and what else ends names.
    ("/a.txt%00", 400, ""),
    ("/a.txt%00.html", 400, ""),
    ("/%00", 400, ""),
    ("/../secret/file.txt%00.txt", 400, ""),
    ("/a.txt%0a", 404, ""),
    ("/a.txt%20", 404, ""),
    ("/a.txt.", 404, ""),
    ("/a.txt::$DATA", 404, ""),
    ("/A.TXT", 404, ""),
    ("/a.txt/", 404, ""),
    ("/a.txt/b", 404, ""),
    // Broken escapes.
    ("/%", 400, ""),
    ("/%2", 400, ""),
    ("/%zz", 400, ""),
    ("/a%2.txt", 400, ""),
    // Hidden ones.
    ("/.hidden", 404, ""),
    ("/%2ehidden", 404, ""),
    ("/.git/config", 404, ""),
    ("/.git/", 404, ""),
    ("/.git", 404, ""),
    ("/sub/.hidden/d.txt", 404, ""),
    ("/sub/.well-known/e.txt", 404, ""),
    ("/..double/own.txt", 404, ""),
    // What is no file.
    ("/fifo", 404, ""),
    ("/socket", 404, ""),
    ("/device", 404, ""),
    ("/nothing", 404, ""),
    ("/sub/", 404, ""),
];

/// Symbolic links, and whether one that may be followed leads to a file of the root.
const LINKS: &[(&str, Option<&str>)] = &[
    ("/in.txt", Some("alpha")),
    ("/in-twice.txt", Some("alpha")),
    ("/in-dir/b.txt", Some("beta")),
    ("/in-dir/deep/c.txt", Some("gamma")),
    ("/sub/up.txt", Some("alpha")),
    ("/long-10.txt", Some("alpha")),
    // More than the kernel follows.
    ("/long-59.txt", None),
    ("/gone", None),
    ("/loop", None),
    ("/ping", None),
    ("/out", None),
    ("/out/", None),
    ("/out/file.txt", None),
    ("/out.txt", None),
    ("/sub/out.txt", None),
    ("/in-dir/out.txt", None),
    ("/absolute/file.txt", None),
    ("/absolute.txt", None),
    ("/absolute-in.txt", None),
    ("/slash/etc/passwd", None),
    ("/parent/secret/file.txt", None),
    ("/parent/www/a.txt", None),
    ("/proc/etc/passwd", None),
    ("/cwd/wmproxy.toml", None),
    ("/fds/0", None),
    ("/fds/5", None),
    ("/in-out/file.txt", None),
    ("/chain-1.txt", None),
];

#[track_caller]
fn expect(answer: &Message, status: u16, content: &str, what: &str) {
    assert_eq!(answer.status(), status, "{what}: {:?}", String::from_utf8_lossy(&answer.body));
    let body = String::from_utf8_lossy(&answer.body);
    if status == 200 {
        assert_eq!(body, content, "{what}");
    }
    assert!(!body.contains(SECRET) && !body.contains(PASSWD) && !body.contains("hidden"), "{what}: {body}");
}

/// Asks for a target by both versions, and expects the same.
#[track_caller]
fn expect_both(addr: &Addr, target: &str, status: u16, content: &str) {
    expect(&ask_at(addr, "GET", target, ""), status, content, &format!("h1 {target}"));
    // Its client refuses some of them itself.
    if format!("http://a.example{target}").parse::<wmproxy_testkit::h2::Uri>().is_ok() {
        expect(&ask_h2(addr, "GET", target, ""), status, content, &format!("h2 {target}"));
    }
}

fn special_files(tree: &Tree) -> UnixListener {
    mkfifoat(CWD, tree.path("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    if rustix::process::getuid().is_root() {
        // The device of /dev/null; containers may forbid it.
        let null = rustix::fs::makedev(1, 3);
        let mode = Mode::RUSR | Mode::WUSR;
        let _ =
            rustix::fs::mknodat(CWD, tree.path("device"), rustix::fs::FileType::CharacterDevice, mode, null);
    }
    UnixListener::bind(tree.path("socket")).unwrap()
}

#[test]
fn no_target_leads_out_of_the_root() {
    let tree = tree();
    let _socket = special_files(&tree);
    let proxy = tree.serve("", "");
    let addr = proxy.tcp("h");
    for (target, status, content) in TARGETS {
        expect_both(&addr, target, *status, content);
    }
    for (target, _) in LINKS {
        expect_both(&addr, target, 404, "");
    }
    // Nobody reads the fifo: it was not opened, or not for long.
    let writer = open(tree.path("fifo"), OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
    assert_eq!(writer.unwrap_err(), rustix::io::Errno::NXIO);
}

#[test]
fn no_link_leads_out_of_the_root_where_links_are_followed() {
    let tree = tree();
    let proxy = tree.serve("follow_symlinks = true, browse = true", "");
    let addr = proxy.tcp("h");
    for (target, content) in LINKS {
        expect_both(&addr, target, if content.is_some() { 200 } else { 404 }, content.unwrap_or_default());
    }
    for (target, status, content) in TARGETS {
        if *target != "/sub/" {
            expect_both(&addr, target, *status, content);
        }
    }
    // A listing tells of nothing that is not served.
    let page = get(&proxy, "/sub/", "");
    assert_eq!(page.status(), 200);
    assert!(page.text().contains("b.txt") && !page.text().contains("out.txt"), "{}", page.text());
}

#[test]
fn hidden_files_are_there_where_they_are_asked_for_and_links_are_not() {
    let tree = tree();
    let proxy = tree.serve("hidden = true", "");
    let addr = proxy.tcp("h");
    for target in ["/.hidden", "/%2ehidden", "/.git/config", "/sub/.hidden/d.txt", "/..double/own.txt"] {
        let answer = ask_at(&addr, "GET", target, "");
        assert_eq!((answer.status(), answer.text()), (200, "hidden"), "{target}");
    }
    for target in ["/../secret/file.txt", "/%2e%2e/secret/file.txt", "/.git/../.hidden"] {
        expect_both(&addr, target, 400, "");
    }
    for (target, _) in LINKS {
        expect_both(&addr, target, 404, "");
    }
}

#[test]
fn a_first_line_may_have_other_forms() {
    let tree = tree();
    let proxy = tree.serve("", "");
    let addr = proxy.tcp("h");
    for (line, status) in [
        ("GET http://a.example/a.txt HTTP/1.1", 200),
        ("GET http://a.example//a.txt HTTP/1.1", 200),
        ("GET http://a.example/../secret/file.txt HTTP/1.1", 400),
        ("GET http://a.example/%2e%2e/secret/file.txt HTTP/1.1", 400),
        ("GET http://a.example//etc/passwd HTTP/1.1", 404),
        ("GET file:///etc/passwd HTTP/1.1", 400),
        ("GET etc/passwd HTTP/1.1", 400),
        ("GET ../secret/file.txt HTTP/1.1", 400),
        ("GET a.txt HTTP/1.1", 400),
        ("GET \\a.txt HTTP/1.1", 400),
        ("GET /a.txt#x HTTP/1.1", 400),
        ("GET /a.txt\0 HTTP/1.1", 400),
        ("GET /\u{7f} HTTP/1.1", 400),
        ("GET /caf\u{e9}.txt HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET /a.txt?/../../secret/file.txt HTTP/1.1", 200),
        ("GET /a.txt?%00%2f.. HTTP/1.1", 200),
    ] {
        let answer = Client::once(&addr, &format!("{line}\r\nHost: a.example\r\n\r\n"));
        expect(&answer, status, "alpha", line);
    }
}

#[test]
fn names_and_paths_without_end_are_not_there() {
    let tree = tree();
    let longest = "n".repeat(255);
    tree.file(&longest, "longest");
    let proxy = tree.serve("", "");
    let addr = proxy.tcp("h");
    expect_both(&addr, &format!("/{longest}"), 200, "longest");
    expect_both(&addr, &format!("/{longest}n"), 404, "");
    expect_both(&addr, &format!("/{}", "%6e".repeat(255)), 200, "longest");
    expect_both(&addr, &format!("/{}", "sub/".repeat(1_200)), 404, "");
    expect_both(&addr, &format!("/{}a.txt", "d/".repeat(2_500)), 404, "");
    expect_both(&addr, &format!("/{}a.txt", "/".repeat(2_500)), 200, "alpha");
    let answer = ask_at(&addr, "GET", &format!("/{}", "x".repeat(60_000)), "");
    assert!(matches!(answer.status(), 414 | 431), "{}", answer.status());
}

#[test]
fn rewrites_open_no_way_out() {
    let tree = tree();
    let routes = [
        tree.route("", "path = \"/files\"\nstrip_prefix = \"/files\""),
        tree.route("", "path = \"/added\"\nstrip_prefix = \"/added\"\nadd_prefix = \"/sub\""),
        tree.route("", "path = \"/re\"\nrewrite = [\"^/re(.*)$\", \"/sub$1\"]"),
        tree.route("", "path = \"/var\"\nrewrite = [\"^/var/(.*)$\", \"/{query:dir}/$1\"]"),
        tree.route("", "path = \"/try\"\ntry = [\"/sub/{query:f}\", \"{path}\", \"/a.txt\"]"),
    ]
    .concat();
    let proxy = start_routes(&routes);
    let addr = proxy.tcp("h");
    for (target, status, content) in [
        ("/files/a.txt", 200, "alpha"),
        ("/files//a.txt", 200, "alpha"),
        ("/files../secret/file.txt", 404, ""),
        // These are no paths below it.
        ("/files/../secret/file.txt", 404, ""),
        ("/files/%2e%2e/secret/file.txt", 404, ""),
        ("/files%2f..%2fsecret/file.txt", 404, ""),
        ("/files/sub%2fb.txt", 400, ""),
        ("/files//etc/passwd", 404, ""),
        ("/files/out/file.txt", 404, ""),
        ("/files/.hidden", 404, ""),
        ("/files/a.txt/../a.txt", 400, ""),
        ("/added/b.txt", 200, "beta"),
        ("/added/../../secret/file.txt", 400, ""),
        ("/added/..%2f..%2fsecret/file.txt", 400, ""),
        ("/re/b.txt", 200, "beta"),
        ("/re/../../secret/file.txt", 400, ""),
        ("/re../secret/file.txt", 404, ""),
        ("/re%2f..%2f..%2fsecret%2ffile.txt", 400, ""),
        ("/var/b.txt?dir=sub", 200, "beta"),
        ("/var/file.txt?dir=../secret", 400, ""),
        ("/var/file.txt?dir=%2e%2e/secret", 400, ""),
        ("/var/file.txt?dir=..%2fsecret", 400, ""),
        ("/var/passwd?dir=/etc", 404, ""),
        ("/var/config?dir=.git", 404, ""),
    ] {
        expect_both(&addr, target, status, content);
    }
    // What is tried and is no path is not there: the next one is, or that was the end.
    for target in [
        "/try?f=b.txt",
        "/try?f=../a.txt",
        "/try?f=../../secret/file.txt",
        "/try?f=%2e%2e/%2e%2e/secret/file.txt",
    ] {
        for answer in [ask_at(&addr, "GET", target, ""), ask_h2(&addr, "GET", target, "")] {
            let body = String::from_utf8_lossy(&answer.body);
            assert!(!body.contains(SECRET), "{target}: {body}");
            match answer.status() {
                200 => assert!(["alpha", "beta"].contains(&&*body), "{target}: {body}"),
                status => assert!(matches!(status, 400 | 404), "{target}: {status}"),
            }
        }
    }
    assert_eq!(get(&proxy, "/try?f=b.txt", "").text(), "beta");
    assert_eq!(get(&proxy, "/try?f=none", "").text(), "alpha");
}

#[test]
fn attacks_leave_nothing_behind() {
    let tree = tree();
    let proxy = tree.serve("follow_symlinks = true", "");
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    let mut round = || {
        for (target, _) in LINKS {
            client.get(target);
        }
    };
    round();
    let before = proxy.fds();
    for _ in 0..30 {
        round();
    }
    assert_eq!(proxy.fds(), before, "descriptors");
    assert_eq!(proxy.log().count("WARN"), 0, "{}", proxy.log().text());
}
