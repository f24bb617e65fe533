//! `wmproxy file-server`: the files below a directory, told by the command line alone.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use wmproxy_files::options::{Cors, FilesOptions, Place};
use wmproxy_http::options::{FilesEndpointOptions, HttpOptions, RouteOptions};
use wmproxy_net::addr::{Address, ListenSpec};
use wmproxy_net::options::{AccessLogOptions, OneOrMany};
use wmproxy_net::record::ListenerMetrics;

use crate::cli::Cli;
use crate::config::http::files::root_problem;
use crate::config::options::Options;
use crate::http_args::{TlsArgs, listen};

/// A line for each request: when, who, what, and what became of it.
const LINE: &str = "{time} {client_addr} {method} {uri} -> {status} {bytes_out} bytes in {duration}s";

/// What a file server is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileServerArgs {
    /// The directory; nothing outside of it is served
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    root: String,
    /// Where to listen: HOST:PORT, :PORT or unix:/path; may be repeated
    #[arg(short, long, value_name = "LISTEN", default_value = "127.0.0.1:8869", value_parser = listen)]
    listen: Vec<ListenSpec>,
    /// List directories without an index.html, and offer them as archives
    #[arg(short, long)]
    browse: bool,
    /// Answer with this file below DIR where nothing else is there, as single-page applications want it
    #[arg(long, value_name = "FILE")]
    spa: Option<String>,
    /// Serve and list names that begin with a dot
    #[arg(long)]
    hidden: bool,
    /// Follow symbolic links that stay below DIR
    #[arg(long)]
    follow_symlinks: bool,
    /// Let pages of other origins read the files
    #[arg(long)]
    cors: bool,
    /// Print a line for each request
    #[arg(long)]
    access_log: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

impl FileServerArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        // The config says the same, but not in the words of the command line.
        let Err(wrong) = self.files().spec(self.root.clone().into()) else { return Ok(()) };
        let wrong = wrong.iter().map(|wrong| match wrong.place {
            Place::Key(key) | Place::Entry(key, _) | Place::Item(key, _) => {
                format!("--{key}: {}", wrong.message)
            }
        });
        let message = wrong.collect::<Vec<_>>().join("\n");
        Err(Cli::command().error(ErrorKind::ValueValidation, message))
    }

    /// Why the directory can't be served, if it can't: no fault of usage, for it may be there the next time.
    pub(crate) fn root_problem(&self) -> Option<String> {
        root_problem(Path::new(&self.root), self.browse)
    }

    /// The same as a config. Who runs it has asked [`check`](Self::check) before.
    pub(crate) fn options(&self) -> Options {
        let route = RouteOptions {
            files: Some(FilesEndpointOptions::Table(Box::new(self.files()))),
            ..RouteOptions::default()
        };
        let http = HttpOptions {
            listen: Some(OneOrMany(self.listen.clone())),
            tls: self.tls.options(),
            route: vec![route],
            ..HttpOptions::default()
        };
        let log = AccessLogOptions { file: Some("-".to_owned()), format: Some(LINE.to_owned()) };
        Options { http: vec![http], access_log: self.access_log.then_some(log), ..Options::default() }
    }

    fn files(&self) -> FilesOptions {
        FilesOptions {
            root: self.root.clone(),
            browse: self.browse,
            spa: self.spa.clone(),
            hidden: self.hidden,
            follow_symlinks: self.follow_symlinks,
            cors: Cors::All(self.cors),
            ..FilesOptions::default()
        }
    }

    /// What is served where, for people; told once it listens.
    pub(crate) fn banner(&self, listeners: &[Arc<ListenerMetrics>]) -> String {
        let root = Path::new(&self.root);
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let scheme = if self.tls.options().is_some() { "https" } else { "http" };
        let mut text = format!("\nServing {} at\n\n", root.display());
        let mut urls: Vec<String> = listeners.iter().map(|listener| url(scheme, &listener.address)).collect();
        // One port of every address is a listener for IPv4 and one for IPv6.
        urls.dedup();
        for url in urls {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {url}");
        }
        let listed = match (self.browse, &self.spa) {
            (true, _) => "Directories without an index.html are listed".to_owned(),
            (false, Some(spa)) => format!("What is not there is answered with {spa}"),
            (false, None) => "Directories are not listed; --browse does that".to_owned(),
        };
        let _ = writeln!(text, "\n{listed}. Ctrl-C stops.\n");
        text
    }
}

/// What a browser is given to reach an address.
fn url(scheme: &str, address: &Address) -> String {
    match address {
        Address::Inet(at) if at.ip().is_unspecified() => {
            format!("{scheme}://localhost:{}/ and every other address of this machine", at.port())
        }
        Address::Inet(at) => format!("{scheme}://{at}/"),
        Address::Unix(_) | Address::Name(..) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use wmproxy_http::options::EndpointSpec;

    use super::*;
    use crate::cli::{Command, Global};
    use crate::config::plan::ModePlan;
    use crate::source::Source;

    fn parse(args: &[&str]) -> Result<FileServerArgs, clap::Error> {
        let cli = Cli::try_parse_from(["wmproxy", "file-server"].iter().chain(args))?;
        let Some(Command::FileServer(args)) = cli.command else { panic!("another command") };
        args.check().map(|()| *args)
    }

    #[test]
    fn it_is_a_config_of_one_route() {
        for (args, expected) in [(&[][..], "127.0.0.1:8869"), (&["-r", "src", "-l", ":0", "--browse"], ":0")]
        {
            let args = parse(args).unwrap();
            let (root, browse) = (args.root.clone(), args.browse);
            let plan = Source::FileServer(Box::new(args)).load(&Global::default()).unwrap().plan;
            assert_eq!(plan.listeners[0].address.to_string(), expected);
            assert!(plan.listeners[0].access_log.is_none());
            let ModePlan::Http(spec) = &plan.listeners[0].mode else { panic!("a stream") };
            let EndpointSpec::Files(files) = &spec.routes[0].endpoint else { panic!("no files") };
            assert_eq!((&*files.root, files.browse, files.hidden), (Path::new(&root), browse, false));
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for (args, part) in [
            (&["-l", "udp://:8080"][..], "over tcp"),
            (&["-l", "8080"], "no port"),
            (&["--spa", "../index.html"], "--spa: this leads out of the root"),
            (&["--spa", ""], "--spa: this names no file"),
            (&["--cert", "c.pem"], "--key"),
            (&["src"], "unexpected argument"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(part), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_root_that_is_not_there_is_no_wrong_usage() {
        let args = parse(&["-r", "no/such/directory"]).unwrap();
        assert_eq!(args.root_problem().unwrap(), "can't serve no/such/directory: there is no such directory");
        assert!(parse(&["-r", "Cargo.toml"]).unwrap().root_problem().unwrap().contains("not a directory"));
        assert_eq!(parse(&[]).unwrap().root_problem(), None);
    }

    #[test]
    fn the_banner_has_what_a_browser_is_given() {
        let at = |text: &str| url("http", &text.parse::<std::net::SocketAddr>().unwrap().into());
        assert_eq!(at("127.0.0.1:8869"), "http://127.0.0.1:8869/");
        assert_eq!(at("[::1]:8869"), "http://[::1]:8869/");
        for any in ["[::]:8869", "0.0.0.0:8869"] {
            assert_eq!(at(any), "http://localhost:8869/ and every other address of this machine");
        }
        assert_eq!(url("http", &Address::Unix("/run/a.sock".into())), "unix:/run/a.sock");
    }
}
