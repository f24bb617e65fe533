//! The run: for each scenario, rounds of all proxies in turn.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{self, Helper, Workdir};
use crate::cli::RunArgs;
use crate::load::LoadReport;
use crate::procstat::{self, Memory, Usage};
use crate::proxies::{Installed, Running, Variant};
use crate::sample::{Cost, Failure, Place, Sample, Series};
use crate::scenario::{self, Measure, Spec};
use crate::{identity, page, report, site, strace};

/// Allocators and timers of an idle proxy get so long before its memory is read.
const IDLE_FOR: Duration = Duration::from_secs(1);

/// The share of datagrams whose loss makes a measurement none.
const LOSSES: f64 = 0.1;

/// The same in a quick round. It is to show that everything works, on any machine: where few datagrams are sent, a few stalls
/// of the machine are a large part of them, and only that hardly any come back says that something is broken. For the same
/// reason a run that fails in it gets a second try.
const QUICK_LOSSES: f64 = 0.9;

/// Ports in TIME_WAIT that leave enough others, of the 28,000 that Linux gives out by default.
const FEW: u64 = 16_000;

/// What every run of this invocation shares.
pub(crate) struct Bench {
    pub(crate) proxy_core: usize,
    pub(crate) load_core: usize,
    pub(crate) dir: Workdir,
    pub(crate) quick: bool,
}

/// What a load generator is to do.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(crate) work: u64,
    /// Requests a second, for a load that does not wait for answers.
    pub(crate) rate: Option<f64>,
}

/// One proxy before its backend, where it needs one, with a load generator that has warmed it up.
pub(crate) struct Stage {
    // In the order in which they have to go: the proxy must see its clients leave, not its backend.
    load: Helper,
    pub(crate) proxy: Option<Running>,
    backend: Option<Helper>,
    /// Of the proxy, when it had just started.
    fresh: Memory,
}

/// The runner's whole work; an error too when any single run failed.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let specs = scenario::chosen(&args.only)?;
    child::raise_descriptors()?;
    let (proxy_core, load_core) = child::two_cores()?;
    let proxies = find_proxies(&args.wmproxy)?;
    let rounds = if args.quick { 1 } else { args.rounds };
    let place = place(&proxies, rounds)?;
    let bench = Bench { proxy_core, load_core, dir: Workdir::create()?, quick: args.quick };
    println!(
        "proxy on core {proxy_core}, load and backend on core {load_core}; {} on {}",
        place.kernel, place.cpu
    );
    identity::create(bench.dir.path())?;
    let mut all = Vec::new();
    for spec in specs {
        println!("\n{}: {}", spec.slug, spec.what);
        site::prepare(spec, bench.quick, bench.dir.path()).context("the files to serve")?;
        let mut series = measure(&bench, spec, &proxies, &place);
        if args.strace {
            series.syscalls = strace::pass(&bench, spec, &proxies);
        }
        println!("\n{}", report::table(spec, &series));
        all.push(series);
    }
    let failed: usize = all.iter().map(|series| series.failures.len()).sum();
    if let Some(file) = &args.write {
        page::write(file, all)?;
        println!("written to {}", file.display());
    }
    if failed > 0 {
        bail!("{failed} runs failed");
    }
    Ok(())
}

/// All of them: a figure without its rivals' says nothing.
fn find_proxies(wmproxy: &Path) -> Result<Vec<Installed>> {
    let find = |variant: Variant| {
        Installed::find(variant, wmproxy).with_context(|| format!("{} is missing", variant.name()))
    };
    Variant::ALL.into_iter().map(find).collect()
}

fn measure(bench: &Bench, spec: &Spec, proxies: &[Installed], place: &Place) -> Series {
    let place = Place { rounds: spec.rounds(place.rounds), ..place.clone() };
    let (mut samples, mut failures) = (Vec::new(), Vec::new());
    let mut proxies: Vec<&Installed> = proxies.iter().filter(|proxy| proxy.variant.serves(spec)).collect();
    let rate = if spec.measure() == Measure::Tail { half_of_slowest(bench, spec, &proxies) } else { None };
    for round in 1..=place.rounds {
        for proxy in &proxies {
            let variant = proxy.variant;
            let head = format!("{} {round}/{} {:8}", spec.slug, place.rounds, variant.name());
            let mut outcome = await_ports().and_then(|()| run_once(bench, spec, proxy, rate, round));
            if let (Err(error), true) = (&outcome, bench.quick) {
                println!("{head} once more, for {error:#}");
                outcome = run_once(bench, spec, proxy, rate, round);
            }
            match outcome {
                Ok(sample) => {
                    println!("{head} {}", report::progress(spec, &sample));
                    samples.push(sample);
                }
                Err(error) => {
                    println!("{head} failed: {error:#}");
                    failures.push(Failure { variant, round, reason: format!("{error:#}") });
                }
            }
        }
        // Whoever runs first finds the fewest ports in TIME_WAIT and the coolest machine; each gets its turn.
        proxies.rotate_left(1);
    }
    Series {
        scenario: spec.slug.to_owned(),
        quick: bench.quick,
        place,
        samples,
        failures,
        syscalls: Vec::new(),
    }
}

/// Half of the requests a second that every proxy brings through. One that brings none through will fail once more where
/// that is counted.
fn half_of_slowest(bench: &Bench, spec: &Spec, proxies: &[&Installed]) -> Option<f64> {
    let rate_of = |proxy: &&&Installed| -> Result<f64> {
        let mut stage = Stage::set(bench, spec, proxy, Task { work: spec.work(true), rate: None })?;
        let report = stage.play()?;
        stage.strike();
        Ok(report.done as f64 / report.seconds)
    };
    let proxies = proxies.iter().filter(|proxy| proxy.variant != Variant::Direct);
    let rate = proxies.filter_map(|proxy| rate_of(&proxy).ok()).reduce(f64::min)? / 2.0;
    println!("{}: {rate:.0} a second", spec.slug);
    Some(rate)
}

/// Waits until most ports that earlier runs have left in TIME_WAIT are free again, for as long as that takes a port: a run
/// of set-ups leaves tens of thousands, and where none is free the next run can't begin.
fn await_ports() -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    const TIME_WAIT: Duration = Duration::from_secs(60);
    let until = Instant::now() + TIME_WAIT;
    while procstat::sockets_in_time_wait()? > FEW && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn run_once(bench: &Bench, spec: &Spec, proxy: &Installed, rate: Option<f64>, round: u32) -> Result<Sample> {
    let mut stage = Stage::set(bench, spec, proxy, Task { work: spec.work(bench.quick), rate })?;
    let before = stage.observe(spec)?;
    let report = stage.play()?;
    if spec.is_memory() {
        std::thread::sleep(IDLE_FOR);
    }
    let cost = before.zip(stage.observe(spec)?).map(|(before, after)| cost(before, after, stage.fresh));
    stage.strike();
    Ok(Sample {
        variant: proxy.variant,
        round,
        units: report.done as f64 * spec.units_per_work,
        seconds: report.seconds,
        lost: report.lost,
        latency_us: report.latency,
        cost,
    })
}

fn cost(
    (usage, memory): (Usage, Memory),
    (usage_after, memory_after): (Usage, Memory),
    fresh: Memory,
) -> Cost {
    let user = (usage_after.user_ticks - usage.user_ticks) as f64;
    let kernel = (usage_after.kernel_ticks - usage.kernel_ticks) as f64;
    Cost {
        cpu_ns: usage_after.cpu_ns.saturating_sub(usage.cpu_ns),
        user_share: user / (user + kernel).max(1.0),
        context_switches: usage_after.switches.saturating_sub(usage.switches),
        pss_growth: memory_after.pss as i64 - memory.pss as i64,
        rss_growth: memory_after.rss as i64 - memory.rss as i64,
        pss_since_start: memory_after.pss as i64 - fresh.pss as i64,
    }
}

impl Stage {
    /// Starts backend, proxy and load; returns once the warm-up is over.
    pub(crate) fn set(bench: &Bench, spec: &Spec, proxy: &Installed, task: Task) -> Result<Self> {
        let (variant, core) = (proxy.variant, bench.load_core.to_string());
        let kind = spec.kind.arg();
        let dir = bench.dir.path().display().to_string();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let (mut backend, mut origin) = (None, None);
        if !spec.is_files() {
            let args = words(&["backend", "--kind", &kind, "--core", &core, "--dir", &dir]);
            let backend = backend.insert(Helper::start(&args)?);
            let port: u16 = backend.line()?.parse().context("the backend's port")?;
            origin = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        let proxy = proxy.start(spec, origin, bench.proxy_core, bench.dir.path())?;
        let fresh = match &proxy {
            Some(proxy) if spec.is_memory() => procstat::memory_at_rest(proxy.pid())?,
            _ => Memory::default(),
        };
        let target = proxy.as_ref().map(|proxy| proxy.address).or(origin).context("nobody to put load on")?;
        let mut args = words(&["load", "--kind", &kind, "--core", &core]);
        for (flag, value) in [
            ("--target", target.to_string()),
            ("--size", spec.size.to_string()),
            ("--parallel", spec.parallel.to_string()),
            ("--work", task.work.to_string()),
            ("--warmup", spec.warmup.to_string()),
            ("--may-lose", if bench.quick { QUICK_LOSSES } else { LOSSES }.to_string()),
            ("--dir", dir),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        if let Some(rate) = task.rate {
            args.extend(["--rate".to_owned(), rate.to_string()]);
        }
        args.extend(["--added".to_owned(), variant.fields_added(spec).to_string()]);
        if let (Some(door), Some(origin)) = (spec.door().filter(|_| variant.is_forward()), origin) {
            args.extend(["--door".to_owned(), door.arg(), "--origin".to_owned(), origin.to_string()]);
        }
        let mut load = Helper::start(&args)?;
        load.line()?;
        Ok(Self { load, proxy, backend, fresh })
    }

    /// Lets the load do its work.
    pub(crate) fn play(&mut self) -> Result<LoadReport> {
        self.load.send("go")?;
        serde_json::from_str(&self.load.line()?).context("the load's report")
    }

    pub(crate) fn strike(self) {
        self.load.finish();
        drop(self.proxy);
        drop(self.backend);
    }

    /// The counters of the proxy; memory is read only where it is the figure, for the reading itself takes time.
    fn observe(&self, spec: &Spec) -> Result<Option<(Usage, Memory)>> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let usage = procstat::usage_at_rest(proxy.pid())?;
        let memory = if spec.is_memory() { procstat::memory(proxy.pid())? } else { Memory::default() };
        Ok(Some((usage, memory)))
    }
}

fn place(proxies: &[Installed], rounds: u32) -> Result<Place> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(Place {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        kernel: format!("Linux {}", kernel.trim()),
        cpu: model.map_or("unknown CPU", |(_, model)| model).to_owned(),
        rounds,
        versions: proxies.iter().map(|proxy| (proxy.variant, proxy.version.clone())).collect(),
    })
}
