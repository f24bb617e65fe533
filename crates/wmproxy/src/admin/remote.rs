//! Which process the commands `reload`, `stop` and `status` are for, and how they end.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use wmproxy_net::addr::AddressSpec;
use wmproxy_wire::units::Secret;

use super::client::Client;
use super::command::{Action, TOKEN_VARIABLE};
use crate::cli::{self, Global, Remote};
use crate::config;
use crate::config::options::ADMIN_ADDRESS;

/// Where the API is, and its token.
type Found = (AddressSpec, Option<Secret>);

/// Does one of the commands: prints what came of it, and says how the process ends.
pub(crate) fn run(action: Action, remote: &Remote, global: &Global) -> ExitCode {
    let token = std::env::var(TOKEN_VARIABLE).ok().and_then(|token| Secret::new(token).ok());
    let (address, token) = match find(remote.config.as_deref(), global, token) {
        Ok(found) => found,
        Err(text) => {
            let _ = write!(std::io::stderr(), "{text}");
            return ExitCode::FAILURE;
        }
    };
    let printed = action.run(&Client::new(address, token, action.timeout()), remote.json);
    let out = cli::print(&printed.out);
    // Without stderr nobody is left to be told.
    let _ = write!(std::io::stderr(), "{}", printed.err);
    if printed.done && out.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The address goes by the command line, then the config, then the default; the token by the config, then the
/// environment.
fn find(file: Option<&Path>, global: &Global, token: Option<Secret>) -> Result<Found, String> {
    if global.no_admin {
        return Err("error: without the admin API there is nobody to talk to\n".into());
    }
    let Some(file) = file else {
        let address = global.admin.clone().map_or_else(|| ADMIN_ADDRESS.parse(), Ok);
        return address.map(|address| (address, token)).map_err(|e| format!("error: {ADMIN_ADDRESS}: {e}\n"));
    };
    let admin = config::load_admin(file).map_err(|problems| {
        let text = problems.render(std::io::stderr().is_terminal());
        format!(
            "{}\n\nerror: nothing was done: this leaves the admin address in doubt; give it with --admin ADDR\n",
            text.trim_end()
        )
    })?;
    match (global.admin.clone(), admin) {
        (Some(address), admin) => Ok((address, admin.and_then(|admin| admin.token).or(token))),
        (None, Some(admin)) => Ok((admin.listen, admin.token.or(token))),
        (None, None) => Err(format!("error: {} turns the admin API off\n", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::scratch::Scratch;

    fn text(found: Result<Found, String>) -> String {
        match found {
            Ok((address, token)) => format!("{address} {}", token.as_ref().map_or("-", |t| t.expose())),
            Err(text) => text,
        }
    }

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text).unwrap())
    }

    #[test]
    fn the_process_is_found_by_option_then_config_then_default() {
        let dir = Scratch::new("remote");
        let file = dir.path("a.toml");
        std::fs::write(&file, "[admin]\nlisten = \"127.0.0.1:9\"\ntoken = \"t\"\n").unwrap();
        let none = Global::default();
        let given = Global { admin: Some("127.0.0.1:7".parse().unwrap()), ..Global::default() };
        assert_eq!(text(find(None, &none, None)), format!("{ADMIN_ADDRESS} -"));
        assert_eq!(text(find(None, &given, secret("e"))), "127.0.0.1:7 e");
        assert_eq!(text(find(Some(&file), &none, secret("e"))), "127.0.0.1:9 t");
        assert_eq!(text(find(Some(&file), &given, None)), "127.0.0.1:7 t");
    }

    #[test]
    fn a_problem_elsewhere_does_not_hide_the_process() {
        let dir = Scratch::new("remote-spoiled");
        let file = dir.path("a.toml");
        let found = |config: &str| {
            std::fs::write(&file, config).unwrap();
            text(find(Some(&file), &Global::default(), None))
        };
        let stream = "[[stream]]\nlisten = 5\nupstraem = \"none\"\n";
        assert_eq!(found(&format!("[admin]\nlisten = \"127.0.0.1:9\"\n{stream}")), "127.0.0.1:9 -");
        assert_eq!(found(stream), format!("{ADMIN_ADDRESS} -"));
        assert!(found(&format!("[admin]\nlisten = \"127.0.0.1:x\"\n{stream}")).contains("in doubt"));
        assert!(found("[admin\n").contains("in doubt"));
    }

    #[test]
    fn what_can_not_be_found_is_said_so() {
        let dir = Scratch::new("remote-bad");
        let (off, bad) = (dir.path("off.toml"), dir.path("bad.toml"));
        std::fs::write(&off, "admin = false\n").unwrap();
        std::fs::write(&bad, "admni = 3\n").unwrap();
        let none = Global::default();
        assert!(text(find(Some(&off), &none, None)).ends_with("off.toml turns the admin API off\n"));
        let printed = text(find(Some(&bad), &none, None));
        assert!(printed.contains("admni") && printed.contains("--admin ADDR"), "{printed}");
        let off = Global { no_admin: true, ..none };
        assert!(text(find(None, &off, None)).contains("nobody to talk to"));
    }
}
