//! What is in a directory, as a page for people and as JSON for programs.

use wmproxy_wire::head::{Request, Response};

use crate::produce::Produce;
use crate::site::Directory;

/// Writes the head of the response with a directory, without what says how it is framed, and gives what makes its body: a
/// page, JSON where the client's `Accept` wants that, or an archive where the query asks for one.
pub fn answer(_directory: Directory, _request: &Request, _response: &mut Response) -> Box<dyn Produce> {
    todo!("LISTING")
}
