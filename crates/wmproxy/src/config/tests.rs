//! Whole configs through the whole loader: golden files for what is said, tables for what a plan holds, and
//! random damage for what must not happen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use wmproxy_net::options::OneOrMany;
use wmproxy_stream::options::StreamOptions;

use super::plan::{AccessFormat, LogFile, ModePlan};
use super::reference::reference;
use super::*;

/// Rewrites golden files and generated documents instead of comparing them.
const UPDATE: &str = "WMPROXY_UPDATE_DOCS";

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn env(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("db.example".into()),
        "LIMIT" => Some("100".into()),
        _ if name.starts_with("TUNNEL_") => Some(format!("no key at all, but for {name}")),
        _ => None,
    }
}

/// What the loader says to a file: its problems, or its warnings and what it comes to.
fn said(path: &Path) -> String {
    match load_with(path, &env) {
        Err(problems) => problems.render(false),
        Ok(loaded) if loaded.warnings.list.is_empty() => loaded.print(),
        Ok(loaded) => format!("{}\n{}", loaded.warnings, loaded.print()),
    }
}

/// Compares `text` with a file, or writes the file.
fn compare(path: &Path, text: &str, wrong: &mut Vec<String>) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, text).unwrap();
    } else if fs::read_to_string(path).ok().as_deref() != Some(text) {
        wrong.push(format!("{} should be:\n{text}", path.display()));
    }
}

fn assert_none(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{}\nset {UPDATE}=1 to rewrite these files, and look at the diff",
        wrong.join("\n")
    );
}

fn configs_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| Format::of(path).is_some()).collect();
    paths.sort();
    paths
}

#[test]
fn every_golden_config_gets_its_answer() {
    let golden = manifest_dir().join("src/config/golden");
    let mut configs = configs_in(&golden);
    configs.extend(["include/main.toml", "include/good.toml", "cycle/a.toml"].map(|name| golden.join(name)));
    assert!(configs.len() > 25);
    let mut wrong = Vec::new();
    for config in configs {
        let text = said(&config).replace(&format!("{}/", golden.display()), "");
        assert!(!text.contains("s3cret"), "{} shows a secret:\n{text}", config.display());
        let expected = format!("{}.txt", config.display());
        compare(Path::new(&expected), &text, &mut wrong);
    }
    assert_none(&wrong);
}

#[test]
fn what_is_printed_reads_back_to_the_same() {
    let full = manifest_dir().join("src/config/golden/full.toml");
    let loaded = load_with(&full, &env).unwrap();
    let printed = loaded.print();
    let again = load_text("printed", &printed, Format::Toml).unwrap();
    assert_eq!(again.print(), printed);
    assert_eq!(again.plan.groups, loaded.plan.groups);
}

#[test]
fn every_example_is_a_good_config() {
    let examples = configs_in(&manifest_dir().join("../../docs/examples"));
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        match load_with(&example, &env) {
            Ok(loaded) => assert!(loaded.warnings.list.is_empty(), "{}", loaded.warnings),
            Err(problems) => panic!("{problems}"),
        }
    }
}

#[test]
fn the_generated_documents_are_those_of_the_code() {
    let docs = manifest_dir().join("../../docs");
    let mut wrong = Vec::new();
    compare(&docs.join("config-reference.md"), &reference(), &mut wrong);
    let schema = format!("{:#}\n", schema());
    compare(&docs.join("wmproxy.schema.json"), &schema, &mut wrong);
    assert_none(&wrong);
}

#[test]
fn the_schema_refuses_what_the_loader_refuses() {
    fn check(schema: &serde_json::Value) {
        if let Some(object) = schema.as_object() {
            if object.contains_key("properties") && !object["properties"]["properties"].is_object() {
                assert_eq!(object["additionalProperties"], false, "{schema:#}");
            }
            object.values().for_each(check);
        }
    }
    let schema = schema();
    check(&schema);
    let stream = &schema["$defs"]["StreamOptions"];
    assert_eq!(stream["required"], serde_json::json!(["listen"]));
}

#[test]
fn a_plan_has_names_files_and_groups_resolved() {
    let golden = manifest_dir().join("src/config/golden");
    let Loaded { plan, files, .. } = load_with(&golden.join("full.toml"), &env).unwrap();
    assert_eq!(files, [golden.join("full.toml")]);
    assert_eq!((plan.workers, plan.shutdown_timeout), (2, Duration::from_secs(60)));
    assert_eq!(plan.log.file.as_deref(), Some(&*golden.join("wmproxy.log")));
    assert_eq!(plan.resolver[1].to_string(), "[2001:db8::53]:53");
    assert_eq!(plan.admin.unwrap().token.unwrap().expose(), "s3cret");
    let listeners: Vec<_> = plan
        .listeners
        .iter()
        .map(|l| {
            let ModePlan::Stream(spec) = &l.mode else { panic!("an HTTP listener") };
            format!("{} {}://{} -> {}", l.name, l.protocol, l.address, spec.routes.default().unwrap())
        })
        .collect();
    assert_eq!(
        listeners,
        [
            "dns udp://:53 -> dns",
            "dns tcp://:53 -> dns",
            "tcp-8000-8002 tcp://:8000 -> 10.0.0.5:9000,unix:/run/fallback.sock",
            "tcp-8000-8002 tcp://:8001 -> 10.0.0.5:9001,unix:/run/fallback.sock",
            "tcp-8000-8002 tcp://:8002 -> 10.0.0.5:9002,unix:/run/fallback.sock",
            "unix-app.sock tcp://unix:/run/app.sock -> localhost:5432",
        ]
    );
    assert_eq!(plan.groups.len(), 5);
    assert_eq!(plan.groups["10.0.0.5:9001,unix:/run/fallback.sock"].servers.len(), 2);
    let own = plan.listeners[0].access_log.as_ref().unwrap();
    assert_eq!((&own.file, &own.format), (&LogFile::Stdout, &AccessFormat::Json));
    assert!(plan.listeners[2].access_log.is_none());
    let default = plan.listeners[5].access_log.as_ref().unwrap();
    assert_eq!(default.file, LogFile::Path(golden.join("access.log")));
}

#[test]
fn derived_names_differ_and_equal_targets_share_a_group() {
    let text = r#"
        [[stream]]
        listen = "127.0.0.1:53"
        upstream = "10.0.0.1:53"
        [[stream]]
        listen = "127.0.0.2:53"
        upstream = "10.0.0.1:53"
        [[stream]]
        name = "tcp-53-2"
        listen = "127.0.0.3:53"
        upstream = ["10.0.0.1:53", "10.0.0.2:53"]
    "#;
    let plan = load_text("text", text, Format::Toml).unwrap().plan;
    let names: Vec<_> = plan.listeners.iter().map(|l| &*l.name).collect();
    assert_eq!(names, ["tcp-53", "tcp-53-3", "tcp-53-2"]);
    assert_eq!(
        plan.groups.keys().map(|k| &**k).collect::<Vec<_>>(),
        ["10.0.0.1:53", "10.0.0.1:53,10.0.0.2:53"]
    );
}

#[test]
fn options_of_no_file_are_judged_too() {
    let stream = |upstream: &str| StreamOptions {
        listen: Some(OneOrMany::from("127.0.0.1:0".parse::<wmproxy_net::addr::ListenSpec>().unwrap())),
        upstream: Some(OneOrMany::from(upstream.to_owned())),
        ..StreamOptions::default()
    };
    let options = Options { stream: vec![stream("10.0.0.1:80")], ..Options::default() };
    assert_eq!(from_options(options).unwrap().plan.listeners.len(), 1);
    let options = Options { stream: vec![stream("web")], ..Options::default() };
    let problems = from_options(options).unwrap_err();
    assert!(
        problems.to_string().starts_with("error: stream[0].upstream: no upstream named `web`"),
        "{problems}"
    );
    assert_eq!(problems.to_json()[0]["path"], "stream[0].upstream");
}

#[test]
fn a_secret_file_is_read_without_its_newline() {
    let dir = std::env::temp_dir().join(format!("wmproxy-config-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("token"), "abc \n\n").unwrap();
    fs::write(dir.join("c.toml"), "[admin]\nlisten = \":8837\"\ntoken_file = \"token\"\n").unwrap();
    let loaded = load_with(&dir.join("c.toml"), &env).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(loaded.plan.admin.unwrap().token.unwrap().expose(), "abc \n");
    assert_eq!(loaded.files, [dir.join("c.toml"), dir.join("token")]);
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let dir = std::env::temp_dir().join(format!("wmproxy-fifo-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let fifo = dir.join("fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fs::write(dir.join("include.toml"), "include = \"fifo\"\n").unwrap();
    fs::write(dir.join("token.toml"), "[admin]\ntoken_file = \"fifo\"\n").unwrap();
    fs::write(dir.join("device.toml"), "include = \"/dev/zero\"\n").unwrap();
    for name in ["fifo", "include.toml", "token.toml", "device.toml"] {
        let text = load_with(&dir.join(name), &env).unwrap_err().to_string();
        assert!(text.contains("it is not a regular file"), "{name}: {text}");
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn no_problem_shows_a_secret() {
    use Format::{Json, Toml, Yaml};
    for (text, format) in [
        ("[admin]\ntoken=\"abc\"s3cret", Toml),
        ("[admin]\ntoken \"s3cret\"", Toml),
        ("admin=\"s3cret\"", Toml),
        ("[[stream]]\nlisten=\":1\"\nupstream=\"http://user:s3cret@h:1\"", Toml),
        ("[[stream]]\nlisten=\":1\"\nupstream=\"redis://:s3cret@h\"", Toml),
        ("[admin]\nlisten = 1\ntoken=\"${s3cret}\"", Toml),
        ("[admin]\ntoken=\"${ s3cret }\"", Toml),
        ("[[stream]]\nlisten=\":1\"\nupstream=\"${DB_PASSWORD}\"", Toml),
        ("admin:\n  token: \"abc\" s3cret\n", Yaml),
        ("x: &t s3cret\nadmin:\n  token: *t\n", Yaml),
        ("token s3cret: 1\n", Yaml),
        ("{\"admin\": {\"tok\\u0065n\": \"s3cret\", \"listne\": 1}}", Json),
    ] {
        let env = |name: &str| (name == "DB_PASSWORD").then(|| "s3cret".to_owned());
        let mut reader = Reader::new(&env);
        let root = reader.text("text".into(), PathBuf::new(), text, format);
        let problems = finish(reader, root).unwrap_err();
        let all = format!("{problems}{}{:?}", problems.to_json(), problems.lines());
        // What a variable is called that is not set must be told, and is no secret.
        let all = all.replace("the environment variable `s3cret`", "").replace("${s3cret:-default}", "");
        assert!(!all.contains("s3cret"), "{text}:\n{all}");
    }
}

#[test]
fn a_missing_file_is_a_problem_without_a_place() {
    let problems = load(Path::new("/nonexistent/wmproxy.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "error: can't read /nonexistent/wmproxy.toml: no such file or directory\n\n1 problem\n"
    );
    assert!(problems.to_json()[0]["file"].is_null());
}

#[test]
fn problems_are_objects_for_programs() {
    let problems = load_text("x.toml", "\n  wrokers = 1\n", Format::Toml).unwrap_err();
    assert_eq!(
        problems.to_json(),
        serde_json::json!([{
            "severity": "error", "file": "x.toml", "line": 2, "column": 3, "span": [3, 10],
            "message": "unknown key `wrokers`", "hint": "did you mean `workers`?", "path": "wrokers",
        }])
    );
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let problems = load_text("x.toml", "wrokers = 1", Format::Toml).unwrap_err();
    assert!(problems.render(true).contains("\u{1b}["));
    assert!(!problems.render(false).contains('\u{1b}'));
}

/// Runs on a small stack, as of a thread of the control runtime.
fn survives(name: &'static str, text: String, format: Format) {
    let load = move || load_text(name, &text, format).map_err(|problems| problems.render(false).len());
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(load).unwrap();
    assert!(thread.join().unwrap().is_err(), "{name}");
}

#[test]
fn deep_and_large_texts_end_in_problems() {
    const SIZE: usize = 1 << 20;
    survives("deep.toml", format!("a = {}", "[".repeat(SIZE)), Format::Toml);
    survives("tables.toml", format!("a = {}", "{a=".repeat(SIZE / 3)), Format::Toml);
    survives("dotted.toml", format!("{}a = 1", "a.".repeat(SIZE / 2)), Format::Toml);
    survives("deep.json", "[".repeat(SIZE), Format::Json);
    survives("closed.json", format!("{}{}", "[".repeat(400), "]".repeat(400)), Format::Json);
    survives("objects.json", "{\"a\":".repeat(SIZE / 5), Format::Json);
    survives("deep.yaml", "[".repeat(SIZE), Format::Yaml);
    survives("dashes.yaml", "- ".repeat(SIZE / 2), Format::Yaml);
    survives("maps.yaml", "{a: ".repeat(SIZE / 4), Format::Yaml);
    let keys: String = (0..50_000).map(|i| format!("key{i} = {i}\n")).collect();
    survives("keys.toml", keys, Format::Toml);
    survives("line.json", format!("{{\"user\": [{}1]}}", "1,".repeat(SIZE / 2)), Format::Json);
}

#[test]
fn ranges_of_all_ports_are_limited() {
    let all = "[[stream]]\nlisten = [\"127.0.0.1:1-65535\", \"udp://127.0.0.1:1-65535\"]\nupstream = \"a:1-65535\"\n";
    let problems = load_text("x", all, Format::Toml).unwrap_err();
    assert!(problems.to_string().contains("more than 65536 listeners"), "{problems}");
}

#[test]
fn a_stream_that_goes_to_itself_is_warned_of() {
    let text = "[upstream.own]\nservers = [\"10.0.0.1:53\", \"127.0.0.1:53\"]\n\
        [[stream]]\nlisten = [\":80\", \"udp://:53\"]\nupstream = \"own\"\n";
    let warnings = load_text("x", text, Format::Toml).unwrap().warnings.to_string();
    assert!(warnings.contains("this goes to its own listener udp://:53"), "{warnings}");
}

#[test]
fn many_bad_streams_take_no_time() {
    let streams = |one: &str| format!("[[stream]]\n{one}\n").repeat(20_000);
    for one in ["listen = \":1\"\nupstream = \"nowhere\"", "listen = 1", "name = 1", ""] {
        let started = std::time::Instant::now();
        let problems = load_text("x", &streams(one), Format::Toml).unwrap_err();
        assert!(problems.to_string().contains("there may be more problems"), "{one}");
        assert_eq!(problems.list.len(), 100);
        // With the square of the number of streams it takes minutes, built like this.
        assert!(started.elapsed() < Duration::from_secs(20), "{one}: {:?}", started.elapsed());
    }
}

/// A config to be damaged.
const SEED: &str = include_str!("golden/full.toml");

/// The same in JSON, which is YAML as well.
fn seed(format: Format) -> String {
    if format == Format::Toml {
        return SEED.to_owned();
    }
    let text = load_text("seed", SEED, Format::Toml).unwrap().resolved();
    format!("{text:#}")
}

fn damage() -> impl Strategy<Value = Vec<(u8, usize, usize, char)>> {
    let char = prop_oneof![
        proptest::sample::select(
            "\"'[]{}=:,.#$-*&!|>\n\r\t \0ä\u{feff}0123456789".chars().collect::<Vec<_>>()
        ),
        any::<char>(),
    ];
    proptest::collection::vec((0..4u8, any::<usize>(), 0..40usize, char), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(damage in damage(), format in 0..3) {
        let format = [Format::Toml, Format::Yaml, Format::Json][format as usize];
        let mut text: Vec<char> = seed(format).chars().collect();
        for (kind, at, length, char) in damage {
            let at = at % (text.len() + 1);
            let end = (at + length).min(text.len());
            match kind {
                0 => text.insert(at, char),
                1 => drop(text.drain(at..end)),
                2 => text[at..end].reverse(),
                _ => {
                    let copy = text[at..end].to_vec();
                    text.splice(at..at, copy);
                }
            }
        }
        let text: String = text.into_iter().collect();
        match load_text("damaged", &text, format) {
            Ok(loaded) => prop_assert!(!loaded.print().is_empty()),
            Err(problems) => {
                prop_assert!(!problems.list.is_empty());
                prop_assert!(!problems.render(true).is_empty());
                for place in problems.list.iter().filter_map(|p| p.place.as_ref()) {
                    prop_assert!(place.span.end <= text.len() && text.is_char_boundary(place.span.start));
                }
            }
        }
    }
}
