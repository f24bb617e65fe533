//! From options to a plan: fills in defaults, resolves names and paths, and reports what can't work together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use wmproxy_forward::options::{ChainSpec, EgressSpec};
use wmproxy_net::addr::{AddressSpec, Protocol};
use wmproxy_tunnel::options::VisitSpec;
use wmproxy_upstream::GroupSpec;
use wmproxy_wire::units::Secret;

use super::access_log::LogOf;
use super::http::files::Served;
use super::include::read_text;
use super::listen::Listens;
use super::names::{NAMES, is_name};
use super::options::{AdminOptions, Options, Workers};
use super::plan::{AdminPlan, ListenerPlan, LogPlan, Plan};
use super::problem::Found;
use super::tree::{Node, Path, Source, Span, Step, Tree, Value};
use crate::observe::filter;

/// Makes a plan, and collects what is wrong on the way. The plan is of use only if nothing is.
pub(super) struct Planner<'a> {
    tree: Option<Tree<'a>>,
    sources: &'a [Source],
    pub(super) found: Vec<Found>,
    /// How many of them are no mere warnings.
    errors: usize,
    /// Files that were read besides the config.
    pub(super) files: Vec<PathBuf>,
    /// Files that are nobody else's business, and what each is.
    pub(super) private: Vec<(PathBuf, &'static str)>,
    /// Directories whose files are served.
    pub(super) served: Vec<Served>,
    pub(super) groups: BTreeMap<Arc<str>, GroupSpec>,
    /// Names of upstreams that are written somewhere, with problems or without.
    pub(super) upstreams: BTreeSet<String>,
    /// Those of them that somebody goes to.
    pub(super) used: BTreeSet<String>,
    pub(super) egresses: BTreeMap<Arc<str>, EgressSpec>,
    pub(super) chains: BTreeMap<Arc<str>, ChainSpec>,
    /// Names that are written somewhere, with problems or without.
    pub(super) egress_names: BTreeSet<String>,
    pub(super) chain_names: BTreeSet<String>,
    /// Those of them that somebody names.
    pub(super) used_egresses: BTreeSet<String>,
    pub(super) used_chains: BTreeSet<String>,
    pub(super) listens: Listens,
    pub(super) listeners: Vec<ListenerPlan>,
    /// The groups that lead to private services of other tunnel clients.
    pub(super) visits: BTreeMap<Arc<str>, VisitSpec>,
    /// Templates of access logs that were reported, by where they are written and what is logged.
    pub(super) bad_templates: BTreeSet<(String, LogOf)>,
}

impl<'a> Planner<'a> {
    /// `tree` is where the options were read from, if they were.
    pub(super) fn new(tree: Option<&'a Node>, sources: &'a [Source]) -> Self {
        Planner {
            tree: tree.map(Tree::new),
            sources,
            found: Vec::new(),
            errors: 0,
            files: Vec::new(),
            private: Vec::new(),
            served: Vec::new(),
            groups: BTreeMap::new(),
            upstreams: BTreeSet::new(),
            used: BTreeSet::new(),
            egresses: BTreeMap::new(),
            chains: BTreeMap::new(),
            egress_names: BTreeSet::new(),
            chain_names: BTreeSet::new(),
            used_egresses: BTreeSet::new(),
            used_chains: BTreeSet::new(),
            listens: Listens::default(),
            listeners: Vec::new(),
            visits: BTreeMap::new(),
            bad_templates: BTreeSet::new(),
        }
    }

    pub(super) fn plan(&mut self, options: &Options) -> Plan {
        let log = self.log(options);
        self.default_access_log(options);
        let admin = options.admin.on().and_then(|admin| self.admin(admin));
        self.groups(options);
        self.chains(options);
        self.egresses(options);
        let names = self.names(options);
        self.streams(options, &names.stream);
        self.https(options, &names.http);
        self.forwards(options, &names.forward);
        let tunnel_server = self.tunnel_server(options);
        let tunnel_client = self.tunnel_client(options);
        self.leftovers(options);
        Plan {
            workers: match options.workers {
                Workers::Count(count) => count,
                Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            },
            user: options.user.clone(),
            group: options.group.clone(),
            shutdown_timeout: options.shutdown_timeout.get(),
            log,
            admin,
            resolver: options.resolver.servers.iter().map(|server| server.0).collect(),
            groups: std::mem::take(&mut self.groups),
            egresses: std::mem::take(&mut self.egresses),
            chains: std::mem::take(&mut self.chains),
            listeners: std::mem::take(&mut self.listeners),
            tunnel_server,
            tunnel_client,
            visits: std::mem::take(&mut self.visits),
        }
    }

    fn log(&mut self, options: &Options) -> LogPlan {
        let path = Path::default().key("log");
        if let Err(message) = filter::check(&options.log.level) {
            self.problem(&path.key("level"), message);
        }
        let file = match options.log.file.as_str() {
            "-" => None,
            file => Some(self.file(&path.key("file"), file)),
        };
        LogPlan { level: options.log.level.clone(), format: options.log.format, file }
    }

    fn admin(&mut self, options: &AdminOptions) -> Option<AdminPlan> {
        let path = Path::default().key("admin");
        let token = self.secret(&path, "token", options.token.as_ref(), options.token_file.as_deref());
        let listen = path.key("listen");
        if options.listen.count() != 1 {
            self.problem(&listen, "the admin endpoint listens on one port");
            return None;
        }
        let plan = AdminPlan { listen: options.listen.clone(), token };
        // A token that could not be read was reported already.
        if !plan.is_guarded() && options.token_file.is_none() && !self.is_damaged(&path) {
            let found = self.error(&listen, "whoever reaches this address could stop the proxy");
            self.push(found.hint("add a `token`, or listen on 127.0.0.1 or on \"unix:/path\""));
        }
        self.claim(Protocol::Tcp, &options.listen, &listen);
        Some(plan)
    }

    /// A secret that is written as `key`, or is in the file that `key` with `_file` names.
    pub(super) fn secret(
        &mut self,
        table: &Path,
        key: &str,
        value: Option<&Secret>,
        file: Option<&str>,
    ) -> Option<Secret> {
        let file_key = table.key(&format!("{key}_file"));
        let Some(file) = file else { return value.cloned() };
        if value.is_some() {
            let found = self.error(&file_key, format!("`{key}` is given already"));
            self.push(found.related(self.span(&table.key(key)), "given here"));
            return None;
        }
        let file = self.file(&file_key, file);
        self.files.push(file.clone());
        self.private.push((file.clone(), "a secret"));
        let secret = read_text(&file)
            .map_err(|why| format!("can't read {}: {why}", file.display()))
            .and_then(|text| {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                Secret::new(text).map_err(|_| format!("{} is empty", file.display()))
            });
        secret.map_err(|message| self.problem(&file_key, message)).ok()
    }

    fn groups(&mut self, options: &Options) {
        let table = Path::default().key("upstream");
        self.upstreams.extend(options.upstream.keys().cloned());
        // A group that could not be read is still no unknown name.
        if let Some(Value::Table(written)) = self.node(&table).map(|node| &node.value) {
            self.upstreams.extend(written.keys().cloned());
        }
        for (name, options) in &options.upstream {
            let path = table.key(name);
            self.check_name(&path, name, true);
            match options.spec(name) {
                Ok(mut spec) => {
                    self.peer_tls(&options.tls, &mut spec, &path.key("tls"));
                    if let (Some(sticky), Some(spec)) = (&options.sticky, &mut spec.sticky) {
                        let (secret, file) = (sticky.secret.as_ref(), sticky.secret_file.as_deref());
                        spec.secret = self.secret(&path.key("sticky"), "secret", secret, file);
                    }
                    self.groups.insert(spec.name.clone(), spec);
                }
                Err(problems) => {
                    for (place, message) in problems {
                        self.group_problem(&path, &place, message);
                    }
                }
            }
        }
    }

    /// `place` is as in `servers[1].weight`.
    fn group_problem(&mut self, group: &Path, place: &str, message: String) {
        let mut path = group.clone();
        for part in place.split(['.', '[']).filter(|part| !part.is_empty()) {
            match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
                Some(index) => path.0.push(Step::Index(index)),
                None => path.0.push(Step::Key(part.to_owned())),
            }
        }
        // A list that is empty because what was in it was dropped is no problem of its own.
        if !self.is_damaged(&path) {
            self.problem(&path, message);
        }
    }

    pub(super) fn check_name(&mut self, path: &Path, name: &str, is_key: bool) {
        if !is_name(name) {
            let mut found = self.error(path, NAMES);
            if let Some(span) =
                self.tree.as_ref().and_then(|tree| tree.root.key_span(path)).filter(|_| is_key)
            {
                found = Found::error(span, NAMES).path(path.clone());
            }
            self.push(found);
        }
    }

    fn leftovers(&mut self, options: &Options) {
        let unused = |names: Vec<&String>, used: &BTreeSet<String>| -> Vec<String> {
            names.into_iter().filter(|name| !used.contains(*name)).cloned().collect()
        };
        let tables = [
            (
                "upstream",
                "nothing goes to the upstream",
                unused(options.upstream.keys().collect(), &self.used),
            ),
            (
                "chain",
                "nothing goes through the chain",
                unused(options.chain.keys().collect(), &self.used_chains),
            ),
            ("egress", "nobody has the egress", unused(options.egress.keys().collect(), &self.used_egresses)),
        ];
        for (table, message, names) in tables {
            for name in names {
                let path = Path::default().key(table).key(&name);
                let message = format!("{message} `{name}`");
                let found = match self.tree.as_ref().and_then(|tree| tree.root.key_span(&path)) {
                    Some(span) => Found::error(span, message).path(path),
                    None => Found::nowhere(message).path(path),
                };
                self.found.push(found.warning());
            }
        }
        let has_tunnel = options.tunnel_server.is_some() || options.tunnel_client.is_some();
        if self.listeners.is_empty() && !has_tunnel {
            let message = "there is no listener: nothing will be served";
            self.found.push(
                Found::nowhere(message)
                    .warning()
                    .hint("add a [[stream]], an [[http]] or a [[forward]] with `listen`"),
            );
        }
    }

    /// Takes an address for a listener, unless another one has it.
    pub(super) fn claim(&mut self, protocol: Protocol, address: &AddressSpec, path: &Path) {
        let place = self.span(path);
        if let Some(conflict) = self.listens.claim(protocol, address, place) {
            let found = self.error(path, conflict.message);
            self.push(found.related(conflict.other, "the other listener"));
        }
    }

    /// A path of a file, which starts at the directory of the file that names it.
    pub(super) fn file(&mut self, path: &Path, file: &str) -> PathBuf {
        if file.is_empty() {
            self.problem(path, "this is the name of no file");
        }
        self.path_of(path, file)
    }

    /// The same without a look at whether it is one.
    pub(super) fn path_of(&self, path: &Path, file: &str) -> PathBuf {
        let source = self.span(path).and_then(|span| self.sources.get(span.file));
        source.map_or_else(|| FilePath::new(file).to_owned(), |source| source.dir.join(file))
    }

    /// The node that an option was read from.
    pub(super) fn node(&self, path: &Path) -> Option<&'a Node> {
        self.tree.as_ref().and_then(|tree| tree.root.at(&tree.with_dropped(path)))
    }

    /// Where an option is written, or else what holds it.
    pub(super) fn span(&self, path: &Path) -> Option<Span> {
        match (self.node(path), path.split_last()) {
            (Some(node), Some(_)) => Some(node.place()),
            (None, Some((parent, _))) => self.span(&parent),
            (_, None) => None,
        }
    }

    /// Whether a part of an option was dropped, or all of it.
    pub(super) fn is_damaged(&self, path: &Path) -> bool {
        self.node(path).is_some_and(Node::is_damaged)
    }

    /// Whether an option is there but was dropped, so that it is not missing.
    pub(super) fn was_dropped(&self, path: &Path) -> bool {
        match path.split_last() {
            Some((parent, Step::Key(key))) => self.node(&parent).is_some_and(|node| node.has_dropped(key)),
            _ => false,
        }
    }

    pub(super) fn error(&self, path: &Path, message: impl Into<String>) -> Found {
        let found = match self.span(path) {
            Some(span) => Found::error(span, message),
            None => Found::nowhere(message),
        };
        found.path(self.tree.as_ref().map_or_else(|| path.clone(), |tree| tree.with_dropped(path)))
    }

    /// How many problems there are, warnings aside.
    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn push(&mut self, found: Found) {
        self.errors += usize::from(found.is_error());
        self.found.push(found);
    }

    pub(super) fn problem(&mut self, path: &Path, message: impl Into<String>) {
        let found = self.error(path, message);
        self.push(found);
    }
}
