//! `wmproxy reverse-proxy`: an HTTP server in front of others, told by the command line alone.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use wmproxy_http::options::{HttpOptions, ReverseProxyOptions, ReverseProxyTable, RouteOptions, TargetUrl};
use wmproxy_net::addr::{AddressSpec, ListenSpec, TargetSpec};
use wmproxy_net::options::OneOrMany;

use crate::cli::Cli;
use crate::config::options::Options;
use crate::http_args::{TlsArgs, listen};

/// What a reverse proxy is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReverseProxyArgs {
    /// Where to listen: HOST:PORT, :PORT or unix:/path; may be repeated
    #[arg(short, long, value_name = "LISTEN", required = true, value_parser = listen)]
    from: Vec<ListenSpec>,
    /// Where requests go: HOST:PORT, unix:/path, or a URL with http, https or h2c; addresses may be repeated, and take
    /// turns
    #[arg(short, long, value_name = "TARGET", required = true, value_parser = target)]
    to: Vec<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Ask servers by their own name instead of the one that the client asked for
    #[arg(long)]
    change_host: bool,
}

impl ReverseProxyArgs {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        match self.to.iter().find(|target| TargetUrl::is_meant(target)) {
            Some(url) if self.to.len() > 1 => {
                let message = format!("--to {url}: a URL stands alone; several targets are addresses");
                Err(Cli::command().error(ErrorKind::ValueValidation, message))
            }
            _ => Ok(()),
        }
    }

    /// The same as a config. Who runs it has asked [`check`](Self::check) before.
    pub(crate) fn options(&self) -> Options {
        let upstream = OneOrMany(self.to.clone());
        let table =
            ReverseProxyTable { upstream, preserve_host: !self.change_host, ..ReverseProxyTable::default() };
        let route = RouteOptions {
            reverse_proxy: Some(ReverseProxyOptions::Table(Box::new(table))),
            ..RouteOptions::default()
        };
        let http = HttpOptions {
            listen: Some(OneOrMany(self.from.clone())),
            tls: self.tls.options(),
            route: vec![route],
            ..HttpOptions::default()
        };
        Options { http: vec![http], ..Options::default() }
    }
}

fn target(text: &str) -> Result<String, String> {
    if TargetUrl::is_meant(text) {
        text.parse::<TargetUrl>().map_err(|error| error.to_string())?;
        return Ok(text.to_owned());
    }
    let target: AddressSpec = text.parse().map_err(|error| format!("{error}"))?;
    TargetSpec::expand(&target).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, Global};
    use crate::config::plan::ModePlan;
    use crate::source::Source;

    fn parse(args: &[&str]) -> Result<ReverseProxyArgs, clap::Error> {
        let cli = Cli::try_parse_from(["wmproxy", "reverse-proxy"].iter().chain(args))?;
        let Some(Command::ReverseProxy(args)) = cli.command else { panic!("another command") };
        args.check().map(|()| args)
    }

    #[test]
    fn it_is_a_config_of_one_route() {
        let args = parse(&["-f", "127.0.0.1:8080", "-t", "127.0.0.1:3000", "-t", "127.0.0.1:3001"]).unwrap();
        let plan = Source::ReverseProxy(Box::new(args)).load(&Global::default()).unwrap().plan;
        let ModePlan::Http(spec) = &plan.listeners[0].mode else { panic!("a stream") };
        let group = &plan.groups[spec.groups().next().unwrap()];
        assert_eq!((spec.routes.len(), group.servers.len()), (1, 2));
        let args = parse(&["-f", ":8080", "-t", "https://example.com/base", "--change-host"]).unwrap();
        let plan = Source::ReverseProxy(Box::new(args)).load(&Global::default()).unwrap().plan;
        assert!(plan.groups["https://example.com:443"].tls.is_some());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for args in [
            &["-f", ":8080"][..],
            &["-t", "127.0.0.1:3000"],
            &["-f", "udp://:8080", "-t", "127.0.0.1:3000"],
            &["-f", ":8080", "-t", "ftp://x"],
            &["-f", ":8080", "-t", "nowhere"],
            &["-f", ":8080", "-t", "http://a", "-t", "http://b"],
            &["-f", ":8080", "-t", "a:1", "--cert", "c.pem"],
            &["-f", ":8080", "-t", "a:1", "--self-signed", "--cert", "c.pem", "--key", "k.pem"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
