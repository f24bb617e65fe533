//! The plan of `[egress]`: rules that can be read, and ways out that there are.

use wmproxy_forward::egress::{check_domain, check_rule};
use wmproxy_forward::options::{DEFAULT_EGRESS, EgressOptions, EgressRouteOptions, PortRange, Via};

use super::super::options::Options;
use super::super::problem::nearest;
use super::super::resolve::Planner;
use super::super::tree::{Path, Value};

impl Planner<'_> {
    /// Reads the rules of all egresses. One that is called `default` is there in any case.
    pub(in super::super) fn egresses(&mut self, options: &Options) {
        let table = Path::default().key("egress");
        self.egress_names = self.written_names(&table, options.egress.keys());
        let users: Vec<String> =
            options.forward.iter().flat_map(|forward| forward.users.keys().cloned()).collect();
        for (name, egress) in &options.egress {
            let path = table.key(name);
            self.check_name(&path, name, true);
            let before = self.errors();
            self.check_rules(egress, &path);
            for (index, route) in egress.route.iter().enumerate() {
                self.check_egress_route(route, options, &users, &path.key("route").index(index));
            }
            if self.errors() == before {
                let spec = egress.spec(name);
                self.egresses.insert(spec.name.clone(), spec);
            }
        }
        let built_in = || EgressOptions::default().spec(DEFAULT_EGRESS);
        self.egresses.entry(DEFAULT_EGRESS.into()).or_insert_with(built_in);
    }

    /// Has the rules of an egress read as the data plane reads them.
    fn check_rules(&mut self, egress: &EgressOptions, path: &Path) {
        for (key, list) in [("allow", &egress.allow), ("deny", &egress.deny)] {
            let place = path.key(key);
            if list.0.is_empty() && key == "allow" && self.is_said(&place) {
                let found = self.error(&place, "`allow` is empty, which is as good as leaving it out");
                self.push(found.warning().hint("to let clients go nowhere, write deny = [\"*\"]"));
            }
            self.check_texts(&list.0, check_rule, &place);
        }
        if let Some(zero) = egress.deny_ports.iter().position(|port| *port == 0) {
            self.problem(&path.key("deny_ports").index(zero), "nobody goes to port 0");
        }
    }

    /// Checks each text of a list that may be written without brackets.
    fn check_texts(&mut self, list: &[String], check: fn(&str) -> Result<(), String>, path: &Path) {
        for (index, text) in list.iter().enumerate() {
            if let Err(message) = check(text) {
                self.problem(&self.element(path, index), message);
            }
        }
    }

    /// An element of a list that may be written without brackets.
    pub(in super::super) fn element(&self, path: &Path, index: usize) -> Path {
        let one = path.index(index);
        if self.node(&one).is_some() { one } else { path.clone() }
    }

    fn check_egress_route(
        &mut self,
        route: &EgressRouteOptions,
        options: &Options,
        users: &[String],
        path: &Path,
    ) {
        let via = path.key("via");
        match &route.via {
            None if !self.is_in_doubt(&via) => {
                let found = self.error(path, "`via` is missing: no way is said");
                self.push(found.hint("write via = \"NAME\" of a [chain], \"direct\" or \"reject\""));
            }
            Some(Via::Chain(name)) => self.check_chain_name(name, &via),
            _ => {}
        }
        self.check_texts(&route.domains.0, check_domain, &path.key("domains"));
        for (index, _) in route.ports.iter().enumerate().filter(|(_, ports)| **ports == PortRange::FREE) {
            self.problem(&path.key("ports").index(index), "nobody goes to port 0");
        }
        // Names in a file of users are not known here, and those in certificates nowhere.
        let all_known =
            options.forward.iter().all(|forward| forward.users_file.is_none() && forward.tls.is_none());
        for (index, name) in route.users.0.iter().enumerate().filter(|_| all_known) {
            let place = self.element(&path.key("users"), index);
            self.check_known("user", name, users, &place);
        }
    }

    /// Looks whether there is a chain of that name.
    pub(in super::super) fn check_chain_name(&mut self, name: &str, path: &Path) {
        self.used_chains.insert(name.to_owned());
        let known: Vec<String> = self.chain_names.iter().cloned().collect();
        self.check_known("chain", name, &known, path);
    }

    /// Reports a name that nothing has, with what was probably meant.
    pub(in super::super) fn check_known(&mut self, what: &str, name: &str, known: &[String], path: &Path) {
        if known.iter().any(|other| other == name) {
            return;
        }
        let found = self.error(path, format!("no {what} named `{name}`"));
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if what == "user" => "add it to `users` of a [[forward]]".to_owned(),
            None => format!("add [{what}.{name}]"),
        };
        self.push(found.hint(hint));
    }

    /// The names of tables, also of those that could not be read.
    pub(super) fn written_names<'n>(
        &self,
        table: &Path,
        read: impl Iterator<Item = &'n String>,
    ) -> std::collections::BTreeSet<String> {
        let mut names: std::collections::BTreeSet<String> = read.cloned().collect();
        if let Some(Value::Table(written)) = self.node(table).map(|node| &node.value) {
            names.extend(written.keys().cloned());
        }
        names
    }
}
