//! The endpoint that sends clients elsewhere.

use wmproxy_wire::head::{Known, Response};

use super::EndpointError;
use crate::facts::Scene;
use crate::vars::{Piece, Plain, Template, Var, with_scratch};

/// A redirect (RFC 9110 section 15.4).
#[derive(Debug)]
pub struct Redirect {
    to: Template,
    status: u16,
}

impl Redirect {
    /// A redirect to what a template says, with 301, 302, 303, 307 or 308.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(to: Template, status: u16) -> Result<Redirect, EndpointError> {
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Err(EndpointError::NoRedirect(status));
        }
        if !begins_where_we_say(&to) {
            return Err(EndpointError::OpenRedirect);
        }
        Ok(Redirect { to, status })
    }

    /// Fills in the head, without what says how it is sent. It has no body: no client of today shows one.
    pub fn answer(&self, scene: &Scene<'_>, response: &mut Response) {
        response.clear();
        response.set_status(self.status);
        with_scratch(|location| {
            self.to.render_uri(scene, location);
            response.fields.push_known(Known::Location, location);
        });
    }
}

/// Whether the beginning, up to where a host can come, is not up to the client.
fn begins_where_we_say(to: &Template) -> bool {
    match to.pieces() {
        [Piece::Text(text), ..] if text.starts_with('/') => true,
        [Piece::Text(text), ..] => text.split_once("://").is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        }),
        [Piece::Var(Var::Plain(Plain::Scheme)), Piece::Text(text), ..] => text.starts_with("://"),
        // They begin with a slash always.
        [Piece::Var(Var::Plain(Plain::Uri | Plain::Path)), ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn location(to: &str, target: &str) -> String {
        let ((request, facts), conn) = (get(target), conn());
        let mut response = Response::new();
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        Redirect::new(to.parse().unwrap(), 308).unwrap().answer(&scene, &mut response);
        assert_eq!((response.status, response.fields.len()), (308, 1));
        String::from_utf8(response.fields.get(Known::Location).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_place_is_filled_in() {
        for (to, target, expected) in [
            ("https://{host}{uri}", "/a?b=c", "https://example.com/a?b=c"),
            ("{scheme}://other.example{path}", "/a?b=c", "https://other.example/a"),
            ("/new{path}", "/a", "/new/a"),
            ("https://{hostname}:8443/", "/", "https://example.com:8443/"),
            ("https://example.com/{header:X-None}", "/", "https://example.com/"),
        ] {
            assert_eq!(location(to, target), expected, "{to}");
        }
    }

    #[test]
    fn no_path_leads_to_another_site() {
        for target in ["//evil.example", "///evil.example", "/\\evil.example", "//\\/evil.example"] {
            let place = location("{uri}", target);
            assert!(place.starts_with('/') && !place[1..].starts_with(['/', '\\']), "{target}: {place}");
        }
        assert_eq!(location("/{query:to}", "/?to=/evil.example"), "/evil.example");
    }

    #[test]
    fn no_value_begins_another_field() {
        assert_eq!(location("/{query:a}", "/?a=b\r\nSet-Cookie:c"), "/b%0D%0ASet-Cookie:c");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for to in ["{header:X}", "{query:next}", "", "example.com", "{host}/", "{scheme}{host}", "1a://b"] {
            assert_eq!(
                Redirect::new(to.parse().unwrap(), 302).unwrap_err(),
                EndpointError::OpenRedirect,
                "{to}"
            );
        }
        for status in [200, 300, 304, 305, 306, 309] {
            assert_eq!(
                Redirect::new("/".parse().unwrap(), status).unwrap_err(),
                EndpointError::NoRedirect(status)
            );
        }
    }
}
