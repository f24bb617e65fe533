//! What is wrong with a message, in words.

macro_rules! words {
    ($($kind:ident)*) => {
        $(
            impl std::fmt::Display for $kind {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.as_str())
                }
            }

            impl std::error::Error for $kind {}
        )*
    };
}
pub(super) use words;

words!(FieldError FramingError RequestError ResponseError);

/// What is wrong with a line, or with the lines together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// CR without LF.
    BareCr,
    /// LF without CR.
    BareLf,
    /// A control byte.
    Control,
    /// A line that begins with whitespace (obs-fold, RFC 9112 section 5.2).
    Folded,
    /// A line without a colon.
    NoColon,
    /// Whitespace before the colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// An empty name.
    NoName,
    /// A name that is no token.
    Name,
    /// More fields than the limit.
    TooMany,
}

impl FieldError {
    /// The status of a response to it.
    pub fn status(self) -> u16 {
        if self == FieldError::TooMany { 431 } else { 400 }
    }

    /// What is wrong, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldError::BareCr => "a CR without LF",
            FieldError::BareLf => "an LF without CR",
            FieldError::Control => "a control byte in the head",
            FieldError::Folded => "a line that begins with whitespace",
            FieldError::NoColon => "a field without a colon",
            FieldError::SpaceBeforeColon => "whitespace before a colon",
            FieldError::NoName => "a field with an empty name",
            FieldError::Name => "a field's name that is no token",
            FieldError::TooMany => "more fields than the limit",
        }
    }
}

/// Why nobody can say where a message ends (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// `Transfer-Encoding` and `Content-Length` in one message.
    CodingAndLength,
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingIn10,
    /// A `Transfer-Encoding` that is not exactly `chunked`.
    Coding,
    /// Other codings before a last `chunked`.
    UnknownCoding,
    /// A `Content-Length` that is not one number, or more than one of them.
    Length,
    /// A body where none may be: of CONNECT, or of a response with 1xx or 204.
    Unwanted,
}

impl FramingError {
    /// The status of a response to a request with it.
    pub fn status(self) -> u16 {
        if self == FramingError::UnknownCoding { 501 } else { 400 }
    }

    /// What is wrong, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            FramingError::CodingAndLength => "Transfer-Encoding and Content-Length in one message",
            FramingError::CodingIn10 => "Transfer-Encoding in HTTP/1.0",
            FramingError::Coding => "a Transfer-Encoding that is not chunked",
            FramingError::UnknownCoding => "a transfer coding other than chunked",
            FramingError::Length => "a Content-Length that is not one number",
            FramingError::Unwanted => "a body where none may be",
        }
    }
}

/// What is wrong with a request's head. After any of them the connection means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// A method that is no token, or a line that is not method, target and version with one space between them.
    Line,
    /// A byte that no target has, a target in none of the four forms, or in a form that is not the method's.
    Target,
    /// A target over the limit.
    TargetTooLong,
    /// A version other than 1.0 and 1.1.
    Version,
    /// A head over the limit.
    TooLong,
    /// One of its lines.
    Field(FieldError),
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    ManyHosts,
    /// A `Host` that is no [authority](crate::head::authority).
    Host,
    /// A `Host` that is not the target's.
    OtherHost,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// Its length.
    Framing(FramingError),
}

impl RequestError {
    /// The status of the response to it.
    pub fn status(self) -> u16 {
        match self {
            RequestError::TargetTooLong => 414,
            RequestError::Version => 505,
            RequestError::TooLong => 431,
            RequestError::Expectation => 417,
            RequestError::Field(error) => error.status(),
            RequestError::Framing(error) => error.status(),
            _ => 400,
        }
    }

    /// What is wrong, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestError::Line => "a malformed request line",
            RequestError::Target => "an invalid target",
            RequestError::TargetTooLong => "a target over the limit",
            RequestError::Version => "a version other than 1.0 and 1.1",
            RequestError::TooLong => "a head over the limit",
            RequestError::Field(error) => error.as_str(),
            RequestError::NoHost => "no Host",
            RequestError::ManyHosts => "more than one Host",
            RequestError::Host => "an invalid Host",
            RequestError::OtherHost => "a Host other than the target's",
            RequestError::Expectation => "an unknown expectation",
            RequestError::Framing(error) => error.as_str(),
        }
    }
}

/// What is wrong with a response's head. After any of them the connection means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// A line that is not version, status and reason.
    Line,
    /// A version other than 1.0 and 1.1.
    Version,
    /// A head over the limit.
    TooLong,
    /// One of its lines.
    Field(FieldError),
    /// Its length.
    Framing(FramingError),
}

impl ResponseError {
    /// What is wrong, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ResponseError::Line => "a malformed status line",
            ResponseError::Version => "a version other than 1.0 and 1.1",
            ResponseError::TooLong => "a head over the limit",
            ResponseError::Field(error) => error.as_str(),
            ResponseError::Framing(error) => error.as_str(),
        }
    }
}

impl From<FieldError> for RequestError {
    fn from(error: FieldError) -> Self {
        RequestError::Field(error)
    }
}

impl From<FieldError> for ResponseError {
    fn from(error: FieldError) -> Self {
        ResponseError::Field(error)
    }
}

impl From<FramingError> for RequestError {
    fn from(error: FramingError) -> Self {
        RequestError::Framing(error)
    }
}

impl From<FramingError> for ResponseError {
    fn from(error: FramingError) -> Self {
        ResponseError::Framing(error)
    }
}
