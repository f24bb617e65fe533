//! The table of routes: which one a request takes.
//!
//! What lives here: the table, compiled once from what routes are for, and the search in it. What must not: what is done
//! with a request that has its route.
//!
//! A request takes, of the routes for its host, the first in the file that is for it in every other way as well. If none
//! of them is, those for the longest wildcard that the host is below have their turn, then those for shorter ones, then
//! those for any host: a route without `host` serves what no route with one wants.
//!
//! A search hashes the host once for each label and each segment of the path once, whatever the number of routes. What
//! it goes through one by one are routes of one host that fit the same path, and the regular expressions of a host that
//! stand before the route that is found.

mod conditions;
mod hash;
mod shadow;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use wmproxy_wire::head::{Request, path};

use crate::options::{HostPattern, MatchSpec};
use conditions::Conditions;
use hash::Map;
pub use shadow::shadowed;
use table::Table;

/// A table of routes. `R` is what a route leads to.
#[derive(Debug)]
pub struct Router<R> {
    /// In the order of the file.
    routes: Box<[Entry<R>]>,
    /// By their host.
    hosts: Map<Box<str>, Table>,
    /// By what stands behind the star and its dot.
    below: Map<Box<str>, Table>,
    /// Those for any host.
    any: Table,
}

#[derive(Debug)]
struct Entry<R> {
    /// What is asked beside host and path, if anything is.
    conditions: Option<Box<Conditions>>,
    to: Arc<R>,
}

/// What the router looks at.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// The host, normalised: in lower case, without port, dot at the end or brackets.
    pub host: &'a str,
    /// The path, normalised.
    pub path: &'a [u8],
    /// The head that they come from.
    pub request: &'a Request,
    /// The client; none for a unix socket.
    pub client: Option<IpAddr>,
}

impl<R> Router<R> {
    /// Compiles routes, which stand in the order of the file.
    ///
    /// # Errors
    /// A regular expression that does not compile; those of specs do.
    pub fn new(routes: impl IntoIterator<Item = (MatchSpec, Arc<R>)>) -> Result<Router<R>, regex::Error> {
        let mut router = Router {
            routes: Box::default(),
            hosts: Map::default(),
            below: Map::default(),
            any: Table::default(),
        };
        let mut entries = Vec::new();
        for (spec, to) in routes {
            // A config of so many routes does not fit into memory.
            let number = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            if spec.hosts.is_empty() {
                router.any.add(number, &spec.paths)?;
            }
            for host in &spec.hosts {
                let table = match host {
                    HostPattern::Exact(name) => router.hosts.entry(name.clone()),
                    HostPattern::Below(name) => router.below.entry(name.clone()),
                };
                table.or_default().add(number, &spec.paths)?;
            }
            entries.push(Entry { conditions: Conditions::new(&spec)?.map(Box::new), to });
        }
        router.routes = entries.into();
        Ok(router)
    }

    /// The route that a request takes.
    pub fn find(&self, sought: &Sought<'_>) -> Option<&Arc<R>> {
        let host = sought.host;
        if let Some(table) = self.hosts.get(host)
            && let Some(found) = self.find_in(table, sought)
        {
            return Some(found);
        }
        if !self.below.is_empty() {
            let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            for (dot, _) in dots {
                if let Some(table) = self.below.get(&host[dot + 1..])
                    && let Some(found) = self.find_in(table, sought)
                {
                    return Some(found);
                }
            }
        }
        self.find_in(&self.any, sought)
    }

    /// The same, where servers behind us may read the path otherwise: `/x%2f..%2fadmin` is `/admin` to nginx, and
    /// `/admin;x` to servlets. What is for another route in such a reading is for nobody.
    ///
    /// # Errors
    /// There are two routes that it might be for, or a reading in which it leads nowhere: a 400.
    pub fn find_certain(&self, sought: &Sought<'_>) -> Result<Option<&Arc<R>>, path::BadPath> {
        let found = self.find(sought);
        for reading in path::other_readings(sought.path) {
            let other = self.find(&Sought { path: &reading?, ..*sought });
            if found.map(Arc::as_ptr) != other.map(Arc::as_ptr) {
                return Err(path::BadPath);
            }
        }
        Ok(found)
    }

    fn find_in(&self, table: &Table, sought: &Sought<'_>) -> Option<&Arc<R>> {
        table.search(sought.path, |number| {
            let entry = &self.routes[number as usize];
            entry.conditions.as_ref().is_none_or(|conditions| conditions.hold(sought)).then_some(&entry.to)
        })
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<R>> {
        self.routes.iter().map(|entry| &entry.to)
    }
}
