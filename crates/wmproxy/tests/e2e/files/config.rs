//! `files` in a config: what is told of its root before anything is served, reloads, and the example.

use std::path::Path;

use wmproxy_testkit::TempDir;
use wmproxy_testkit::exec::{Finished, run_in};

use super::{Tree, get};
use crate::http::http;
use crate::{BIN, setup};

fn check(dir: &TempDir, files: &str) -> Finished {
    let text = format!("[[http]]\nlisten = \"127.0.0.1:0\"\n[[http.route]]\nfiles = {files}\n");
    dir.write("conf/c.toml", &text);
    run_in(dir.path(), BIN, &["check", "-c", "conf/c.toml"])
}

#[test]
fn a_relative_root_starts_at_the_config() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.join("conf/www")).unwrap();
    assert_eq!(check(&dir, "\"www\"").success().stderr, "");
    let finished = check(&dir, "\"conf/www\"");
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("conf/conf/www: there is no such directory"), "{}", finished.stderr);
    assert!(finished.stderr.contains("conf/c.toml:4:9"), "{}", finished.stderr);
}

#[test]
fn secrets_below_the_root_are_warned_of() {
    let dir = TempDir::new();
    dir.write("www/index.html", "");
    dir.write("www/users", "alice:$2b$10$abcdefghijklmnopqrstuuu5Yy1Yh0q5m0m5m0m5m0m5m0m5m0m5m\n");
    let users = "\"../www\"\nbasic_auth = { users_file = \"../www/users\" }";
    let said = check(&dir, users).success().stderr;
    assert!(said.contains("gets a file of passwords") && said.contains("users lies in"), "{said}");
    let said = check(&dir, "\"..\"").success().stderr;
    assert!(said.contains("whoever asks gets the config"), "{said}");
    // What begins with a dot is not served, unless that is asked for.
    std::fs::rename(dir.join("www"), dir.join("conf/.www")).unwrap();
    let users = |hidden| {
        format!("{{ root = \".www/..\", hidden = {hidden} }}\nbasic_auth = {{ users_file = \".www/users\" }}")
    };
    assert!(!check(&dir, &users(false)).success().stderr.contains("(and 1 more)"));
    assert!(check(&dir, &users(true)).success().stderr.contains("(and 1 more)"));
}

#[test]
fn pages_behind_links_are_warned_of_where_links_are_not_followed() {
    let dir = TempDir::new();
    dir.write("www/real.html", "");
    dir.write("outside.html", "");
    std::os::unix::fs::symlink("real.html", dir.join("www/app.html")).unwrap();
    std::os::unix::fs::symlink("../outside.html", dir.join("www/out.html")).unwrap();
    for (options, part) in [
        ("spa = \"app.html\"", Some("`follow_symlinks` is off")),
        ("spa = \"app.html\", follow_symlinks = true", None),
        ("spa = \"out.html\", follow_symlinks = true", Some("out of the root")),
        ("error_pages = { 404 = \"none.html\" }", Some("there is no file")),
    ] {
        let said = check(&dir, &format!("{{ root = \"../www\", {options} }}")).success().stderr;
        assert!(part.map_or(said.is_empty(), |part| said.contains(part)), "{options}: {said}");
    }
}

#[test]
fn a_reload_changes_what_is_served_unless_its_root_is_not_there() {
    let (one, other) = (Tree::new(&[("a.txt", "one")]), Tree::new(&[("a.txt", "other")]));
    let proxy = one.serve("", "");
    assert_eq!(get(&proxy, "/a.txt", "").text(), "one");
    let missing = one.route("", "").replace("/www\"", "/none\"");
    let said = proxy.reload_refused(&http("", &missing));
    assert!(said.contains("/none: there is no such directory"), "{said}");
    assert_eq!(get(&proxy, "/a.txt", "").text(), "one");
    proxy.reload_with(&http("", &other.route("", "")));
    assert_eq!(get(&proxy, "/a.txt", "").text(), "other");
    proxy.finish();
}

#[test]
fn the_example_is_a_site() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let text = std::fs::read_to_string(examples.join("files.toml")).unwrap();
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("name = \"site\"", "name = \"h\"")
        .replace("root = \"", &format!("root = \"{}/", examples.display()));
    let proxy = setup(&text).start();
    for (target, status, part) in [
        ("/", 200, "It works"),
        ("/style.css", 200, "color-scheme"),
        ("/about", 200, "about.html"),
        ("/nowhere", 404, "There is no such page"),
        ("/downloads", 308, ""),
        ("/downloads/", 200, "notes-1.0.txt"),
        ("/app/users/7", 200, "<title>Application</title>"),
        ("/app/app.js", 200, "location.pathname"),
        ("/app/none.js", 404, ""),
    ] {
        let answer = get(&proxy, target, "");
        assert_eq!(answer.status(), status, "{target}");
        assert!(answer.text().contains(part), "{target}: {}", answer.text());
    }
    proxy.finish();
}
