//! Tables of what is read and what is refused.

use super::*;
use crate::head::{Known, Method, Request, Response, Version};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, target: 256, fields: 16 };

fn request(text: &str) -> Result<Option<Request>, RequestError> {
    let mut request = Request::new();
    let used = read_request(text.as_bytes(), &LIMITS, &mut request)?;
    Ok(used.map(|_| request))
}

#[test]
fn a_request_is_read() {
    let request =
        request("POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\ncontent-LENGTH:  5 \r\nX:\r\n\r\nhello");
    let request = request.unwrap().unwrap();
    assert_eq!((request.method, request.version), (Method::Post, Version::Http11));
    assert_eq!(request.authority(), Some(&b"example.com"[..]));
    assert_eq!(request.target(), b"/a/b?c=d");
    assert_eq!(request.fields.get(Known::ContentLength), Some(&b"5"[..]));
    assert_eq!(request_length(&request), Ok(Length::Known(5)));
    let mut out = Vec::new();
    write_request(&request, &mut out);
    assert_eq!(
        out.escape_ascii().to_string(),
        r"POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\ncontent-LENGTH: 5\r\nX: \r\n\r\n"
    );
}

#[test]
fn a_response_is_read() {
    let mut response = Response::new();
    let text = b"HTTP/1.0 404 No such\r\nA: b\r\n\r\nrest";
    assert_eq!(read_response(text, &LIMITS, &mut response), Ok(Some(text.len() - 4)));
    assert_eq!((response.status, response.version), (404, Version::Http10));
    assert_eq!(response.reason(), b"No such");
    assert_eq!(response_length(Method::Get, &response), Ok(Length::UntilClose));
}
