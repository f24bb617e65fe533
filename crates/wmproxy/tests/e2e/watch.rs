//! `--watch`: a changed file is a reload.

use wmproxy_testkit::{Backend, Conn, eventually};

use crate::{setup, tcp};

#[test]
fn a_change_of_the_file_is_a_reload_and_a_bad_one_changes_nothing() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let proxy = setup(&tcp(old.addr(), "")).arg("--watch").start();
    let addr = proxy.tcp("t");
    assert_eq!(Conn::connect(&addr).line(), "old");
    // As editors do: another file takes the name.
    proxy.rewrite(&tcp(new.addr(), ""));
    eventually("the reload", || proxy.generation() == 2);
    assert_eq!(Conn::connect(&addr).line(), "new");
    proxy.expect_warn("reload");
    proxy.rewrite("this is no toml");
    eventually("the refusal", || {
        proxy.metrics().sum("wmproxy_reloads_total", &[("result", "failed")]) >= 1.0
    });
    assert_eq!(proxy.generation(), 2);
    assert_eq!(Conn::connect(&addr).line(), "new");
    // And in place, as a shell does.
    let path = proxy.dir().join("wmproxy.toml");
    std::fs::write(path, tcp(old.addr(), "")).unwrap();
    eventually("the next reload", || proxy.generation() == 3);
    assert_eq!(Conn::connect(&addr).line(), "old");
}

#[test]
fn an_included_file_is_watched_too() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let setup = setup("include = [\"more/*.toml\"]\n").file("more/t.toml", &tcp(old.addr(), ""));
    let proxy = setup.arg("--watch").start();
    let addr = proxy.tcp("t");
    assert_eq!(Conn::connect(&addr).line(), "old");
    std::fs::write(proxy.dir().join("more/t.toml"), tcp(new.addr(), "")).unwrap();
    eventually("the reload", || Conn::connect(&addr).line() == "new");
}
