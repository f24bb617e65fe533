//! Heads of responses.

use super::super::*;
use super::{LIMITS, lines, response};
use crate::head::{Known, Method, Response, Version};

#[test]
fn a_response_is_read_and_written() {
    let text = b"HTTP/1.1 404 No such \xe9\r\nServer: x\r\ncontent-length: 4\r\n\r\nrest";
    let read = response(text).unwrap();
    assert_eq!((read.status, read.version), (404, Version::Http11));
    assert_eq!(read.reason(), b"No such \xe9");
    assert_eq!(lines(&read.fields), ["Server: x", "content-length: 4"]);
    assert_eq!(response_length(Method::Get, &read), Ok(Length::Known(4)));
    let mut out = Vec::new();
    write_response(&read, &mut out);
    assert_eq!(out, text[..text.len() - 4]);
}

#[test]
fn a_response_of_our_own_has_the_usual_reason() {
    let mut own = Response::with_status(503);
    own.fields.push_known(Known::ContentLength, b"0");
    let mut out = Vec::new();
    write_response(&own, &mut out);
    assert_eq!(out, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let mut out = Vec::new();
    write_response(&Response::with_status(299), &mut out);
    assert_eq!(out, b"HTTP/1.1 299 \r\n\r\n");
}

#[test]
fn a_status_line_may_end_behind_the_status() {
    for (line, reason) in [
        ("HTTP/1.0 200", "OK"),
        ("HTTP/1.1 200 ", ""),
        ("HTTP/1.1 200 \tFine  thing", "\tFine  thing"),
        ("HTTP/1.1 999 x", "x"),
        ("HTTP/1.1 100 Continue", "Continue"),
    ] {
        let read = response(format!("{line}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(read.reason(), reason.as_bytes(), "{line}");
    }
}

#[test]
fn a_malformed_response_is_refused() {
    use ResponseError::{Field, Line, Version};
    for (text, error) in [
        ("HTTP/1.1  200 OK\r\n\r\n", Line),
        ("HTTP/1.1 20 OK\r\n\r\n", Line),
        ("HTTP/1.1 2000 OK\r\n\r\n", Line),
        ("HTTP/1.1 099 OK\r\n\r\n", Line),
        ("HTTP/1.1 +20 OK\r\n\r\n", Line),
        ("HTTP/1.1 200OK\r\n\r\n", Line),
        ("HTTP/1.1\r\n\r\n", Line),
        ("HTTP 200 OK\r\n\r\n", Line),
        ("ICY 200 OK\r\n\r\n", Line),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Line),
        ("HTTP/2.0 200 OK\r\n\r\n", Version),
        ("HTTP/1.1 200 O\0K\r\n\r\n", Field(FieldError::Control)),
        ("HTTP/1.1 200\tOK\r\n\r\n", Field(FieldError::Control)),
        ("HTTP/1.1 200 OK\n\n", Field(FieldError::BareLf)),
        ("HTTP/1.1 200\n\r\n", Field(FieldError::BareLf)),
        ("HTTP/1.1 200 OK\rA: b\r\n\r\n", Field(FieldError::BareCr)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Field(FieldError::Folded)),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Field(FieldError::SpaceBeforeColon)),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n", Field(FieldError::BareLf)),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Field(FieldError::Control)),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Field(FieldError::SpaceBeforeColon)),
    ] {
        assert_eq!(response(text.as_bytes()).unwrap_err(), error, "{text:?}");
    }
    let long = format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(LIMITS.bytes));
    assert_eq!(response(long.as_bytes()).unwrap_err(), ResponseError::TooLong);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(LIMITS.fields + 1));
    assert_eq!(response(many.as_bytes()).unwrap_err(), Field(FieldError::TooMany));
}
