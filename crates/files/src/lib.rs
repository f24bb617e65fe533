//! Static files: from the path of a request to the file that it names, the head of the response, and the bytes that follow.
//!
//! What lives here: the options of `files`, how a path is [read](path) and looked for [beneath a root](site) without a way
//! out of it, the [rules](reply) of conditions and ranges, [listings](listing) and [archives](archive) of directories. What must
//! not: sockets, tasks and the clock of a worker. Whatever may wait for a disk says so: it takes an [`Effort`], and with
//! [`Effort::Cached`] it answers from the kernel's caches or not at all, so that a worker can ask first and leave the rest to
//! others.
//!
//! A request passes through so: [`path::PathName::read`] decodes what it asks for, [`site::Site::look`] finds the file,
//! [`reply::answer`] decides by the request's fields what of it is sent and writes the head; [`file::File::read_at`] gives the
//! bytes. A directory becomes a [`produce::Produce`], which makes its body piece by piece.

#![forbid(unsafe_code)]

pub mod archive;
mod beneath;
mod entries;
pub mod file;
pub mod listing;
mod mime;
mod moment;
pub mod options;
pub mod path;
pub mod produce;
pub mod reply;
pub mod site;
mod walk;

/// How far somebody may go to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Only what the kernel has in memory: it may be asked on a worker.
    Cached,
    /// It may wait for a disk, or for a server of files.
    Full,
}
