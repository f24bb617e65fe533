//! The head of a request.

use super::{Fields, Method, Span, Version};

/// How a client reached us, or an upstream is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// As in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port where none is given.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// The head of a request, whatever version it came in.
///
/// The authority is where it is meant for: `Host`, the authority of an absolute target, or `:authority`; what reads a
/// version makes sure that they agree, and keeps it out of the fields but for HTTP/1, where `Host` keeps its place.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The version that it came in.
    pub version: Version,
    /// The scheme that the target itself names: of an absolute target, or `:scheme`.
    pub scheme: Option<Scheme>,
    /// The fields; other texts of the head lie in the same buffer.
    pub fields: Fields,
    method_name: Span,
    authority: Option<Span>,
    target: Span,
    /// The client's own target, where another has taken its place.
    asked: Option<Span>,
    protocol: Option<Span>,
}

impl Request {
    /// An empty one, to be read into.
    pub fn new() -> Request {
        Request::default()
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Request { fields, ..Request::default() };
    }

    /// The method's name.
    pub fn method_name(&self) -> &[u8] {
        match self.method {
            Method::Other => self.fields.at(self.method_name),
            known => known.as_str().as_bytes(),
        }
    }

    /// Sets the method, by a name that is a token.
    pub fn set_method(&mut self, name: &[u8]) {
        self.method = Method::of(name);
        self.method_name =
            if self.method == Method::Other { self.fields.intern(name) } else { Span::default() };
    }

    /// Sets the method to what lies in the buffer already.
    pub(crate) fn set_method_span(&mut self, method: Method, name: Span) {
        self.method = method;
        self.method_name = if method == Method::Other { name } else { Span::default() };
    }

    /// Path and query as they were asked for, or `*`, or for CONNECT the authority.
    pub fn target(&self) -> &[u8] {
        self.fields.at(self.target)
    }

    /// Sets the target.
    pub fn set_target(&mut self, target: &[u8]) {
        self.target = self.fields.intern(target);
    }

    /// Sets the target to what lies in the buffer already.
    pub fn set_target_span(&mut self, target: Span) {
        self.target = target;
    }

    /// Puts another target in the place of the one that was asked for, which is still [known](Self::asked_target).
    pub fn rewrite_target(&mut self, target: &[u8]) {
        self.asked.get_or_insert(self.target);
        self.set_target(target);
    }

    /// The target as the client sent it, whatever became of it.
    pub fn asked_target(&self) -> &[u8] {
        self.fields.at(self.asked.unwrap_or(self.target))
    }

    /// The path as it was asked for, without the query.
    pub fn raw_path(&self) -> &[u8] {
        let target = self.target();
        target.split(|&byte| byte == b'?').next().unwrap_or(target)
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        let mark = target.iter().position(|&byte| byte == b'?')?;
        Some(&target[mark + 1..])
    }

    /// Whom it is meant for: a host, with a port or without. None only in HTTP/1.0.
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| self.fields.at(span))
    }

    /// Sets the authority.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = Some(self.fields.intern(authority));
    }

    /// Sets the authority to what lies in the buffer already.
    pub fn set_authority_span(&mut self, authority: Option<Span>) {
        self.authority = authority;
    }

    /// The `:protocol` of an extended CONNECT (RFC 8441).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.map(|span| self.fields.at(span))
    }

    /// Sets the `:protocol`.
    pub fn set_protocol(&mut self, protocol: &[u8]) {
        self.protocol = Some(self.fields.intern(protocol));
    }
}
