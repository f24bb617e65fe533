//! What options are refused, where and with which words.

use std::path::Path;

use super::*;

fn wrong(change: impl FnOnce(&mut FilesOptions)) -> Vec<(Place, String)> {
    let mut options = FilesOptions { root: "www".into(), ..FilesOptions::default() };
    change(&mut options);
    let wrong = options.spec("/srv/www".into()).err().unwrap_or_default();
    wrong.into_iter().map(|wrong| (wrong.place, wrong.message)).collect()
}

fn page(status: u16) -> ErrorStatus {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let text = status.to_string();
    let from: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
    ErrorStatus::deserialize(from).unwrap()
}

#[test]
fn good_options_come_to_a_spec() {
    let options = FilesOptions {
        root: "www".into(),
        spa: Some("/app/index.html".into()),
        precompressed: vec![Encoding::Br, Encoding::Gzip],
        cache_control: Some("public, max-age=60".into()),
        mime: [(".FOO", "text/x-foo; charset=utf-8"), (".tar.zst", "application/zstd")]
            .map(|(end, kind)| (end.to_owned(), kind.to_owned()))
            .into(),
        cors: Cors::Origins(vec!["https://a.example:8443".into(), "http://[::1]:3000".into()]),
        error_pages: [(page(404), "/errors/404.html".to_owned())].into(),
        ..FilesOptions::default()
    };
    let spec = options.spec("/srv/www".into()).unwrap();
    assert_eq!(spec.root, Path::new("/srv/www"));
    assert_eq!(spec.index, [Box::from("index.html")]);
    assert_eq!(spec.spa.as_deref(), Some("app/index.html"));
    assert_eq!(spec.error_pages[&404], Box::from("errors/404.html"));
    assert_eq!(spec.mime[".foo"], Box::from("text/x-foo; charset=utf-8"));
}

#[test]
fn paths_stay_below_the_root_and_name_files() {
    for (path, part) in [
        ("", "no file"),
        ("/", "no file"),
        ("../secret", "out of the root"),
        ("a/../../b", "out of the root"),
        ("/app/", "a directory"),
        ("a//b", "doubled"),
        ("//b", "doubled"),
        ("./b", "`.`"),
        ("a\\b", "backslash"),
        ("a\0b", "NUL"),
    ] {
        let found = wrong(|options| options.spa = Some(path.into()));
        assert!(
            matches!(&found[..], [(Place::Key("spa"), text)] if text.contains(part)),
            "{path}: {found:?}"
        );
        let found = wrong(|options| drop(options.error_pages.insert(page(404), path.into())));
        let place = Place::Entry("error_pages", "404".into());
        assert!(
            matches!(&found[..], [(at, text)] if *at == place && text.contains(part)),
            "{path}: {found:?}"
        );
    }
    let found =
        wrong(|options| options.index = ["a.html", "b/c.html", "..", "a.html", ""].map(Into::into).into());
    let places: Vec<_> = found.into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [1, 2, 3, 4].map(|number| Place::Item("index", number)));
}

#[test]
fn what_becomes_a_field_can_be_one() {
    for value in ["", " a", "a\r\nSet-Cookie: x", "a\0"] {
        let found = wrong(|options| options.cache_control = Some(value.into()));
        assert!(matches!(&found[..], [(Place::Key("cache_control"), _)]), "{value:?}: {found:?}");
    }
    for (end, kind, part) in [
        ("foo", "text/x-foo", "\".foo\""),
        ("*.foo", "text/x-foo", "\".foo\""),
        (".", "text/x-foo", "ends like this"),
        (".a/b", "text/x-foo", "ends like this"),
        (".foo", "text", "expected a type"),
        (".foo", "text/", "expected a type"),
        (".foo", "text/html\r\nX: y", "expected a type"),
        (".foo", "a b/c", "expected a type"),
    ] {
        let found = wrong(|options| drop(options.mime.insert(end.into(), kind.into())));
        assert_eq!(found.len(), 1, "{end}: {found:?}");
        assert!(found[0].1.contains(part), "{end}: {found:?}");
    }
    let found = wrong(|options| {
        options.mime = [(".Foo", "a/b"), (".foo", "a/c")].map(|(end, kind)| (end.into(), kind.into())).into();
        options.precompressed = vec![Encoding::Gzip, Encoding::Gzip];
    });
    let places: Vec<_> = found.into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, [Place::Item("precompressed", 1), Place::Entry("mime", ".foo".into())]);
}

#[test]
fn origins_are_those_that_browsers_send() {
    for (origin, part) in [
        ("*", "cors = true"),
        ("null", "cors = true"),
        ("app.example.com", "expected an origin"),
        ("https://app.example.com/", "\"https://app.example.com\""),
        ("https://App.example.com", "\"https://app.example.com\""),
        ("https://app.example.com:443", "\"https://app.example.com\""),
        ("http://a:80", "\"http://a\""),
        ("https://a:x", "expected an origin"),
        ("https://a:080", "expected an origin"),
        ("https://", "expected an origin"),
        ("https://user@a", "expected an origin"),
        ("https://*.example.com", "expected an origin"),
        ("https://[1]", "expected an origin"),
        ("https://bücher.example", "xn--"),
    ] {
        let origins = ["https://good.example", origin];
        let found = wrong(|options| options.cors = Cors::Origins(origins.map(Into::into).into()));
        let is_right = matches!(&found[..], [(Place::Item("cors", 1), text)] if text.contains(part));
        assert!(is_right, "{origin}: {found:?}");
    }
    let good = ["http://localhost:3000", "https://a.b-c.example", "http://[::1]", "tauri://localhost"];
    assert_eq!(wrong(|options| options.cors = Cors::Origins(good.map(Into::into).into())), []);
}
