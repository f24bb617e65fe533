//! The commands `reload`, `stop` and `status`: a request, and its answer for the one who typed them.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::client::{Answer, Client, ClientError};
use super::status::Status;
use super::{
    ApiError, RELOAD_PATH, ReloadFailure, Reloaded, STATUS_PATH, STOP_PATH, StopRequest, Stopping, report,
};

/// How long an answer to `status` or `stop` may take: the process has it at hand.
const QUICK: Duration = Duration::from_secs(10);

/// How long a reload may take: names may have to be resolved and many files to be read.
const SLOW: Duration = Duration::from_secs(120);

/// How often `stop --wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between the end of the admin API and the end of the process there are only the last lines of the logs.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// Where a token may stand that is in no config at hand. On the command line everybody would see it.
pub(super) const TOKEN_VARIABLE: &str = "WMPROXY_ADMIN_TOKEN";

/// What is asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Read the config again.
    Reload,
    /// End, with or without a drain; `wait` until that is done.
    Stop { now: bool, wait: bool },
    /// Tell how it goes.
    Status,
}

/// What to print, and whether the action was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    /// For stdout.
    pub(crate) out: String,
    /// For stderr.
    pub(crate) err: String,
    pub(crate) done: bool,
}

impl Action {
    /// How long its answer may take.
    pub(crate) fn timeout(self) -> Duration {
        if self == Action::Reload { SLOW } else { QUICK }
    }

    /// Asks the process; with `json` the answer is printed as it came.
    pub(crate) fn run(self, client: &Client, json: bool) -> Printed {
        let answer = match self {
            Action::Reload => client.post(RELOAD_PATH, ""),
            Action::Status => client.get(STATUS_PATH),
            Action::Stop { now, .. } => {
                let body = serde_json::to_string(&StopRequest { now }).unwrap_or_default();
                client.post(STOP_PATH, &body)
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return failed(&error.to_string()),
        };
        let mut printed = self.explain(&answer);
        if json {
            printed.out = String::from_utf8_lossy(&answer.body).into_owned() + "\n";
            printed.err.clear();
        }
        if let (true, Action::Stop { wait: true, .. }) = (printed.done, self)
            && let Some(stopping) = parse::<Stopping>(&answer)
        {
            wait_for_end(client, stopping.pid, LAST_BREATH);
            if !json {
                printed.out.push_str("stopped\n");
            }
        }
        printed
    }

    fn explain(self, answer: &Answer) -> Printed {
        let text = match (self, answer.code) {
            (Action::Status, 200) => parse::<Status>(answer).map(|status| report::render(&status)),
            (Action::Reload, 200) => parse::<Reloaded>(answer).map(|reloaded| {
                let warnings = reloaded.warnings.iter().map(|text| format!("warning: {text}\n"));
                format!("reloaded: generation {}\n{}", reloaded.generation, warnings.collect::<String>())
            }),
            (Action::Stop { now, .. }, 202) => {
                parse::<Stopping>(answer).map(|stopping| match stopping.active {
                    0 => "stopping\n".to_owned(),
                    n if now => format!("stopping; cutting off {}\n", open(n)),
                    n => format!("stopping; {} may finish\n", open(n)),
                })
            }
            (Action::Reload, 422) => return reload_failed(answer),
            (_, 401) => {
                return failed(&format!(
                    "the admin API wants its token: give the config that has it with -c FILE, or set {TOKEN_VARIABLE}"
                ));
            }
            _ => {
                return failed(&match parse::<ApiError>(answer) {
                    Some(error) => error.error,
                    None => format!("the answer is HTTP status {}", answer.code),
                });
            }
        };
        match text {
            Some(out) => Printed { out, err: String::new(), done: true },
            None => failed("the answer is not that of a wmproxy of this version"),
        }
    }
}

fn parse<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    serde_json::from_slice(&answer.body).ok()
}

fn failed(text: &str) -> Printed {
    Printed { out: String::new(), err: format!("error: {text}\n"), done: false }
}

fn reload_failed(answer: &Answer) -> Printed {
    let failure = parse::<ReloadFailure>(answer).unwrap_or_default();
    let mut printed = failed(&format!("nothing was changed: {}", failure.error));
    if !failure.rendered.is_empty() {
        printed.err.insert_str(0, &format!("{}\n\n", failure.rendered.trim_end()));
    }
    printed
}

/// Returns when the process is gone: nobody answers, or somebody else does; and `last_breath` is over or its
/// number free.
pub(super) fn wait_for_end(client: &Client, pid: u32, last_breath: Duration) {
    loop {
        match client.get(STATUS_PATH) {
            Ok(answer) if parse::<Status>(&answer).is_some_and(|status| status.pid != pid) => return,
            Err(ClientError::Absent(..)) => break,
            // It may hang up on us while it goes.
            _ => sleep(LOOK_EVERY),
        }
    }
    // If it ran on another machine the number means nothing here, which costs a wait and no more.
    let process = PathBuf::from(format!("/proc/{pid}"));
    let until = Instant::now() + last_breath;
    while process.exists() && Instant::now() < until {
        sleep(LOOK_EVERY);
    }
}

fn open(n: u64) -> String {
    if n == 1 { "1 open connection or flow".into() } else { format!("{n} open connections and flows") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(action: Action, code: u16, body: &str) -> Printed {
        action.explain(&Answer { code, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn a_reload_says_what_came_of_it() {
        let printed =
            explain(Action::Reload, 200, r#"{"generation":4,"warnings":["workers needs a restart"]}"#);
        assert_eq!(printed.out, "reloaded: generation 4\nwarning: workers needs a restart\n");
        assert!(printed.done);
        let body = r#"{"error":"2 problems in a.toml","problems":[],"rendered":"error: unknown key\n --> a.toml:1:1\n"}"#;
        let printed = explain(Action::Reload, 422, body);
        assert!(!printed.done && printed.out.is_empty());
        assert_eq!(
            printed.err,
            "error: unknown key\n --> a.toml:1:1\n\nerror: nothing was changed: 2 problems in a.toml\n"
        );
    }

    #[test]
    fn refusals_are_passed_on() {
        let printed = explain(Action::Status, 403, r#"{"error":"another host"}"#);
        assert_eq!((printed.err.as_str(), printed.done), ("error: another host\n", false));
        let printed = explain(Action::Status, 401, r#"{"error":"this needs the token"}"#);
        assert!(printed.err.contains(TOKEN_VARIABLE) && !printed.done, "{}", printed.err);
        let printed = explain(Action::Status, 502, "<html>");
        assert_eq!(printed.err, "error: the answer is HTTP status 502\n");
        let printed = explain(Action::Status, 200, "{}");
        assert!(printed.err.contains("not that of a wmproxy"));
    }

    #[test]
    fn a_stop_says_who_is_left() {
        let stop = |now| Action::Stop { now, wait: false };
        assert_eq!(explain(stop(false), 202, r#"{"pid":1,"active":0}"#).out, "stopping\n");
        let active = |now, n| explain(stop(now), 202, &format!(r#"{{"pid":1,"active":{n}}}"#)).out;
        assert_eq!(active(false, 3), "stopping; 3 open connections and flows may finish\n");
        assert_eq!(active(false, 1), "stopping; 1 open connection or flow may finish\n");
        assert_eq!(active(true, 3), "stopping; cutting off 3 open connections and flows\n");
    }
}
