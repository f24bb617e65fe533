//! Who answers the requests of a route: exactly one endpoint.

use std::sync::Arc;

use wmproxy_http::endpoint::redirect::Redirect;
use wmproxy_http::endpoint::respond::Respond;
use wmproxy_http::options::{
    EndpointSpec, RedirectOptions, RespondOptions, ReverseProxyOptions, ReverseProxyTable, ReverseSpec,
    RouteOptions, TargetUrl, UrlScheme,
};
use wmproxy_http::vars::Template;
use wmproxy_net::addr::{AddressSpec, TargetSpec};
use wmproxy_net::options::OneOrMany;
use wmproxy_net::tls::ConnectorSpec;
use wmproxy_upstream::GroupSpec;

use super::super::resolve::Planner;
use super::super::routes::Target;
use super::super::socket::SocketKeys;
use super::super::tree::Path;
use super::Server;

/// What is offered to servers by TLS (RFC 7301).
const HTTP_1: &str = "http/1.1";
const HTTP_2: &str = "h2";

/// The type of a body that says none.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Where to go, as far as a URL or a name says it.
struct Destination {
    group: Arc<str>,
    base: Box<str>,
    authority: Option<Box<str>>,
    h2: bool,
}

impl Planner<'_> {
    /// The endpoint of a route; none if something is wrong with it.
    pub(super) fn http_endpoint(
        &mut self,
        route: &RouteOptions,
        server: &Server<'_>,
        path: &Path,
    ) -> Option<EndpointSpec> {
        let said = [
            ("reverse_proxy", route.reverse_proxy.is_some()),
            ("files", route.files.is_some()),
            ("redirect", route.redirect.is_some()),
            ("respond", route.respond.is_some()),
        ];
        let mut said = said.into_iter().filter(|(_, is_said)| *is_said).map(|(key, _)| path.key(key));
        let Some(first) = said.next() else {
            // One that could not be read was reported, and so was an unknown key, which may be meant for one.
            if !self.is_damaged(path) {
                let found = self.error(path, "this route has no endpoint: nobody would answer");
                self.push(found.hint("say one of `reverse_proxy`, `files`, `redirect` and `respond`"));
            }
            return None;
        };
        if let Some(second) = said.next() {
            let found = self.error(&second, "a route has one endpoint, and this is its second");
            self.push(found.related(self.span(&first), "the first"));
            return None;
        }
        if let Some(options) = &route.reverse_proxy {
            return self.reverse(options, server, &first).map(EndpointSpec::Reverse);
        }
        if let Some(options) = &route.files {
            return self.files(options, &first).map(EndpointSpec::Files);
        }
        match (&route.redirect, &route.respond) {
            (Some(options), _) => self.redirect(options, &first),
            (_, Some(options)) => self.respond(options, &first),
            (None, None) => None,
        }
    }

    fn redirect(&mut self, options: &RedirectOptions, path: &Path) -> Option<EndpointSpec> {
        let Some(to) = options.to.clone() else {
            let place = path.key("to");
            if !self.was_dropped(&place) && !self.is_damaged(path) {
                let found = self.error(path, "`to` is missing");
                self.push(found.hint("write redirect = { to = \"https://{host}{uri}\" }"));
            }
            return None;
        };
        let status = options.status;
        if let Err(error) = Redirect::new(to.clone(), status) {
            let key = match error {
                wmproxy_http::endpoint::EndpointError::NoRedirect(_) => "status",
                _ => "to",
            };
            self.problem(&path.key(key), error.to_string());
            return None;
        }
        Some(EndpointSpec::Redirect { to, status })
    }

    fn respond(&mut self, options: &RespondOptions, path: &Path) -> Option<EndpointSpec> {
        let status = options.status;
        // A text without variables is one that compiles.
        let body = options.body.clone().or_else(|| Template::parse("").ok())?;
        let content_type = options.content_type.as_deref().unwrap_or(PLAIN);
        if let Err(error) = Respond::new(status, body.clone(), content_type) {
            let key = match error {
                wmproxy_http::endpoint::EndpointError::NoResponse(_) => "status",
                _ => "content_type",
            };
            self.problem(&path.key(key), error.to_string());
            return None;
        }
        Some(EndpointSpec::Respond { status, body, content_type: content_type.into() })
    }

    fn reverse(
        &mut self,
        options: &ReverseProxyOptions,
        server: &Server<'_>,
        path: &Path,
    ) -> Option<ReverseSpec> {
        let before = self.errors();
        let table = options.table();
        // A target alone is written where the table would be.
        let place = match options {
            ReverseProxyOptions::Target(_) => path.clone(),
            ReverseProxyOptions::Table(_) => path.key("upstream"),
        };
        for (key, time) in [("timeout", Some(table.timeout)), ("try_timeout", table.try_timeout)] {
            if time.is_some_and(|time| time.is_zero()) {
                self.problem(&path.key(key), "nobody answers in no time");
            }
        }
        if table.try_timeout.is_some_and(|time| time > table.timeout) {
            let found = self.error(&path.key("try_timeout"), "one try has no more time than all: `timeout`");
            self.push(found.warning());
        }
        let to = self.destination_of(&table, server, &place)?;
        (self.errors() == before).then(|| reverse_spec(&table, to))
    }

    /// Where copies of requests go.
    pub(super) fn mirror(&mut self, target: &str, server: &Server<'_>, path: &Path) -> Option<ReverseSpec> {
        let table = ReverseProxyTable { upstream: OneOrMany(vec![target.to_owned()]), ..Default::default() };
        let to = self.destination_of(&table, server, path)?;
        Some(reverse_spec(&table, to))
    }

    fn destination_of(
        &mut self,
        table: &ReverseProxyTable,
        server: &Server<'_>,
        path: &Path,
    ) -> Option<Destination> {
        let list = &table.upstream.0;
        if list.is_empty() && (self.is_damaged(path) || self.was_dropped(path)) {
            return None;
        }
        if let [text] = list.as_slice()
            && TargetUrl::is_meant(text)
        {
            return self.url_destination(text, table.h2, server, path);
        }
        if let Some(index) = list.iter().position(|text| TargetUrl::is_meant(text)) {
            let found = self.error(&path.index(index), "a URL stands alone, not in a list");
            self.push(found.hint("name an [upstream] with these servers"));
            return None;
        }
        let target = self.target(list, path)?;
        self.check_loop(server.listens, &target, path, server.path);
        let group = match target {
            Target::Inline(addresses) => self.inline_group(&addresses),
            target => self.group_of(&target, 0),
        };
        if let Some(spec) = self.groups.get(&group).cloned() {
            self.check_way(&SocketKeys::from(server.options), &spec, path);
            self.check_spoken(&spec, table.h2, path);
        }
        Some(Destination { group, base: "".into(), authority: None, h2: table.h2 })
    }

    /// A group of addresses, of which a range of ports is a server for each.
    fn inline_group(&mut self, addresses: &[AddressSpec]) -> Arc<str> {
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let name: Arc<str> = names.join(",").into();
        let targets = || addresses.iter().flat_map(|address| TargetSpec::expand(address).unwrap_or_default());
        self.groups
            .entry(name.clone())
            .or_insert_with(|| GroupSpec::inline(name.clone(), targets().collect()));
        name
    }

    fn url_destination(
        &mut self,
        text: &str,
        h2: bool,
        server: &Server<'_>,
        path: &Path,
    ) -> Option<Destination> {
        let url: TargetUrl = match text.parse() {
            Ok(url) => url,
            Err(error) => {
                self.problem(path, format!("{error}"));
                return None;
            }
        };
        // Its host and port were read, so they are an address.
        let address = url.address()?;
        self.check_loop(server.listens, &Target::Inline(vec![address.clone()]), path, server.path);
        let h2 = h2 || url.scheme == UrlScheme::H2c;
        Some(Destination {
            group: self.url_group(&url, h2, &address),
            base: url.base().into(),
            authority: Some(url.authority().into()),
            h2,
        })
    }

    /// The group of a URL's server. What is offered in TLS is part of its name, for those who want another are another
    /// group.
    fn url_group(&mut self, url: &TargetUrl, h2: bool, address: &AddressSpec) -> Arc<str> {
        let is_secure = url.scheme == UrlScheme::Https;
        let name: Arc<str> = match is_secure && h2 {
            true => format!("h2+{}", url.origin()).into(),
            false => url.origin().into(),
        };
        let tls = is_secure.then(|| ConnectorSpec {
            server_name: Some(url.host().to_owned()),
            alpn: if h2 { vec![HTTP_2.to_owned(), HTTP_1.to_owned()] } else { vec![HTTP_1.to_owned()] },
            ..ConnectorSpec::default()
        });
        let targets = || TargetSpec::expand(address).unwrap_or_default();
        let spec = || GroupSpec { tls, ..GroupSpec::inline(name.clone(), targets()) };
        self.groups.entry(name.clone()).or_insert_with(spec);
        name
    }

    /// Whether the HTTP/2 that is wanted is offered to a group's servers by TLS.
    fn check_spoken(&mut self, group: &GroupSpec, h2: bool, path: &Path) {
        let Some(tls) = &group.tls else { return };
        if h2 && !tls.alpn.iter().any(|name| name == HTTP_2) {
            let message = format!("`h2` is agreed on by ALPN, and `{}` does not offer it", group.name);
            let found = self.error(path, message);
            let hint = format!("add alpn = [\"h2\", \"http/1.1\"] to `tls` of [upstream.{}]", group.name);
            self.push(found.hint(hint));
        }
    }
}

fn reverse_spec(table: &ReverseProxyTable, to: Destination) -> ReverseSpec {
    let timeout = table.timeout.get();
    ReverseSpec {
        group: to.group,
        base: to.base,
        authority: to.authority,
        preserve_host: table.preserve_host,
        timeout,
        try_timeout: table.try_timeout.map_or(timeout, |time| time.get().min(timeout)),
        buffer: table.buffer,
        h2: to.h2,
    }
}
