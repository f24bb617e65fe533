//! The same bytes to httparse, which hyper reads with: whatever we take, it takes, and sees the same in it.

use proptest::prelude::*;

use super::super::*;
use super::LIMITS;
use crate::head::{Fields, Request, Response};

fn assert_same(ours: &Fields, theirs: &[httparse::Header<'_>]) {
    let ours: Vec<_> = ours.iter().map(|field| (field.name, field.value)).collect();
    let theirs: Vec<_> = theirs.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(ours, theirs);
}

fn compare_request(text: &[u8]) {
    let mut ours = Request::new();
    let Ok(Some(used)) = read_request(text, &LIMITS, &mut ours) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut theirs = httparse::Request::new(&mut fields);
    assert_eq!(theirs.parse(text), Ok(httparse::Status::Complete(used)), "{}", text.escape_ascii());
    assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method_name()));
    assert!(
        theirs.path.is_some_and(|path| path.as_bytes().ends_with(ours.target()) || ours.scheme.is_some())
    );
    assert_same(&ours.fields, theirs.headers);
}

fn compare_response(text: &[u8]) {
    let mut ours = Response::new();
    let Ok(Some(used)) = read_response(text, &LIMITS, &mut ours) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut theirs = httparse::Response::new(&mut fields);
    assert_eq!(theirs.parse(text), Ok(httparse::Status::Complete(used)), "{}", text.escape_ascii());
    assert_eq!(theirs.code, Some(ours.status));
    assert_same(&ours.fields, theirs.headers);
}

proptest! {
    #[test]
    fn a_request_that_we_take_is_the_same_to_httparse(
        line in "(\r\n)?[A-Z!]{1,4} /[!-~]{0,6} HTTP/1\\.[01]", fields in "([A-Za-z0-9!#'|~]{1,4}:[ \t]{0,2}[ -~\t]{0,6}\r\n){0,4}",
        at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut text = format!("{line}\r\nHost: a\r\n{fields}\r\n").into_bytes();
        compare_request(&text);
        let at = at.index(text.len());
        text[at] = with;
        compare_request(&text);
    }

    #[test]
    fn a_response_that_we_take_is_the_same_to_httparse(
        line in "HTTP/1\\.[01] [1-9][0-9]{2}( [ -~]{0,6})?", fields in "([A-Za-z0-9!#'|~]{1,4}:[ \t]{0,2}[ -~\t]{0,6}\r\n){0,4}",
        at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let mut text = format!("{line}\r\n{fields}\r\n").into_bytes();
        compare_response(&text);
        let at = at.index(text.len());
        text[at] = with;
        compare_response(&text);
    }
}
