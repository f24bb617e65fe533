//! The rules of the house that a compiler does not check: the arrows between crates and the length of files.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use wmproxy_testkit::arrows;

/// Files stay under about 400 lines; this is where "about" ends.
const LINES: usize = 450;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

#[test]
fn every_edge_of_the_workspace_is_an_arrow_of_the_plan() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let packages: Vec<String> = packages.iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect();
    let edges = arrows::edges(&metadata);
    assert!(edges.len() >= 10, "that is not the whole workspace: {edges:?}");
    assert_eq!(arrows::violations(&packages, &edges), Vec::<String>::new());
}

#[test]
fn no_source_file_is_too_long_to_read() {
    let mut files = Vec::new();
    for folder in ["crates", "bench"] {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() >= 20, "that is not the whole workspace: {files:?}");
    let too_long = files.iter().filter_map(|file| {
        let lines = std::fs::read_to_string(file).unwrap().lines().count();
        (lines > LINES).then(|| format!("{}: {lines} lines", file.display()))
    });
    assert_eq!(too_long.collect::<Vec<_>>(), Vec::<String>::new());
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}
