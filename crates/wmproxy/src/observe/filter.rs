//! The level of the log: one for all, and others for parts of the program.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Reads `"info"` or `"info,wmproxy_net=debug"`. Stricter than the library's own parser, to which a mistyped
/// level is the name of a crate.
///
/// # Errors
/// What is wrong and what would be right.
pub(crate) fn parse(text: &str) -> Result<Targets, String> {
    // What no directive speaks of is logged as the default of the config says.
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    // That library warns of what strangers send. Here that is an outcome, and no reason to write to the log for each.
    targets = targets.with_target("h2", LevelFilter::ERROR);
    for directive in text.split(',').map(str::trim) {
        targets = match directive.split_once('=') {
            None => targets.with_default(level(directive)?),
            Some((target, word)) if is_target(target.trim()) => {
                targets.with_target(target.trim(), level(word.trim())?)
            }
            Some((target, _)) => {
                return Err(format!("`{}` is no crate or module, such as wmproxy_net", target.trim()));
            }
        };
    }
    Ok(targets)
}

/// Whether [`parse`] takes the text.
///
/// # Errors
/// As [`parse`].
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

fn level(word: &str) -> Result<LevelFilter, String> {
    match word {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!(
            "`{word}` is no level: levels are error, warn, info, debug, trace and off, \
             for one crate \"info,wmproxy_net=debug\""
        )),
    }
}

fn is_target(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.split("::").all(part)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_level_for_all_and_one_for_a_crate() {
        let targets = parse("warn, wmproxy_net::accept=debug").unwrap();
        assert!(targets.would_enable("wmproxy", &Level::WARN));
        assert!(!targets.would_enable("wmproxy", &Level::INFO));
        assert!(targets.would_enable("wmproxy_net::accept", &Level::DEBUG));
        assert!(!targets.would_enable("wmproxy_net::udp", &Level::DEBUG));
        assert!(!targets.would_enable("h2::proto", &Level::WARN));
        assert!(parse("h2=debug").unwrap().would_enable("h2::proto", &Level::DEBUG));
        let targets = parse("wmproxy_net=trace").unwrap();
        assert!(targets.would_enable("wmproxy", &Level::INFO));
    }

    #[test]
    fn a_slip_is_an_error_and_not_the_name_of_a_crate() {
        for text in
            ["inof", "", "info,", "INFO", "wmproxy=loud", "=debug", "a b=debug", "wmproxy[span]=debug"]
        {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check("inof").unwrap_err().contains("`inof` is no level"));
    }
}
