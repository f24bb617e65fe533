//! What is wrong with a config, where, and what would be right.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::mask::Masked;
use super::secrets;
use super::tree::{Path, Source, Span, Step};

/// Whoever has more to mend than this starts with these.
pub(super) const MAX_PROBLEMS: usize = 100;

/// Said when the search was given up.
pub(super) const MANY_PROBLEMS: &str = "there may be more problems: the search ended after this many";

/// Whether a config can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// It can't.
    Error,
    /// It can, but hardly says what its writer meant.
    Warning,
}

/// One thing that is wrong. No part of it holds a secret.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    /// Where; nowhere when a file could not be read or no file is meant.
    pub(crate) place: Option<Place>,
    pub(crate) message: String,
    /// What would be right.
    pub(crate) hint: Option<String>,
    /// The option's name from the top, as in `stream[0].listen`.
    pub(crate) path: Option<String>,
    /// Another place that has to do with it, and what that is.
    pub(crate) related: Option<(Place, String)>,
}

/// A place in a file, and its line to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// The bytes of the file that are meant.
    pub(crate) span: Range<usize>,
    shown: Masked,
}

/// Every problem of a config, in the order of its files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems {
    pub(crate) list: Vec<Problem>,
    /// How many were left out for there being too many.
    pub(crate) more: usize,
}

/// A problem as it is found, before its place is looked up in the text.
#[derive(Debug, Clone)]
pub(super) struct Found {
    severity: Severity,
    span: Option<Span>,
    /// Boxed, for this is the error of small functions.
    text: Box<FoundText>,
}

#[derive(Debug, Clone)]
struct FoundText {
    message: String,
    hint: Option<String>,
    path: Option<Path>,
    related: Option<(Span, &'static str)>,
}

impl Found {
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        Found { span: Some(span), ..Found::nowhere(message) }
    }

    /// A problem that no line of a file stands for.
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        let text = FoundText { message: message.into(), hint: None, path: None, related: None };
        Found { severity: Severity::Error, span: None, text: Box::new(text) }
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.text.hint = Some(hint.into());
        self
    }

    pub(super) fn path(mut self, path: Path) -> Self {
        self.text.path = Some(path);
        self
    }

    /// Points at another place that has to do with it, if that is known.
    pub(super) fn related(mut self, span: impl Into<Option<Span>>, label: &'static str) -> Self {
        self.text.related = span.into().map(|span| (span, label));
        self
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Whether it leaves the admin endpoint in doubt. Where no `admin` is `written`, any unknown key of the top may be
    /// meant for it.
    pub(super) fn concerns_admin(&self, written: bool) -> bool {
        match self.text.path.as_ref().map(|path| path.0.as_slice()) {
            Some([Step::Key(key), rest @ ..]) => key == "admin" || (!written && rest.is_empty()),
            _ => true,
        }
    }

    fn finish(self, texts: &Texts<'_>) -> Problem {
        let place = |span: Span| texts.place(span);
        let FoundText { message, hint, path, related } = *self.text;
        let clean = |text: String| {
            texts
                .sources
                .iter()
                .fold(secrets::clean(text, &[]), |text, source| secrets::clean(text, &source.hidden))
        };
        Problem {
            severity: self.severity,
            place: self.span.and_then(place),
            message: clean(message),
            hint: hint.map(clean),
            path: path.map(|path| path.to_string()).filter(|path| !path.is_empty()),
            related: related.and_then(|(span, label)| Some((place(span)?, label.to_owned()))),
        }
    }
}

impl Problems {
    /// Sorts what was found by place and looks it up in the texts.
    pub(super) fn new(mut found: Vec<Found>, sources: &[Source]) -> Self {
        found.sort_by_key(|found| found.span);
        let more = found.len().saturating_sub(MAX_PROBLEMS);
        found.truncate(MAX_PROBLEMS);
        let texts = Texts { sources, secrets: sources.iter().map(|_| OnceCell::new()).collect() };
        Problems { list: found.into_iter().map(|found| found.finish(&texts)).collect(), more }
    }

    /// All of them as text for a person: the line, what is meant in it, and what would be right.
    pub(crate) fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut text = String::new();
        for problem in &self.list {
            text.push_str(&renderer.render(&problem.report()));
            text.push_str("\n\n");
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// All of them as a list of objects for a program.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        self.list.iter().map(Problem::to_json).collect()
    }

    /// One line for each, for a log.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |problem: &Problem| match &problem.place {
            Some(place) => format!("{}:{}:{}: {}", place.file, place.line, place.column, problem.message),
            None => problem.message.clone(),
        };
        self.list.iter().map(line).collect()
    }

    fn summary(&self) -> String {
        let count = |severity| self.list.iter().filter(|problem| problem.severity == severity).count();
        let plural = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        let mut text = match (count(Severity::Error), count(Severity::Warning)) {
            (errors, 0) => plural(errors, "problem"),
            (0, warnings) => plural(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", plural(errors, "problem"), plural(warnings, "warning")),
        };
        if self.more > 0 {
            text.push_str(&format!(" shown, {} more", self.more));
        }
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

impl Problem {
    fn report(&self) -> Vec<Group<'_>> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        // Options that were not read from a file have no line to show, but a name.
        let title = match (&self.place, &self.path) {
            (None, Some(path)) => level.primary_title(format!("{path}: {}", self.message)),
            _ => level.primary_title(self.message.as_str()),
        };
        let mut first = match &self.place {
            Some(place) => place.show(Group::with_title(title)),
            None => Group::with_title(title),
        };
        if let Some(hint) = &self.hint {
            first = first.element(Level::HELP.message(hint.as_str()));
        }
        let mut groups = vec![first];
        if let Some((place, label)) = &self.related {
            groups.push(place.show(Group::with_title(Level::NOTE.secondary_title(label.as_str()))));
        }
        groups
    }

    fn to_json(&self) -> serde_json::Value {
        let place = |place: &Place| {
            serde_json::json!({
                "file": place.file, "line": place.line, "column": place.column,
                "span": [place.span.start, place.span.end],
            })
        };
        let mut object = serde_json::json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "file": null, "line": null, "column": null, "span": null,
            "message": self.message, "hint": self.hint, "path": self.path,
        });
        if let Some(own) = &self.place {
            for (key, value) in place(own).as_object().into_iter().flatten() {
                object[key] = value.clone();
            }
        }
        if let Some((other, label)) = &self.related {
            object["related"] = place(other);
            object["related"]["message"] = label.as_str().into();
        }
        object
    }
}

/// The files that problems are in, and the secrets in those that are shown.
struct Texts<'a> {
    sources: &'a [Source],
    secrets: Vec<OnceCell<Vec<Range<usize>>>>,
}

impl Texts<'_> {
    fn place(&self, span: Span) -> Option<Place> {
        let source = self.sources.get(span.file)?;
        let secrets = self.secrets.get(span.file)?.get_or_init(|| secrets::secrets(&source.text));
        Some(Place::new(source, secrets, span))
    }
}

impl Place {
    fn new(source: &Source, secrets: &[Range<usize>], span: Span) -> Self {
        let text = &source.text;
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        // What spans lines, such as a table, is shown by the first of them.
        let end = text.ceil_char_boundary(span.end.clamp(start, line_end));
        Place {
            file: source.name.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            span: start..span.end.min(text.len()).max(start),
            shown: Masked::new(text, secrets, line_start..line_end, start..end),
        }
    }

    fn show<'a>(&'a self, group: Group<'a>) -> Group<'a> {
        let mark = AnnotationKind::Primary.span(self.shown.range.clone());
        let snippet = Snippet::source(self.shown.line.as_str()).line_start(self.line).annotation(mark);
        // The column is counted in what is shown, which is not all of the line if it is long or holds a secret.
        if self.shown.column() == self.column {
            return group.element(snippet.path(self.file.as_str()));
        }
        let origin = Origin::path(self.file.as_str()).line(self.line).char_column(self.column);
        group.element(origin).element(snippet)
    }
}

/// The one of `words` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong: more is another word.
    let most = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    let candidates = words.into_iter().map(|other| (strsim::damerau_levenshtein(&word, other), other));
    candidates.filter(|(distance, _)| *distance <= most).min().map(|(_, other)| other)
}
