//! A listing for programs.

use std::io::Write as _;

use super::{Form, escape};
use crate::entries::{Kind, Meta};
use crate::moment::Moment;
use crate::site::Directory;

/// An array with an object for each entry, a line each.
#[derive(Debug, Default)]
pub(super) struct Json {
    has_rows: bool,
}

impl Form for Json {
    fn head(&mut self, _directory: &Directory, out: &mut Vec<u8>) {
        out.push(b'[');
    }

    fn row(&mut self, name: &[u8], meta: &Meta, out: &mut Vec<u8>) {
        out.extend_from_slice(if std::mem::replace(&mut self.has_rows, true) { b",\n" } else { b"\n" });
        out.extend_from_slice(b"{\"name\":");
        escape::json(name, out);
        out.extend_from_slice(b",\"path\":\"");
        escape::link(name, out);
        let _ = match meta.kind {
            Kind::Directory => write!(out, "/\",\"type\":\"directory\",\"size\":null"),
            Kind::File => write!(out, "\",\"type\":\"file\",\"size\":{}", meta.len),
        };
        out.extend_from_slice(b",\"modified\":\"");
        out.extend_from_slice(&Moment::at(meta.modified).text());
        out.extend_from_slice(b"\"}");
    }

    fn tail(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.has_rows { b"\n]\n" } else { b"]\n" });
    }
}
