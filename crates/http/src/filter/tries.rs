//! Paths that are tried one after the other.

use wmproxy_wire::head::{Method, Request};

use crate::facts::Scene;
use crate::options::TryStep;
use crate::vars::{Template, TemplateError};

/// What is tried for a request, in order.
#[derive(Debug)]
pub(crate) struct Tries {
    paths: Box<[Template]>,
    /// The status that ends it, where it is not the last path's.
    last: Option<u16>,
}

/// What is done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is the one.
    Deliver,
    /// The path with this number is asked for instead.
    Ask(usize),
    /// This status is answered instead.
    Status(u16),
}

impl Tries {
    /// What the options name; none without any path.
    ///
    /// # Errors
    /// A path's template does not compile.
    pub(crate) fn new(steps: &[TryStep]) -> Result<Option<Tries>, TemplateError> {
        let (mut paths, mut last) = (Vec::new(), None);
        for step in steps {
            match step {
                TryStep::Path(text) => paths.push(Template::parse(text)?),
                TryStep::Status(status) => {
                    last = Some(*status);
                    break;
                }
            }
        }
        Ok((!paths.is_empty()).then(|| Tries { paths: paths.into(), last }))
    }

    /// Adds the path with a number to `out`, with no two slashes in a row: where a path that ends with one meets a text that
    /// begins with one, nobody means an empty segment.
    pub(crate) fn path(&self, index: usize, scene: &Scene<'_>, out: &mut Vec<u8>) {
        let Some(path) = self.paths.get(index) else { return };
        path.render(scene, out);
        out.dedup_by(|byte, before| (*byte, *before) == (b'/', b'/'));
    }

    /// What is done when the path with a number was answered with a status.
    pub(crate) fn after(&self, index: usize, status: u16, request: &Request) -> Next {
        if status < 400 || !can_again(request) {
            return Next::Deliver;
        }
        match (self.last, index + 1) {
            (_, next) if next < self.paths.len() => Next::Ask(next),
            (Some(status), _) => Next::Status(status),
            (None, _) => Next::Deliver,
        }
    }
}

/// Whether a request may be asked with one path after the other: it has no body that would be gone, and asking changes
/// nothing.
fn can_again(request: &Request) -> bool {
    matches!(request.method, Method::Get | Method::Head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn tries(steps: &[&str]) -> Tries {
        let steps: Vec<_> = steps.iter().map(|step| step.parse().unwrap()).collect();
        Tries::new(&steps).unwrap().unwrap()
    }

    fn path(tries: &Tries, index: usize, asked: &str) -> String {
        let ((request, facts), conn) = (get(asked), conn());
        let mut out = Vec::new();
        tries.path(index, &Scene { conn: &conn, request: &request, response: None, facts: &facts }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_that_is_there_answers() {
        let ((get, _), tries) = (get("/"), tries(&["{path}", "{path}/index.html", "/index.html"]));
        assert_eq!(tries.after(0, 200, &get), Next::Deliver);
        assert_eq!(tries.after(0, 304, &get), Next::Deliver);
        assert_eq!(tries.after(0, 404, &get), Next::Ask(1));
        assert_eq!(tries.after(1, 403, &get), Next::Ask(2));
        assert_eq!(tries.after(2, 404, &get), Next::Deliver);
        assert_eq!(path(&tries, 0, "/a/"), "/a/");
        assert_eq!(path(&tries, 1, "/a/"), "/a/index.html");
        assert_eq!(path(&tries, 1, "/a"), "/a/index.html");
        assert_eq!(path(&tries, 2, "/a"), "/index.html");
    }

    #[test]
    fn a_status_ends_it() {
        let ((mut request, _), tries) = (get("/"), tries(&["{path}", "=410"]));
        assert_eq!(tries.after(0, 404, &request), Next::Status(410));
        request.set_method(b"POST");
        assert_eq!(tries.after(0, 404, &request), Next::Deliver);
    }

    #[test]
    fn without_a_path_there_is_nothing_to_try() {
        assert!(Tries::new(&[]).unwrap().is_none());
        assert!(Tries::new(&[TryStep::Path("{nobody}".into())]).is_err());
    }
}
