//! Where messages end.

use super::super::*;
use super::{get, request, response};
use crate::head::{Method, Version};

#[test]
fn a_request_is_as_long_as_it_says_once() {
    use FramingError::{Coding, CodingAndLength, CodingIn10, UnknownCoding};
    let table: &[(&str, Result<Length, FramingError>)] = &[
        ("", Ok(Length::None)),
        ("Content-Length: 0", Ok(Length::Known(0))),
        ("Content-Length: 5", Ok(Length::Known(5))),
        ("Content-Length: 007", Ok(Length::Known(7))),
        ("Content-Length: 18446744073709551615", Ok(Length::Known(u64::MAX))),
        ("Content-Length: 18446744073709551616", Err(FramingError::Length)),
        ("Content-Length: 99999999999999999999999", Err(FramingError::Length)),
        ("Content-Length:", Err(FramingError::Length)),
        ("Content-Length: -1", Err(FramingError::Length)),
        ("Content-Length: +5", Err(FramingError::Length)),
        ("Content-Length: 5 5", Err(FramingError::Length)),
        ("Content-Length: 5, 5", Err(FramingError::Length)),
        ("Content-Length: 5,", Err(FramingError::Length)),
        ("Content-Length: 0x5", Err(FramingError::Length)),
        ("Content-Length: 5.0", Err(FramingError::Length)),
        ("Content-Length: 5_0", Err(FramingError::Length)),
        ("Content-Length: \u{661}", Err(FramingError::Length)),
        ("Content-Length: 5\r\nContent-Length: 6", Err(FramingError::Length)),
        ("Content-Length: 5\r\ncontent-length: 5", Err(FramingError::Length)),
        ("Transfer-Encoding: chunked", Ok(Length::Chunked)),
        ("transfer-encoding: CHUNKED", Ok(Length::Chunked)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Err(CodingAndLength)),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", Err(CodingAndLength)),
        ("Transfer-Encoding:\r\nContent-Length: 5", Err(CodingAndLength)),
        ("Transfer-Encoding:", Err(Coding)),
        ("Transfer-Encoding: identity", Err(Coding)),
        ("Transfer-Encoding: chunked, identity", Err(Coding)),
        ("Transfer-Encoding: chunked, chunked", Err(Coding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(Coding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Err(Coding)),
        ("Transfer-Encoding: chunked,", Err(Coding)),
        ("Transfer-Encoding: ,chunked", Err(Coding)),
        ("Transfer-Encoding: xchunked", Err(Coding)),
        ("Transfer-Encoding: chunked;q=1", Err(Coding)),
        ("Transfer-Encoding: \"chunked\"", Err(Coding)),
        ("Transfer-Encoding: chun ked", Err(Coding)),
        ("Transfer-Encoding: gzip", Err(Coding)),
        ("Transfer-Encoding: gzip, chunked", Err(UnknownCoding)),
    ];
    for (text, expected) in table {
        let line = if text.is_empty() { String::new() } else { format!("{text}\r\n") };
        let read = get(&format!("Host: a\r\n{line}"));
        let expected = expected.map_err(RequestError::Framing);
        assert_eq!(request_length(&read.unwrap()), expected, "{text}");
    }
    assert_eq!(UnknownCoding.status(), 501);
    assert_eq!(Coding.status(), 400);
    let old = request(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!(request_length(&old), Err(RequestError::Framing(CodingIn10)));
}

#[test]
fn connect_has_no_body() {
    for (text, is_fine) in [
        ("", true),
        ("Content-Length: 0\r\n", true),
        ("Content-Length: 1\r\n", false),
        ("Transfer-Encoding: chunked\r\n", false),
    ] {
        let text = format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n{text}\r\n");
        let length = request_length(&request(text.as_bytes()).unwrap());
        let unwanted = RequestError::Framing(FramingError::Unwanted);
        assert_eq!(length, if is_fine { Ok(Length::None) } else { Err(unwanted) });
    }
}

#[test]
fn a_response_is_as_long_as_its_status_and_fields_say() {
    use FramingError::{Coding, CodingAndLength, CodingIn10, UnknownCoding, Unwanted};
    const SIZE: &str = "Content-Length: 5\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let table: &[(Method, &str, &str, Result<Length, FramingError>)] = &[
        (Method::Get, "1.1 200", "", Ok(Length::UntilClose)),
        (Method::Get, "1.0 200", "", Ok(Length::UntilClose)),
        (Method::Get, "1.1 200", SIZE, Ok(Length::Known(5))),
        (Method::Get, "1.1 200", CHUNKED, Ok(Length::Chunked)),
        (Method::Get, "1.1 500", CHUNKED, Ok(Length::Chunked)),
        (Method::Get, "1.0 200", CHUNKED, Err(CodingIn10)),
        (Method::Get, "1.1 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(CodingAndLength)),
        (Method::Get, "1.1 200", "Content-Length: 5\r\nContent-Length: 5\r\n", Err(FramingError::Length)),
        (Method::Get, "1.1 200", "Content-Length: 5, 5\r\n", Err(FramingError::Length)),
        (Method::Get, "1.1 200", "Transfer-Encoding: gzip\r\n", Err(Coding)),
        (Method::Get, "1.1 200", "Transfer-Encoding: gzip, chunked\r\n", Err(UnknownCoding)),
        (Method::Head, "1.1 200", "", Ok(Length::None)),
        (Method::Head, "1.1 200", SIZE, Ok(Length::None)),
        (Method::Head, "1.1 404", CHUNKED, Ok(Length::None)),
        (Method::Head, "1.1 200", "Content-Length: x\r\n", Err(FramingError::Length)),
        (Method::Get, "1.1 304", SIZE, Ok(Length::None)),
        (Method::Get, "1.1 304", CHUNKED, Ok(Length::None)),
        (Method::Get, "1.1 204", "", Ok(Length::None)),
        (Method::Get, "1.1 204", "Content-Length: 0\r\n", Ok(Length::None)),
        (Method::Get, "1.1 204", SIZE, Err(Unwanted)),
        (Method::Get, "1.1 204", CHUNKED, Err(Unwanted)),
        (Method::Get, "1.1 100", "", Ok(Length::None)),
        (Method::Get, "1.1 103", CHUNKED, Err(Unwanted)),
        (Method::Get, "1.1 101", "", Ok(Length::None)),
        (Method::Get, "1.1 101", SIZE, Err(Unwanted)),
        (Method::Connect, "1.1 200", CHUNKED, Ok(Length::None)),
        (Method::Connect, "1.1 299", SIZE, Ok(Length::None)),
        (Method::Connect, "1.1 407", SIZE, Ok(Length::Known(5))),
        (Method::Connect, "1.1 502", "", Ok(Length::UntilClose)),
    ];
    for (to, line, fields, expected) in table {
        let read = response(format!("HTTP/{line} x\r\n{fields}\r\n").as_bytes()).unwrap();
        assert_eq!(
            response_length(*to, &read),
            expected.map_err(ResponseError::Framing),
            "{to:?} {line} {fields}"
        );
    }
}

#[test]
fn a_connection_goes_on_as_version_and_fields_say() {
    for (version, value, goes_on) in [
        (Version::Http11, "", true),
        (Version::Http11, "keep-alive", true),
        (Version::Http11, "Close", false),
        (Version::Http11, "keep-alive, close", false),
        (Version::Http11, "upgrade", true),
        (Version::Http11, "closed", true),
        (Version::Http10, "", false),
        (Version::Http10, "Keep-Alive", true),
        (Version::Http10, "x, keep-alive", true),
        (Version::Http10, "keep-alive, close", false),
        (Version::Http2, "", true),
    ] {
        let mut fields = crate::head::Fields::new();
        fields.push(b"Connection", value.as_bytes());
        assert_eq!(is_persistent(version, &fields), goes_on, "{version:?} {value}");
    }
    let two = get("Host: a\r\nConnection: keep-alive\r\nconnection: close\r\n").unwrap();
    assert!(!is_persistent(two.version, &two.fields));
}
