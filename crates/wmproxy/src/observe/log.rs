//! The program log: what the rooms say through `tracing`, as lines in a sink.
//!
//! Level, format and place may change while the process runs. [`Log::prepare`] does what can fail and changes
//! nothing; [`Log::apply`] can't fail.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use super::filter;
use super::line::{Fields, Style, push_line};
use super::sink::{Sink, Target};
use super::sinks::Sinks;
use crate::config::plan::{LogFormat, LogPlan};

/// The log of the process.
#[derive(Debug)]
pub(crate) struct Log {
    filter: reload::Handle<Targets, Registry>,
    output: Arc<ArcSwap<Output>>,
}

/// A log's settings, ready to be put in force.
#[derive(Debug)]
pub(crate) struct Prepared {
    filter: Targets,
    output: Output,
}

/// Where lines go and how they look.
#[derive(Debug, Clone)]
struct Output {
    sink: Sink,
    style: Style,
}

/// The subscriber's part that writes.
#[derive(Debug)]
struct Lines {
    output: Arc<ArcSwap<Output>>,
}

impl Log {
    /// Reads the filter and opens the place of the log. Nothing is changed yet.
    ///
    /// # Errors
    /// A bad filter, or a file that can't be opened.
    pub(crate) fn prepare(sinks: &Sinks, plan: &LogPlan) -> anyhow::Result<Prepared> {
        let filter = filter::parse(&plan.level).map_err(anyhow::Error::msg)?;
        let target = plan.file.clone().map_or(Target::Stderr, Target::File);
        let sink = sinks.open(&target).with_context(|| format!("can't open the log file {target}"))?;
        let style = match plan.format {
            LogFormat::Json => Style::Json,
            LogFormat::Text => Style::Text { colour: coloured(&sink) },
        };
        Ok(Prepared { filter, output: Output { sink, style } })
    }

    /// Puts the log in force for the whole process.
    ///
    /// # Errors
    /// When a log is in force already.
    pub(crate) fn start(prepared: Prepared) -> anyhow::Result<Log> {
        let (log, subscriber) = Log::build(prepared);
        tracing::subscriber::set_global_default(subscriber).context("the log was started twice")?;
        Ok(log)
    }

    pub(super) fn build(prepared: Prepared) -> (Log, impl Subscriber + Send + Sync) {
        let output = Arc::new(ArcSwap::from_pointee(prepared.output));
        let (filter, handle) = reload::Layer::new(prepared.filter);
        let lines = Lines { output: output.clone() };
        (Log { filter: handle, output }, Registry::default().with(filter).with(lines))
    }

    /// Puts other settings in force. Lines written before are in the old place.
    pub(crate) fn apply(&self, prepared: Prepared) {
        self.output.store(Arc::new(prepared.output));
        // Fails only when the subscriber is gone, and with it everyone who would notice.
        let _ = self.filter.reload(prepared.filter);
    }
}

/// Colours are for terminals, unless their user does not want them (no-color.org).
fn coloured(sink: &Sink) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    sink.is_terminal() && !set("NO_COLOR") && !dumb
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans: Vec<Fields> = ctx
            .event_scope(event)
            .into_iter()
            .flatten()
            .filter_map(|span| span.extensions().get::<Fields>().cloned())
            .collect();
        let output = self.output.load();
        let mut line = Vec::with_capacity(256);
        push_line(&mut line, output.style, SystemTime::now(), event.metadata(), &fields, &spans);
        output.sink.write(&line);
    }
}
