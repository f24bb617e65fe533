//! Access logs: which file, and whether the form of a line fits what is logged.

use wmproxy_http::vars;
use wmproxy_net::options::{AccessLogOptions, Toggle};

use super::options::Options;
use super::plan::{AccessFormat, AccessLogPlan, LogFile};
use super::problem::Found;
use super::resolve::Planner;
use super::tree::Path;
use crate::observe::template::{self, TemplateError};
use crate::observe::visits;

/// What a line of an access log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LogOf {
    /// A connection or flow of layer 4.
    Connections,
    /// An HTTP request.
    Requests,
    /// A visit of a forward proxy's client somewhere, in whichever protocol.
    Visits,
}

const JSON_HINT: &str = "write \"json\", or a template like \"{time} {client_addr} {peer} {outcome}\"";

impl Planner<'_> {
    /// The access log of a listener: its own, or the default one.
    pub(super) fn listener_access_log(
        &mut self,
        own: &Option<Toggle<AccessLogOptions>>,
        options: &Options,
        path: &Path,
        of: LogOf,
    ) -> Option<AccessLogPlan> {
        let (own_path, default_path) = (path.key("access_log"), Path::default().key("access_log"));
        let own = match own {
            Some(Toggle::Off) => return None,
            Some(Toggle::On(own)) => Some((&own_path, own)),
            None => None,
        };
        let default = options.access_log.as_ref().map(|default| (&default_path, default));
        let layers: Vec<_> = own.into_iter().chain(default).collect();
        (!layers.is_empty()).then(|| self.access_log(&layers, of))
    }

    /// An access log of several layers: for each key the first one that says it.
    fn access_log(&mut self, layers: &[(&Path, &AccessLogOptions)], of: LogOf) -> AccessLogPlan {
        let file = layers.iter().find_map(|(path, options)| Some((path, options.file.as_deref()?)));
        let file = match file {
            None | Some((_, "-")) => LogFile::Stdout,
            // A listener that takes it from the default has it looked into there.
            Some((path, file)) if **path == Path::default().key("access_log") => {
                LogFile::Path(self.path_of(&path.key("file"), file))
            }
            Some((path, file)) => LogFile::Path(self.file(&path.key("file"), file)),
        };
        let format = layers.iter().find_map(|(path, options)| Some((path, options.format.as_deref()?)));
        let format = match format {
            None | Some((_, "json")) => AccessFormat::Json,
            Some((_, "combined")) if of == LogOf::Requests => AccessFormat::Combined,
            Some((path, text)) => {
                self.template(&path.key("format"), text, of);
                AccessFormat::Template(text.to_owned())
            }
        };
        AccessLogPlan { file, format }
    }

    /// Looks into the default for all listeners, which may have none: what fits neither kind of line is a mistake.
    pub(super) fn default_access_log(&mut self, options: &Options) {
        let Some(default) = &options.access_log else { return };
        let path = Path::default().key("access_log");
        if let Some(file) = default.file.as_deref().filter(|file| *file != "-") {
            self.file(&path.key("file"), file);
        }
        let Some(text) = default.format.as_deref() else { return };
        let fits_others = text == "combined" || request_template(text).is_ok() || visits::check(text).is_ok();
        if text != "json" && !fits_others {
            self.template(&path.key("format"), text, LogOf::Connections);
        }
    }

    /// Reports what is wrong with a template, once for each place where one is written.
    fn template(&mut self, path: &Path, text: &str, of: LogOf) {
        let found = match of {
            LogOf::Connections => self.connection_template(path, text),
            LogOf::Visits => self.visit_template(path, text),
            LogOf::Requests => request_template(text).err().map(|message| {
                let found = self.error(path, message);
                match template::compile(text) {
                    Ok(_) => found.hint("give the [[http]] an `access_log` of its own"),
                    Err(_) => found,
                }
            }),
        };
        let path = path.to_string();
        if let Some(found) = found
            && self.bad_templates.insert((path, of))
        {
            self.push(found);
        }
    }

    fn visit_template(&self, path: &Path, text: &str) -> Option<Found> {
        let found = match visits::check(text) {
            Ok(()) => return None,
            Err(_) if text == "combined" => {
                let message = "`combined` is the format of HTTP requests, and clients of SOCKS send none";
                self.error(path, message)
            }
            Err(error) => self.error(path, error.to_string()),
        };
        Some(match path.split_last() {
            // One that others read without fault.
            Some((parent, _)) if parent == Path::default().key("access_log") => {
                found.hint("give the [[forward]] an `access_log` of its own")
            }
            _ if text == "combined" => found.hint("write \"json\", or a template like \"{time} {client_addr} {user} {kind} {destination} {way} {outcome}\""),
            _ => found,
        })
    }

    fn connection_template(&self, path: &Path, text: &str) -> Option<Found> {
        let found = match template::compile(text) {
            Ok(_) => return None,
            Err(_) if text == "combined" => self
                .error(path, "`combined` is the format of HTTP requests, and a stream has none")
                .hint(JSON_HINT),
            Err(TemplateError::Unknown(name, ..)) if request_template(text).is_ok() => {
                let message =
                    format!("`{{{name}}}` is known of HTTP requests only, and this is the log of a stream");
                self.error(path, message).hint("give the [[stream]] an `access_log` of its own")
            }
            Err(TemplateError::Constant) => self.error(path, "no variable in this template").hint(JSON_HINT),
            Err(TemplateError::Unknown(name, Some(near), _)) => {
                let found = self.error(path, format!("unknown variable `{{{name}}}`"));
                found.hint(format!("did you mean `{{{near}}}`?"))
            }
            Err(error) => self.error(path, error.to_string()),
        };
        Some(found)
    }
}

/// What is wrong with the template of a request's line.
fn request_template(text: &str) -> Result<(), String> {
    let template = vars::Template::parse(text).map_err(|error| error.to_string())?;
    match template.vars().next() {
        Some(_) => Ok(()),
        None => Err("no variable in this template".to_owned()),
    }
}
