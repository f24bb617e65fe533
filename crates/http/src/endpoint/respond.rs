//! The endpoint that answers with what is written in the configuration.

use wmproxy_wire::head::{Known, Response, is_value};

use crate::facts::Scene;
use crate::vars::Template;

/// A response that is written in the configuration.
#[derive(Debug)]
pub struct Respond {
    status: u16,
    body: Template,
    content_type: Box<str>,
}

/// What is wrong with a response or a redirect of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No final response has this status.
    #[error("{0} is no status of a response; those go from 200 to 599")]
    NoResponse(u16),
    /// No redirect has this status.
    #[error("{0} is no status of a redirect: 301, 302, 303, 307 or 308")]
    NoRedirect(u16),
    /// The type of the body can't stand in a field.
    #[error("a content type has no control characters in it and no space around it")]
    ContentType,
    /// A client could choose where it leads to.
    #[error(
        "`to` begins with `/`, with a scheme as in `https://`, or with {{scheme}}, {{uri}} or {{path}}: \
         with anything else a client could choose the site that it is sent to"
    )]
    OpenRedirect,
}

impl Respond {
    /// A response with a status from 200 to 599.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(status: u16, body: Template, content_type: &str) -> Result<Respond, EndpointError> {
        if !(200..=599).contains(&status) {
            return Err(EndpointError::NoResponse(status));
        }
        if !is_value(content_type.as_bytes()) {
            return Err(EndpointError::ContentType);
        }
        Ok(Respond { status, body, content_type: content_type.into() })
    }

    /// Fills in the head, without what says how it is sent, and the body. To a HEAD it is the one that a GET would get,
    /// and not to be sent. A 204, 205 or 304 has none.
    pub fn answer(&self, scene: &Scene<'_>, response: &mut Response, body: &mut Vec<u8>) {
        response.clear();
        response.set_status(self.status);
        if matches!(self.status, 204 | 205 | 304) {
            return;
        }
        self.body.render(scene, body);
        if !body.is_empty() && !self.content_type.is_empty() {
            response.fields.push_known(Known::ContentType, self.content_type.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn respond(status: u16, body: &str, content_type: &str) -> Result<Respond, EndpointError> {
        Respond::new(status, body.parse().unwrap(), content_type)
    }

    fn answer(respond: &Respond) -> (Response, String) {
        let ((request, facts), conn) = (get("/x"), conn());
        // What the desk had before is gone then.
        let mut response = Response::with_status(500);
        response.fields.push(b"Left", b"over");
        let mut body = Vec::new();
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        respond.answer(&scene, &mut response, &mut body);
        (response, String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_body_is_filled_in() {
        let (response, body) = answer(&respond(200, "hello {client_ip} at {path}\n", "text/plain").unwrap());
        assert_eq!((response.status, &*body), (200, "hello 192.0.2.7 at /x\n"));
        assert_eq!(response.fields.get(Known::ContentType), Some(&b"text/plain"[..]));
        assert_eq!(response.fields.len(), 1);
    }

    #[test]
    fn without_a_body_there_is_no_type() {
        for (status, text) in [(204, "not sent"), (205, "not sent"), (304, "not sent"), (404, "")] {
            let (response, body) = answer(&respond(status, text, "text/plain").unwrap());
            assert_eq!((response.status, &*body, response.fields.is_empty()), (status, "", true));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(respond(101, "", "").unwrap_err(), EndpointError::NoResponse(101));
        assert_eq!(respond(600, "", "").unwrap_err(), EndpointError::NoResponse(600));
        assert_eq!(respond(200, "", "a\r\nb").unwrap_err(), EndpointError::ContentType);
    }
}
