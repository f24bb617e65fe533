//! What is in a directory, as a page for people and as JSON for programs.
//!
//! What lives here: which of them a client gets, their heads and their bodies. What must not: which entries there are
//! (`entries`), and how a directory goes into one file ([`crate::archive`]).

mod accept;
mod escape;
mod json;
mod kind;
mod page;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Debug;
use std::io;

use wmproxy_wire::head::{Known, Request, Response, query_param};

pub(crate) use escape::link;

use crate::archive;
use crate::entries::{Entries, Meta};
use crate::produce::Produce;
use crate::site::Directory;
use json::Json;
use page::Page;

/// Rows are handed on when they come to so many bytes: a few hundred, each of which asks the file system. With fewer the
/// hand-over would show, with more the first of them would wait for the last.
const PIECE: usize = 48 << 10;
/// A directory with so few entries is read before anything is sent, so that its listing is one piece. A larger one sends
/// the head of its page first.
const FEW: usize = 500;

/// Writes the head of the response with a directory, without what says how it is framed, and gives what makes its body: a
/// page, JSON where the client's `Accept` wants that, or an archive where the query asks for one with `archive=tar` or
/// `archive=zip` and the site has them.
pub fn answer(directory: Directory, request: &Request, response: &mut Response) -> Box<dyn Produce> {
    response.set_status(200);
    let fields = &mut response.fields;
    fields.set_named(b"X-Content-Type-Options", b"nosniff");
    // There is nothing that it could be told by whether it has changed.
    fields.set(Known::CacheControl, b"no-cache");
    let query = request.query().filter(|_| directory.site.spec().archive);
    match query.and_then(|query| query_param(query, b"archive")) {
        Some(b"tar") => return archive::tar(directory, response),
        Some(b"zip") => return archive::zip(directory, response),
        _ => {}
    }
    fields.push_known(Known::Vary, b"Accept");
    if accept::prefers_json(&request.fields) {
        fields.set(Known::ContentType, b"application/json");
        return Box::new(Listing::new(directory, Json::default()));
    }
    fields.set(Known::ContentType, b"text/html; charset=utf-8");
    fields.set_named(b"Content-Security-Policy", page::POLICY.as_bytes());
    // Names of directories are nobody else's business.
    fields.set_named(b"Referrer-Policy", b"same-origin");
    Box::new(Listing::new(directory, Page::default()))
}

/// A form of a listing.
trait Form: Debug + Send {
    /// What comes first, before anybody knows what is in the directory.
    fn head(&mut self, directory: &Directory, out: &mut Vec<u8>);

    /// An entry. Links to it are relative to the directory, with a slash at its end.
    fn row(&mut self, name: &[u8], meta: &Meta, out: &mut Vec<u8>);

    /// What comes last.
    fn tail(&mut self, out: &mut Vec<u8>);

    /// What stands between the head and the entries, which come in order or not.
    fn begin(&mut self, _is_in_order: bool, _out: &mut Vec<u8>) {}
}

/// A listing, as far as it has come.
#[derive(Debug)]
struct Listing<F> {
    form: F,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing has been sent.
    New(Directory),
    /// The head has been, and reading goes on.
    Read(Entries),
    /// Rows are.
    Rows(Entries),
    Over,
}

impl<F: Form> Listing<F> {
    fn new(directory: Directory, form: F) -> Self {
        Listing { form, state: State::New(directory) }
    }

    /// Writes rows until there are enough of them for a piece, and what comes behind the last.
    fn rows(&mut self, mut entries: Entries, out: &mut Vec<u8>) -> io::Result<bool> {
        let end = out.len() + PIECE;
        while out.len() < end {
            let Some(name) = entries.next()? else {
                self.form.tail(out);
                return Ok(false);
            };
            if let Some(meta) = entries.look(name) {
                self.form.row(entries.text(name), &meta, out);
            }
        }
        self.state = State::Rows(entries);
        Ok(true)
    }
}

impl<F: Form> Produce for Listing<F> {
    fn produce(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut entries = match std::mem::replace(&mut self.state, State::Over) {
            State::New(directory) => {
                self.form.head(&directory, out);
                let mut entries = Entries::new(directory)?;
                if !entries.read(FEW)? {
                    self.state = State::Read(entries);
                    return Ok(true);
                }
                entries
            }
            State::Read(mut entries) => {
                while !entries.read(usize::MAX)? {}
                entries
            }
            State::Rows(entries) => return self.rows(entries, out),
            State::Over => return Ok(false),
        };
        entries.sort();
        self.form.begin(entries.is_in_order(), out);
        self.rows(entries, out)
    }

    fn descriptors(&self) -> usize {
        // The directory, its list, and what an entry is a link to.
        3
    }
}
