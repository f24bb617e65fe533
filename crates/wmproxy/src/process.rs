//! The running process: it starts, reloads, drains and stops.
//!
//! One task of the control runtime decides; signals, the admin API and the watched files send it what they want, so
//! that a reload and a stop never run into each other.

mod control;
mod reload;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use wmproxy_net::privileges::Identity;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_runtime::scope::{Leash, Scope};
use wmproxy_runtime::signal::{Request, Signals};
use wmproxy_runtime::worker::Workers;

use crate::admin::bind::Bound;
use crate::cli::Global;
use crate::config::Loaded;
use crate::config::plan::{AdminPlan, Plan};
use crate::generation::tunnels::AtWork;
use crate::generation::{Generation, House, sockets};
use crate::observe::log::Log;
use crate::observe::screen;
use crate::observe::sinks::Sinks;
use crate::source::Source;
use crate::tunnel_command::display;
use crate::watch::Watch;
use control::{ReloadAsked, Shared, Stop};

/// How long the last lines of the logs may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Makes what is printed, of the listeners in service and the ends of tunnels.
pub(crate) type Banner = Box<dyn FnOnce(&[Arc<ListenerMetrics>], &AtWork) -> String>;

/// How to run.
pub(crate) struct Run {
    pub(crate) source: Source,
    pub(crate) global: Global,
    /// Reload when a file of the config changes.
    pub(crate) watch: bool,
    /// Printed once everything listens.
    pub(crate) banner: Option<Banner>,
    /// Show on the terminal what tunnels do.
    pub(crate) display: bool,
}

/// The state that the deciding task owns.
struct Process {
    run: Run,
    house: House,
    generation: Generation,
    shared: Arc<Shared>,
    log: Log,
    /// What is in force, to be compared with what comes.
    plan: Plan,
    admin: Option<Admin>,
    /// Admin endpoints at former addresses, until their last answer is out.
    retired: Vec<Leash>,
    control: Scope,
    files: Vec<PathBuf>,
    /// What the terminal shows.
    display: Option<Leash>,
}

/// The admin endpoint at work.
struct Admin {
    plan: AdminPlan,
    _end: watch::Sender<()>,
    /// A change of address waits for the answers in flight; the end of the process does not.
    task: Leash,
}

/// Runs until it is told to stop. Every problem at the start goes to standard error.
pub(crate) fn run(run: Run) -> ExitCode {
    let loaded = match run.source.load(&run.global) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{}", problems.render(std::io::stderr().is_terminal()).trim_end());
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let sinks = Arc::new(Sinks::new());
    let done = runtime.block_on(async {
        let (asks, inbox) = mpsc::unbounded_channel();
        // Signals are caught first: one that comes during the start must not end the process unheard.
        let signals = Signals::catch().context("can't catch signals")?;
        let process = Process::start(run, loaded, sinks.clone(), asks).await?;
        process.live(signals, inbox).await;
        anyhow::Ok(())
    });
    sinks.flush(LAST_LINES);
    // Without waiting for a thread that reads a file from a disk that does not answer.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

impl Process {
    async fn start(
        run: Run,
        loaded: Loaded,
        sinks: Arc<Sinks>,
        asks: mpsc::UnboundedSender<ReloadAsked>,
    ) -> anyhow::Result<Process> {
        let Loaded { plan, warnings, files, .. } = loaded;
        let log = Log::start(Log::prepare(&sinks, &plan.log)?)?;
        wmproxy_runtime::panic::install_hook();
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        let identity = identity(&plan)?;
        let workers = Workers::start(plan.workers).context("can't start the workers")?;
        let house = House::new(workers, sinks.clone());
        let prepared = house.prepare(&plan, &Generation::default()).await?;
        for warning in &prepared.warnings {
            tracing::warn!("{warning}");
        }
        let admin = match &plan.admin {
            Some(admin) => Some((admin.clone(), bind_admin(admin).await?)),
            None => None,
        };
        house.outside.note_admin(admin.as_ref().map(|(_, bound)| bound.address()));
        // Everything is bound, and nobody is served yet.
        if let Some(identity) = identity {
            house
                .assume(identity, sockets::rights(&plan))
                .await
                .context("can't become the configured user")?;
        }
        let generation = house.commit(prepared, Generation::default()).await.map_err(|(error, _)| error)?;
        let token = plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let shared = Shared::new(run.source.file().cloned(), &house, asks);
        shared.publish(1, token, &generation);
        let mut process = Process {
            run,
            house,
            generation,
            shared,
            log,
            plan,
            admin: None,
            retired: Vec::new(),
            control: Scope::new(),
            files,
            display: None,
        };
        process.admin = admin.map(|(plan, bound)| process.serve_admin(plan, bound));
        process.report_listeners();
        if let Some(banner) = process.run.banner.take() {
            // The banner is for people; one who has closed stdout is not interested.
            let _ =
                crate::cli::print(banner(&process.generation.listeners(), &process.house.tunnels.at_work()));
        }
        if process.run.display {
            process.display =
                Some(process.control.spawn_control(display::run(process.house.tunnels.at_work())));
        }
        Ok(process)
    }

    fn serve_admin(&self, plan: AdminPlan, bound: Bound) -> Admin {
        tracing::info!(address = %bound.address(), "the admin API listens");
        let (end, mut ended) = watch::channel(());
        let shutdown = async move {
            // Only the sender's end is waited for.
            while ended.changed().await.is_ok() {}
        };
        let task = self.control.spawn_control(bound.serve(self.shared.clone(), shutdown));
        Admin { plan, _end: end, task }
    }

    fn report_listeners(&self) {
        for listener in self.generation.listeners() {
            tracing::info!(name = %listener.name, "listening on {}://{}", listener.protocol, listener.address);
        }
    }

    async fn live(mut self, mut signals: Signals, mut inbox: mpsc::UnboundedReceiver<ReloadAsked>) {
        let mut watch = self.run.watch.then(|| Watch::new(&self.files));
        let mut stops = self.shared.stops();
        let mut again = false;
        loop {
            let mut asked = None;
            let why = tokio::select! {
                biased;
                _ = stops.wait_for(|stop| *stop != Stop::No) => break,
                request = signals.next() => match request {
                    Request::Stop => break,
                    Request::Reload => "SIGHUP",
                    Request::ReopenLogs => {
                        self.house.sinks.reopen();
                        continue;
                    }
                },
                () = std::future::ready(()), if again => "SIGHUP",
                answer = inbox.recv() => {
                    asked = answer;
                    "a request to the admin API"
                }
                () = Watch::changed(&mut watch) => "a change of the config",
            };
            again = false;
            let outcome = self.reload(&mut again, &mut signals, &mut stops).await;
            let is_stopping = outcome.is_none();
            let outcome = outcome.unwrap_or_else(|| Err(reload::stopping()));
            self.log_reload(why, &outcome);
            if let Some(answer) = asked {
                // Who asked may have hung up.
                let _ = answer.send(outcome);
            }
            if is_stopping {
                break;
            }
            if let Some(watch) = &mut watch {
                watch.follow(&self.files);
            }
        }
        self.stop(signals, stops, inbox).await;
    }

    /// Lets what is open finish within `shutdown_timeout`; a second request to stop ends the waiting.
    async fn stop(
        self,
        mut signals: Signals,
        mut stops: watch::Receiver<Stop>,
        mut inbox: mpsc::UnboundedReceiver<ReloadAsked>,
    ) {
        let Process { house, admin, generation, shared, plan, display: shown, .. } = self;
        shared.begin_drain();
        house.drain(generation).await;
        let open = house.scopes.connections.clone();
        let limit = plan.shutdown_timeout;
        // Among the tasks there are those of UDP listeners, which end with their last flow; people count connections.
        if *stops.borrow() != Stop::Now && shared.active() > 0 {
            tracing::info!(open = shared.active(), ?limit, "draining");
        }
        let drained = tokio::time::timeout(limit, open.empty());
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                _ = stops.wait_for(|stop| *stop == Stop::Now) => break,
                _ = &mut drained => break,
                request = signals.next() => match request {
                    Request::Stop => break,
                    Request::ReopenLogs => house.sinks.reopen(),
                    Request::Reload => tracing::info!("no reload: the process is stopping"),
                },
                Some(answer) = inbox.recv() => drop(answer.send(Err(reload::stopping()))),
            }
        }
        if shared.active() > 0 {
            tracing::info!(open = shared.active(), "closing what is still open");
        }
        house.workers.end();
        if shown.is_some() {
            drop(shown);
            screen::close();
        }
        // A quota is used up by what passed in the last seconds, too.
        let accounts = house.outside.accounts.clone();
        let _ = tokio::task::spawn_blocking(move || accounts.save(SystemTime::now())).await;
        drop(admin);
        tracing::info!("stopped");
    }
}

/// Whom to become, if the config says so; unknown names are told before anything is bound.
fn identity(plan: &Plan) -> anyhow::Result<Option<Identity>> {
    match &plan.user {
        Some(user) => Ok(Some(Identity::find(user, plan.group.as_deref())?)),
        None => Ok(None),
    }
}

async fn bind_admin(plan: &AdminPlan) -> anyhow::Result<Bound> {
    let listen = &plan.listen;
    anyhow::ensure!(
        plan.is_guarded(),
        "the admin API on {listen} needs a token: whoever reaches this address could stop the proxy"
    );
    let hint = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "the admin API can't listen on {listen}: the address is in use, perhaps by another instance; \
                 give this one its own with --admin ADDR, or none with --no-admin"
            )
        }
        _ => anyhow::anyhow!("the admin API can't listen on {listen}: {error}"),
    };
    Bound::bind(listen).await.map_err(hint)
}
