//! A route at work.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::endpoint::EndpointError;
use crate::endpoint::files::Files;
use crate::endpoint::mirror::Watcher;
use crate::endpoint::redirect::Redirect;
use crate::endpoint::respond::Respond;
use crate::endpoint::reverse::Reverse;
use crate::filter::{FilterError, Filters, Tables};
use crate::options::{EndpointSpec, HttpSpec, RouteSpec};
use crate::traffic::{ListenerTraffic, RouteTraffic};
use wmproxy_upstream::Group;

/// Where a request goes that is for it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) filters: Filters,
    pub(crate) endpoint: Endpoint,
    /// Where copies of its requests go.
    pub(crate) watcher: Option<Arc<Watcher>>,
    pub(crate) traffic: Arc<RouteTraffic>,
}

/// Who answers.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// A peer.
    Reverse(Reverse),
    /// The files below a directory.
    Files(Files),
    /// A redirect.
    Redirect(Redirect),
    /// What is written in the config.
    Respond(Respond),
}

/// Why a service can't be built from a spec.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A group that there is not.
    #[error("no upstream named `{0}`")]
    Group(Arc<str>),
    /// A regular expression that does not compile.
    #[error(transparent)]
    Regex(#[from] regex::Error),
    /// An endpoint that makes no sense.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A directory of files that can't be opened.
    #[error("{}: {error}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A filter that can't be made.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A template that is none.
    #[error(transparent)]
    Template(#[from] crate::vars::TemplateError),
}

impl Route {
    /// Puts a route together. `group` finds groups by their names, `traffic` counts.
    pub(crate) fn new(
        spec: &RouteSpec,
        listener: &HttpSpec,
        group: &impl Fn(&str) -> Option<Arc<Group>>,
        traffic: &ListenerTraffic,
        tables: &Tables,
    ) -> Result<Route, BuildError> {
        let group = |name: &Arc<str>| group(name).ok_or_else(|| BuildError::Group(Arc::clone(name)));
        let endpoint = match &spec.endpoint {
            EndpointSpec::Reverse(to) => {
                Endpoint::Reverse(Reverse::new(to.clone(), group(&to.group)?, listener))
            }
            EndpointSpec::Files(spec) => Endpoint::Files(Files::new(spec.clone())?),
            EndpointSpec::Redirect { to, status } => Endpoint::Redirect(Redirect::new(to.clone(), *status)?),
            EndpointSpec::Respond { status, body, content_type } => {
                Endpoint::Respond(Respond::new(*status, body.clone(), content_type)?)
            }
        };
        let filters = Filters::new(spec, &format!("{}/{}", listener.name, spec.name), tables)?;
        let watcher = match &spec.filters.mirror {
            Some(to) => Some(Arc::new(Watcher::new(to.clone(), group(&to.group)?))),
            None => None,
        };
        Ok(Route {
            name: Arc::clone(&spec.name),
            filters,
            watcher,
            endpoint,
            traffic: traffic.route(&spec.name),
        })
    }
}
