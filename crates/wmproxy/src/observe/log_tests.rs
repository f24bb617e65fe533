//! The program log from event to line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::log::{Log, Prepared};
use super::scratch::Scratch;
use super::sinks::Sinks;
use crate::config::plan::{LogFormat, LogPlan};

fn plan(level: &str, json: bool, file: Option<PathBuf>) -> LogPlan {
    LogPlan { level: level.into(), format: if json { LogFormat::Json } else { LogFormat::Text }, file }
}

fn prepare(sinks: &Sinks, dir: &Scratch, level: &str, json: bool, file: &str) -> Prepared {
    Log::prepare(sinks, &plan(level, json, Some(dir.path(file)))).unwrap()
}

fn read(sinks: &Sinks, dir: &Scratch, file: &str) -> String {
    assert!(sinks.flush(Duration::from_secs(10)));
    fs::read_to_string(dir.path(file)).unwrap()
}

/// Without the time, which differs each time; it is checked to be one.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_at(23);
    assert!(jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", time).is_ok(), "{line}");
    rest
}

#[test]
fn a_text_line_has_time_level_message_and_fields() {
    let dir = Scratch::new("log-text");
    let sinks = Sinks::new();
    let (_log, subscriber) = Log::build(prepare(&sinks, &dir, "info", false, "a.log"));
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("conn", listener = "dns", client = tracing::field::Empty, n = 9);
        let _entered = span.enter();
        span.record("client", "127.0.0.1:1");
        let error = std::io::Error::other("broken\npipe");
        tracing::warn!(n = 3, peer = %"a b", error = &error as &dyn std::error::Error, "it said\x1b[2J {:?}", 1);
        tracing::debug!("not at this level");
    });
    let text = read(&sinks, &dir, "a.log");
    assert_eq!(
        without_time(&text),
        " WARN  it said\\u{1b}[2J 1 n=3 peer=\"a b\" error=\"broken\\npipe\" listener=dns client=127.0.0.1:1\n"
    );
}

#[test]
fn a_json_line_is_one_object() {
    let dir = Scratch::new("log-json");
    let sinks = Sinks::new();
    let (_log, subscriber) = Log::build(prepare(&sinks, &dir, "debug", true, "a.log"));
    tracing::subscriber::with_default(subscriber, || {
        tracing::debug!(n = -3, ok = true, x = f64::NAN, text = "a\"b", "hello");
    });
    let line: serde_json::Value = serde_json::from_str(&read(&sinks, &dir, "a.log")).unwrap();
    let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
    assert!(time > jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(line["level"], "debug");
    assert_eq!(line["target"], "wmproxy::observe::log_tests");
    assert_eq!(line["message"], "hello");
    assert_eq!((&line["n"], &line["ok"], &line["text"]), (&(-3).into(), &true.into(), &"a\"b".into()));
    assert!(line["x"].is_null());
}

#[test]
fn level_format_and_place_change_while_it_runs() {
    let dir = Scratch::new("log-apply");
    let sinks = Sinks::new();
    let (log, subscriber) = Log::build(prepare(&sinks, &dir, "warn", false, "a.log"));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("unseen");
        tracing::warn!("first");
        log.apply(prepare(&sinks, &dir, "info", true, "b.log"));
        tracing::info!("second");
    });
    assert!(read(&sinks, &dir, "a.log").ends_with(" WARN  first\n"));
    assert!(read(&sinks, &dir, "b.log").contains("\"message\":\"second\""));
}

#[test]
fn bad_settings_are_errors() {
    let dir = Scratch::new("log-bad");
    let sinks = Sinks::new();
    assert!(Log::prepare(&sinks, &plan("inof", false, None)).is_err());
    let error = Log::prepare(&sinks, &plan("info", false, Some(dir.path("none/a.log")))).unwrap_err();
    assert!(error.to_string().contains("none/a.log"), "{error}");
}
