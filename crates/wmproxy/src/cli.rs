//! The command line as it is typed. What the commands do is elsewhere.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol, TargetSpec};

use crate::file_server::FileServerArgs;
use crate::observe::filter;
use crate::passwords::HashPasswordArgs;
use crate::proxy::ProxyArgs;
use crate::reverse_proxy::ReverseProxyArgs;
use crate::tunnel_command::TunnelCommand;
use crate::ws_proxy::WsProxyArgs;

/// Where the help of a command lists what goes with every command.
const GLOBAL: &str = "Options of every command";

/// A fast proxy for TCP, UDP and HTTP, a forward proxy, a server of files, and a tunnel out of private networks.
#[derive(Debug, Parser)]
#[command(
    name = "wmproxy",
    version,
    arg_required_else_help = false,
    disable_help_subcommand = true,
    after_help = "Without a command: runs ./wmproxy.toml if it is there, else a small demonstration on loopback.",
    after_long_help = "\
Without a command: runs ./wmproxy.toml if it is there, else a small demonstration on loopback.

Examples:
  wmproxy run -c /etc/wmproxy.toml
  wmproxy stream tcp://:5432=10.0.0.5:5432 udp://:53=1.1.1.1:53,8.8.8.8:53
  wmproxy reverse-proxy -f :8080 -t 127.0.0.1:3000
  wmproxy file-server -r public --browse
  wmproxy proxy -b :8090 --user alice
  wmproxy tunnel server -l :7000
  wmproxy tunnel client -S host:7000 --key K --tcp 22:20022
  wmproxy check -c wmproxy.toml && wmproxy reload
  wmproxy status

Signals: TERM and INT drain, then stop (a second one stops at once); HUP reloads; USR1 reopens the logs.
Exit status: 0 done, 1 the config or the start failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// None runs `./wmproxy.toml` or the embedded default.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options that go with every command; they go before what the config says.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// error, warn, info, debug, trace or off; for one crate "info,wmproxy_net=debug"
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "LEVEL", value_parser = level)]
    pub(crate) log_level: Option<String>,
    /// Where the admin API is: HOST:PORT or unix:/path [default: 127.0.0.1:8837]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "ADDR", value_parser = admin_address)]
    pub(crate) admin: Option<AddressSpec>,
    /// Run without the admin API
    #[arg(long, global = true, help_heading = GLOBAL, conflicts_with = "admin")]
    pub(crate) no_admin: bool,
    /// How many threads carry traffic [default: one for each core]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "N", value_parser = workers)]
    pub(crate) workers: Option<usize>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run in the foreground
    #[command(after_help = "Example: wmproxy run -c /etc/wmproxy.toml --watch")]
    Run {
        /// The config: TOML, YAML or JSON by its ending
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Reload when the file changes
        #[arg(long)]
        watch: bool,
    },
    /// Tell every problem of a config
    #[command(after_help = "Example: wmproxy check -c wmproxy.toml")]
    Check {
        /// The config: TOML, YAML or JSON by its ending
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Print the config as it was understood, with every default
        #[arg(long)]
        print: bool,
        /// Print the problems as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the running process read its config again
    Reload(Remote),
    /// Have the running process finish its connections and end
    Stop {
        #[command(flatten)]
        remote: Remote,
        /// Cut the connections off
        #[arg(long)]
        now: bool,
        /// Return only when the process has ended
        #[arg(long)]
        wait: bool,
    },
    /// Show the running process, its listeners and its upstreams
    Status(Remote),
    /// Proxy TCP and UDP without a config
    #[command(after_help = "\
Examples:
  wmproxy stream :5432=10.0.0.5:5432                        one TCP port
  wmproxy stream udp://:53=1.1.1.1:53,8.8.8.8:53            UDP, two peers in turn
  wmproxy stream :8000-8010=app.internal:8000-8010          a range of ports, each to its own
  wmproxy stream unix:/run/db.sock=10.0.0.5:5432            a unix socket")]
    Stream {
        /// LISTEN=TARGET[,TARGET…]; LISTEN may begin with tcp:// (the default) or udp://
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<StreamArg>,
    },
    /// Serve HTTP in front of other servers without a config
    #[command(after_help = "\
Examples:
  wmproxy reverse-proxy -f :8080 -t 127.0.0.1:3000                           one server
  wmproxy reverse-proxy -f :8080 -t 10.0.0.5:3000 -t 10.0.0.6:3000           two, in turn
  wmproxy reverse-proxy -f :8443 --self-signed -t https://example.com --change-host")]
    ReverseProxy(ReverseProxyArgs),
    /// Serve the files below a directory without a config
    #[command(after_help = "\
Examples:
  wmproxy file-server                                   this directory on http://127.0.0.1:8869/
  wmproxy file-server -r /srv/pub -l :8080 --browse     listings and downloads, for every address
  wmproxy file-server -r dist --spa index.html          a single-page application")]
    FileServer(Box<FileServerArgs>),
    /// Proxy for clients that say where they want to go: HTTP, CONNECT and SOCKS without a config
    #[command(after_help = "\
Examples:
  wmproxy proxy                                         for this machine, on 127.0.0.1:8090
  wmproxy proxy -b :8090 --user alice                   for others; the password is asked for
  wmproxy proxy -S socks5://127.0.0.1:9050              everything through another proxy
  wmproxy proxy -S https://a.example -S socks5://10.0.0.9      through two, one after the other")]
    Proxy(Box<ProxyArgs>),
    /// Lead visitors of a public machine to services behind NAT without a config
    #[command(subcommand)]
    Tunnel(TunnelCommand),
    /// Bridge TCP and WebSocket without a config
    #[command(after_help = "\
Examples:
  wmproxy ws-proxy -f :8080 -t 127.0.0.1:5900 --mode ws2tcp --path /vnc     browsers to a screen
  wmproxy ws-proxy -f 127.0.0.1:5900 -t example.com:443 --mode tcp2wss --path /vnc
                                                                           and back, with TLS")]
    WsProxy(WsProxyArgs),
    /// Make of a password what a config holds: from the terminal, or a line of standard input
    #[command(after_help = "Example: wmproxy hash-password >alice.hash")]
    HashPassword(HashPasswordArgs),
    /// Print the JSON schema of the config
    Schema,
    /// Print the completions for a shell
    #[command(after_help = "Example: wmproxy completions bash > /etc/bash_completion.d/wmproxy")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Which process is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Remote {
    /// Take the admin address and token from this config; the token may also be in WMPROXY_ADMIN_TOKEN
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One `LISTEN=TARGET,TARGET` of `wmproxy stream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamArg {
    /// Where to listen.
    pub(crate) listen: ListenSpec,
    /// Where to connect; at least one. A range of ports stays one, as in a config.
    pub(crate) targets: Vec<AddressSpec>,
}

impl FromStr for StreamArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, targets) = text
            .split_once('=')
            .ok_or("no `=` in it: a stream is LISTEN=TARGET, such as tcp://:5432=10.0.0.5:5432")?;
        let listen: ListenSpec = listen.parse().map_err(|e| format!("LISTEN `{listen}`: {e}"))?;
        let mut all = Vec::new();
        for target in targets.split(',') {
            let bad = |e| format!("TARGET `{target}`: {e}");
            if target.contains("://") {
                return Err(format!(
                    "TARGET `{target}`: a target has no scheme, it is reached as LISTEN says"
                ));
            }
            let spec: AddressSpec = target.parse().map_err(bad)?;
            if listen.protocol == Protocol::Udp && matches!(spec, AddressSpec::Unix(_)) {
                return Err(format!("TARGET `{target}`: unix sockets are for tcp"));
            }
            TargetSpec::expand(&spec).map_err(bad)?;
            all.push(spec);
        }
        Ok(StreamArg { listen, targets: all })
    }
}

fn level(text: &str) -> Result<String, String> {
    filter::check(text).map(|()| text.to_owned())
}

fn admin_address(text: &str) -> Result<AddressSpec, String> {
    let spec: AddressSpec = text.parse().map_err(|e: wmproxy_net::addr::AddressError| e.to_string())?;
    if spec.count() == 1 { Ok(spec) } else { Err("the admin API has one port, not a range".into()) }
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("a number from 1 to 1024".into()),
    }
}

/// The completion script for a shell.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wmproxy", &mut script);
    script
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
///
/// # Errors
/// Any other failure to write.
pub(crate) fn print(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), bytes.as_ref())
}

fn print_to(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind as Usage;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_and_after_a_command() {
        let cli =
            parse("wmproxy --workers 2 run -c a.toml --watch --log-level info,wmproxy_net=debug").unwrap();
        assert_eq!(cli.global.workers, Some(2));
        assert_eq!(cli.global.log_level.as_deref(), Some("info,wmproxy_net=debug"));
        assert!(matches!(cli.command, Some(Command::Run { watch: true, .. })));
        assert!(parse("wmproxy").unwrap().command.is_none());
        let cli = parse("wmproxy stop --now --admin unix:/run/a.sock").unwrap();
        assert!(matches!(cli.command, Some(Command::Stop { now: true, wait: false, .. })));
        assert_eq!(cli.global.admin, Some("unix:/run/a.sock".parse().unwrap()));
    }

    #[test]
    fn wrong_usage_exits_with_2_and_says_why() {
        for (line, kind) in [
            ("wmproxy run", Usage::MissingRequiredArgument),
            ("wmproxy stream", Usage::MissingRequiredArgument),
            ("wmproxy relod", Usage::InvalidSubcommand),
            ("wmproxy --log-level inof", Usage::ValueValidation),
            ("wmproxy --workers 0", Usage::ValueValidation),
            ("wmproxy --admin :1-2", Usage::ValueValidation),
            ("wmproxy --admin :1 --no-admin", Usage::ArgumentConflict),
            ("wmproxy stream :80", Usage::ValueValidation),
            ("wmproxy ws-proxy -f :80 -t a:1", Usage::MissingRequiredArgument),
            ("wmproxy ws-proxy -f udp://:80 -t a:1 --mode ws2tcp", Usage::ValueValidation),
            ("wmproxy ws-proxy -f :80 -t a:1 --mode tcp2ftp", Usage::InvalidValue),
            ("wmproxy ws-proxy -f :80 -t a:1 --mode ws2tcp --header X", Usage::ValueValidation),
            ("wmproxy ws-proxy -f :80 -t a:1 --mode ws2tcp --path x", Usage::ValueValidation),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
        }
        assert_eq!(parse("wmproxy --version").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_stream_is_where_to_listen_and_where_to_connect() {
        let arg: StreamArg = "udp://:53=1.1.1.1:53,dns.example:53".parse().unwrap();
        assert_eq!(arg.listen.to_string(), "udp://:53");
        let targets: Vec<_> = arg.targets.iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["1.1.1.1:53", "dns.example:53"]);
        let arg: StreamArg = ":80=unix:/run/a.sock".parse().unwrap();
        assert_eq!(arg.listen.protocol, Protocol::Tcp);
        let arg: StreamArg = ":81-83=10.0.0.1:1-3".parse().unwrap();
        assert_eq!(arg.targets, ["10.0.0.1:1-3".parse().unwrap()]);
    }

    #[test]
    fn a_bad_stream_says_which_part_and_why() {
        for (text, part) in [
            (":80", "no `=`"),
            ("80=a:1", "LISTEN `80`: no port"),
            ("sctp://:1=a:1", "LISTEN `sctp://:1`: unknown scheme `sctp`"),
            (":80=", "TARGET ``: no port"),
            (":80=a:1,", "TARGET ``"),
            (":80=:81", "TARGET `:81`: a target needs a host"),
            (":80=tcp://a:1", "TARGET `tcp://a:1`: a target has no scheme"),
            ("udp://:1=unix:/a", "TARGET `unix:/a`: unix sockets are for tcp"),
        ] {
            let error = text.parse::<StreamArg>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn every_shell_gets_its_completions() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = String::from_utf8(completions(shell)).unwrap();
            assert!(script.contains("wmproxy") && script.contains("log-level"), "{shell}");
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(print_to(&mut writer, b"text").is_ok());
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(print_to(&mut full, b"text").is_err());
    }
}
