//! Where the configuration comes from, and what the command line puts over it.

use std::path::PathBuf;

use wmproxy_net::options::OneOrMany;
use wmproxy_stream::options::StreamOptions;

use crate::cli::{Global, StreamArg};
use crate::config::options::Options;
use crate::config::plan::AdminPlan;
use crate::config::{self, Format, Loaded, Problems};
use crate::file_server::FileServerArgs;
use crate::proxy::ProxyArgs;
use crate::reverse_proxy::ReverseProxyArgs;
use crate::tunnel_command::{TunnelClientArgs, TunnelServerArgs};
use crate::ws_proxy::WsProxyArgs;

/// A configuration that can be read again and again.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A file and what it includes.
    File(PathBuf),
    /// What `wmproxy stream` was told.
    Streams(Vec<StreamArg>),
    /// What `wmproxy ws-proxy` was told.
    WsProxy(Box<WsProxyArgs>),
    /// What `wmproxy reverse-proxy` was told.
    ReverseProxy(Box<ReverseProxyArgs>),
    /// What `wmproxy proxy` was told.
    Proxy(Box<ProxyArgs>),
    /// What `wmproxy file-server` was told.
    FileServer(Box<FileServerArgs>),
    /// What `wmproxy tunnel server` was told.
    TunnelServer(Box<TunnelServerArgs>),
    /// What `wmproxy tunnel client` was told.
    TunnelClient(Box<TunnelClientArgs>),
    /// The built-in demonstration.
    Demo(String),
}

impl Source {
    /// Reads it, and puts the global options of the command line over it.
    ///
    /// # Errors
    /// Every problem of it.
    pub(crate) fn load(&self, global: &Global) -> Result<Loaded, Problems> {
        let mut loaded = match self {
            Source::File(path) => config::load(path)?,
            Source::Streams(args) => {
                let stream = args.iter().map(stream_options).collect();
                config::from_options(Options { stream, ..Options::default() })?
            }
            Source::WsProxy(args) => config::from_options(args.options())?,
            Source::ReverseProxy(args) => config::from_options(args.options())?,
            Source::Proxy(args) => config::from_options(args.options())?,
            Source::FileServer(args) => config::from_options(args.options())?,
            Source::TunnelServer(args) => config::from_options(args.options())?,
            Source::TunnelClient(args) => config::from_options(args.options())?,
            Source::Demo(text) => config::load_text("the built-in demonstration", text, Format::Toml)?,
        };
        let plan = &mut loaded.plan;
        if let Some(level) = &global.log_level {
            plan.log.level.clone_from(level);
        }
        if let Some(workers) = global.workers {
            plan.workers = workers;
        }
        if global.no_admin {
            plan.admin = None;
        } else if let Some(listen) = &global.admin {
            let token = plan.admin.take().and_then(|admin| admin.token);
            plan.admin = Some(AdminPlan { listen: listen.clone(), token });
        }
        Ok(loaded)
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Source::File(path) => Some(path),
            Source::Streams(_)
            | Source::WsProxy(_)
            | Source::ReverseProxy(_)
            | Source::Proxy(_)
            | Source::FileServer(_)
            | Source::TunnelServer(_)
            | Source::TunnelClient(_)
            | Source::Demo(_) => None,
        }
    }
}

fn stream_options(arg: &StreamArg) -> StreamOptions {
    StreamOptions {
        listen: Some(OneOrMany(vec![arg.listen.clone()])),
        upstream: Some(OneOrMany(arg.targets.iter().map(ToString::to_string).collect())),
        ..StreamOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(specs: &[&str]) -> Result<Loaded, Problems> {
        let args = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        Source::Streams(args).load(&Global::default())
    }

    #[test]
    fn a_range_of_targets_maps_port_to_port_as_in_a_config() {
        let plan = load(&["127.0.0.1:8000-8002=10.0.0.5:9000-9002"]).unwrap().plan;
        let groups: Vec<_> = plan.groups.keys().map(ToString::to_string).collect();
        assert_eq!(groups, ["10.0.0.5:9000", "10.0.0.5:9001", "10.0.0.5:9002"]);
        let problems = load(&["127.0.0.1:8000-8002=10.0.0.5:9000-9001"]).unwrap_err().render(false);
        assert!(problems.contains("these are 2 ports"), "{problems}");
    }
}
