//! The head of a response.

use super::{Fields, Span, Version};

/// The head of a response, whatever version it came in.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status code, from 100 to 999.
    pub status: u16,
    /// The version that it came in.
    pub version: Version,
    /// The fields; the reason lies in the same buffer.
    pub fields: Fields,
    reason: Option<Span>,
}

impl Response {
    /// An empty one, to be read into.
    pub fn new() -> Response {
        Response::default()
    }

    /// One with a status and no fields.
    pub fn with_status(status: u16) -> Response {
        Response { status, ..Response::default() }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Response { fields, ..Response::default() };
    }

    /// The reason phrase that it came with; the usual one of its status otherwise.
    pub fn reason(&self) -> &[u8] {
        self.reason.map_or_else(|| usual_reason(self.status).as_bytes(), |span| self.fields.at(span))
    }

    /// Sets the reason phrase to what lies in the buffer already.
    pub fn set_reason_span(&mut self, reason: Span) {
        self.reason = Some(reason);
    }

    /// Sets the status, with its usual reason.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        self.reason = None;
    }

    /// Whether it is an interim one (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }
}

/// The usual reason phrase of a status; empty for one without.
pub fn usual_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
