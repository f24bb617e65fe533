//! The options of the `files` endpoint, and the spec that they come to.

mod check;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::head::coding::Encoding;

pub use check::{Place, Wrong};
pub use text::{Cors, ErrorStatus};

/// Files below a directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Files")]
pub struct FilesOptions {
    /// The directory; nothing outside of it is ever served. Required. A relative one starts at the config's own directory.
    /// It is looked at once a second: a directory, or a link, that takes its place is served from then on.
    pub root: String,
    /// The files that stand for a directory, the first that is there.
    pub index: Vec<String>,
    /// Whether a directory without such a file is listed. Without it such a directory is a 404.
    pub browse: bool,
    /// Whether a directory that is listed can be downloaded whole, as tar or zip, with all that is below it: of an archive
    /// only this route's own rules are asked, not those of routes that its files have for themselves. By default it can,
    /// unless another route of the listener that paths below this one's may take has an `allow`, `deny` or `basic_auth` that
    /// this one has not, or answers with an error; then `check` warns, and `true` allows it all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<bool>,
    /// The file below the root that answers with 200 where nothing else is there, as single-page applications want it:
    /// `"/index.html"`. A path whose last name has a dot in it, as those of scripts and images, is a 404 all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spa: Option<String>,
    /// Which compressed forms of a file are looked for beside it: `zstd` (`.zst`), `br` (`.br`), `gzip` (`.gz`). The
    /// client's preference decides, and this order where it has none. One that is older than the file itself is passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub precompressed: Vec<Encoding>,
    /// Whether names that begin with a dot are served and listed. `/.well-known` is served in any case.
    pub hidden: bool,
    /// Whether symbolic links are followed, as long as they stay below the root. Without it they are a 404.
    pub follow_symlinks: bool,
    /// The `Cache-Control` of files, as in `"max-age=60"`. Errors and listings don't get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Types by the end of names, before the usual ones: `{ ".foo" = "text/x-foo" }`. The longest end that fits counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mime: BTreeMap<String, String>,
    /// Whether pages of other origins may read the files: `true` for all, or a list of origins as
    /// `["https://app.example.com"]`.
    pub cors: Cors,
    /// Files below the root that are sent as the body of errors of this endpoint, by status: `{ 404 = "404.html" }`. It has
    /// 400, 403, 404, 500, 503 and what `try` ends with; for others there is `error_pages` of the route.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: BTreeMap<ErrorStatus, String>,
}

impl Default for FilesOptions {
    fn default() -> Self {
        FilesOptions {
            root: String::new(),
            index: vec!["index.html".to_owned()],
            browse: false,
            archive: None,
            spa: None,
            precompressed: Vec::new(),
            hidden: false,
            follow_symlinks: false,
            cache_control: None,
            mime: BTreeMap::new(),
            cors: Cors::default(),
            error_pages: BTreeMap::new(),
        }
    }
}

/// What a site needs to know: every value checked, every path found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSpec {
    /// The directory.
    pub root: PathBuf,
    /// Names without slashes.
    pub index: Vec<Box<str>>,
    /// Whether directories are listed.
    pub browse: bool,
    /// Whether those that are listed can be had as archives.
    pub archive: bool,
    /// A path below the root, without a slash in front.
    pub spa: Option<Box<str>>,
    /// Which compressed forms are looked for.
    pub precompressed: Vec<Encoding>,
    /// Whether names with a dot in front are there.
    pub hidden: bool,
    /// Whether symbolic links are followed.
    pub follow_symlinks: bool,
    /// A valid value.
    pub cache_control: Option<Box<str>>,
    /// Types, valid values, by what names end with, dot included, in lower case.
    pub mime: BTreeMap<Box<str>, Box<str>>,
    /// Whose pages may read it.
    pub cors: Cors,
    /// Paths below the root, without a slash in front, by status from 400 to 599.
    pub error_pages: BTreeMap<u16, Box<str>>,
}
