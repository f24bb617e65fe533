//! The arrows of the house: which crate may know which. ARCHITECTURE.md draws them; a test holds the workspace to
//! them over `cargo metadata`.

use std::collections::BTreeSet;

use serde_json::Value;

/// An edge of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Who depends.
    pub from: String,
    /// On whom.
    pub to: String,
    /// Whether only tests do.
    pub dev: bool,
}

/// What a room may know directly; it may also know what that room may know.
const ARROWS: &[(&str, &[&str])] = &[
    ("wmproxy-wire", &[]),
    ("wmproxy-runtime", &[]),
    ("wmproxy-net", &["wmproxy-runtime", "wmproxy-wire"]),
    ("wmproxy-upstream", &["wmproxy-net"]),
    ("wmproxy-files", &["wmproxy-wire"]),
    ("wmproxy-stream", &["wmproxy-upstream"]),
    ("wmproxy-http", &["wmproxy-upstream", "wmproxy-files"]),
    ("wmproxy-forward", &["wmproxy-http", "wmproxy-upstream"]),
    ("wmproxy-tunnel", &["wmproxy-net"]),
    ("wmproxy", &["wmproxy-stream", "wmproxy-forward", "wmproxy-tunnel"]),
    (TESTKIT, &[]),
    // The benchmark judges the binary from outside, as it judges nginx.
    ("wmproxy-bench", &[]),
];

/// Only tests may know it.
const TESTKIT: &str = "wmproxy-testkit";

/// The edges between the workspace's own packages.
///
/// # Panics
/// When `metadata` is not what `cargo metadata --format-version 1` prints.
pub fn edges(metadata: &Value) -> Vec<Edge> {
    let packages = metadata["packages"].as_array().expect("packages in the metadata");
    let names: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if names.contains(to) {
                let from = package["name"].as_str().unwrap().to_owned();
                edges.push(Edge { from, to: to.to_owned(), dev: dependency["kind"] == "dev" });
            }
        }
    }
    edges
}

/// What is wrong with the workspace: its forbidden edges, and packages that the table does not know.
pub fn violations(packages: &[String], edges: &[Edge]) -> Vec<String> {
    let unknown = packages.iter().filter(|name| direct(name).is_none());
    let unknown = unknown.map(|name| format!("{name} is in no row of the table of arrows"));
    let forbidden = edges.iter().filter(|edge| !allowed(edge));
    let forbidden = forbidden.map(|edge| {
        let kind = if edge.dev { " (dev)" } else { "" };
        format!("{} must not know {}{kind}", edge.from, edge.to)
    });
    unknown.chain(forbidden).collect()
}

fn allowed(edge: &Edge) -> bool {
    if edge.to == TESTKIT {
        return edge.dev && edge.from != "wmproxy-bench";
    }
    reaches(&edge.from, &edge.to)
}

fn reaches(from: &str, to: &str) -> bool {
    direct(from).is_some_and(|next| next.iter().any(|name| *name == to || reaches(name, to)))
}

fn direct(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, dev: bool) -> Edge {
        Edge { from: from.into(), to: to.into(), dev }
    }

    #[test]
    fn the_arrows_of_the_plan_are_allowed() {
        for (from, to) in [
            ("wmproxy", "wmproxy-wire"),
            ("wmproxy", "wmproxy-files"),
            ("wmproxy-stream", "wmproxy-upstream"),
            ("wmproxy-stream", "wmproxy-net"),
            ("wmproxy-upstream", "wmproxy-wire"),
            ("wmproxy-net", "wmproxy-runtime"),
            ("wmproxy-forward", "wmproxy-files"),
        ] {
            assert_eq!(violations(&[], &[edge(from, to, false)]), Vec::<String>::new(), "{from} -> {to}");
        }
        assert!(violations(&[], &[edge("wmproxy-net", TESTKIT, true)]).is_empty());
    }

    #[test]
    fn every_other_edge_is_found() {
        for (from, to, dev) in [
            ("wmproxy-wire", "wmproxy-runtime", false),
            ("wmproxy-runtime", "wmproxy-wire", false),
            ("wmproxy-net", "wmproxy-upstream", false),
            ("wmproxy-net", "wmproxy-upstream", true),
            ("wmproxy-upstream", "wmproxy-stream", false),
            ("wmproxy-tunnel", "wmproxy-upstream", false),
            ("wmproxy-stream", "wmproxy", false),
            ("wmproxy", TESTKIT, false),
            (TESTKIT, "wmproxy-net", false),
            ("wmproxy-bench", "wmproxy-net", false),
            ("wmproxy-bench", TESTKIT, true),
        ] {
            assert_eq!(violations(&[], &[edge(from, to, dev)]).len(), 1, "{from} -> {to}");
        }
    }

    #[test]
    fn a_package_without_a_row_is_found() {
        assert_eq!(violations(&["wmproxy-attic".into()], &[]).len(), 1);
    }

    #[test]
    fn metadata_yields_its_edges() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "wmproxy-net", "dependencies": [
                { "name": "wmproxy-wire", "kind": null },
                { "name": "tokio", "kind": null },
                { "name": "wmproxy-testkit", "kind": "dev" },
            ] },
            { "name": "wmproxy-wire", "dependencies": [] },
            { "name": "wmproxy-testkit", "dependencies": [] },
        ] });
        let expected = vec![edge("wmproxy-net", "wmproxy-wire", false), edge("wmproxy-net", TESTKIT, true)];
        assert_eq!(edges(&metadata), expected);
    }
}
