//! Figures as text: the progress line, the table of a scenario, the table over all.

use crate::proxies::Variant;
use crate::sample::{Sample, Series, Spread, Summary};
use crate::scenario::{Bar, Measure, Spec};

/// A column of a scenario's table, which is left out where no proxy has a value for it.
struct Column {
    head: String,
    cells: Vec<Option<String>>,
}

/// One run in one line.
pub(crate) fn progress(spec: &Spec, sample: &Sample) -> String {
    let mut parts = Vec::new();
    if let Some(figure) = sample.figure(spec) {
        parts.push(format!("{}: {}", spec.figure, number(figure)));
    }
    parts.push(format!("{} {}/s", number(sample.units / sample.seconds), spec.unit));
    if let Some(latency) = sample.latency_us {
        parts.push(format!("p50 {} µs, p99 {} µs", number(latency.p50), number(latency.p99)));
    }
    if sample.lost > 0 {
        parts.push(format!("{} lost", sample.lost));
    }
    parts.join(", ")
}

/// The Markdown table of a scenario, with its bar and what became of it.
pub(crate) fn table(spec: &Spec, series: &Series) -> String {
    let rows = series.summaries(spec);
    let mut columns = vec![
        column("", &rows, |row| Some(row.variant.name().to_owned())),
        column(spec.figure, &rows, |row| row.figure.map(|figure| with_ends(figure, number))),
    ];
    columns.extend(spec.rivals().into_iter().map(|rival| {
        column(&format!("of {}", rival.name()), &rows, |row| {
            row.ratio(rival).map(|ratio| with_ends(ratio, times))
        })
    }));
    columns.extend(match spec.measure() {
        Measure::Memory => vec![column("by Rss, KB", &rows, |row| row.rss.map(|rss| number(rss.median)))],
        Measure::Growth => growth_columns(&rows),
        Measure::FirstByte => listing_columns(&rows),
        Measure::Cpu | Measure::Tail => rate_columns(spec, &rows),
    });
    if !spec.is_memory() {
        columns
            .push(column("user part", &rows, |row| Some(format!("{:.0} %", row.user_share?.median * 100.0))));
        let head = format!("context switches a {}", spec.unit);
        columns.push(column(&head, &rows, |row| row.switches.map(|switches| number(switches.median))));
        let head = format!("syscalls a {}", spec.unit);
        let calls = |variant| series.syscalls.iter().find(|count| count.0 == variant).map(|count| count.1);
        columns.push(column(&head, &rows, |row| calls(row.variant).map(number)));
    }
    if spec.is_udp() {
        columns.push(column("lost", &rows, |row| Some(row.lost.to_string())));
    }
    columns.push(column("failed runs", &rows, |row| (row.failed > 0).then(|| row.failed.to_string())));
    columns.retain(|column| column.cells.iter().any(Option::is_some));
    format!("{}\n{}\n", markdown(&columns), verdict_line(spec, series))
}

/// How much gets through, and how long it takes.
fn rate_columns(spec: &Spec, rows: &[Summary]) -> Vec<Column> {
    let head = format!("{} a second", plural(spec.unit));
    // The table of a tail has opened with the proxies' p99.
    let p99_is_new = |row: &Summary| spec.measure() != Measure::Tail || row.figure.is_none();
    vec![
        column(&head, rows, |row| row.rate.map(|rate| with_ends(rate, number))),
        column("p50, µs", rows, |row| row.p50.map(|p50| with_ends(p50, number))),
        column("p99, µs", rows, |row| row.p99.filter(|_| p99_is_new(row)).map(|p99| with_ends(p99, number))),
    ]
}

/// What else there is to say about memory that work leaves behind.
fn growth_columns(rows: &[Summary]) -> Vec<Column> {
    vec![
        column("since the start, MB", rows, |row| row.since_start.map(|growth| with_ends(growth, number))),
        column("CPU per file, µs", rows, |row| row.cpu_us.map(|cpu| with_ends(cpu, number))),
        column("files a second", rows, |row| row.rate.map(|rate| with_ends(rate, number))),
    ]
}

fn listing_columns(rows: &[Summary]) -> Vec<Column> {
    vec![
        column("first entry, ms", rows, |row| row.entry_ms.map(|entry| with_ends(entry, number))),
        column("whole, ms", rows, |row| row.whole_ms.map(|whole| with_ends(whole, number))),
        column("CPU per listing, ms", rows, |row| row.cpu_us.map(|cpu| number(cpu.median / 1e3))),
    ]
}

/// Peers of reverse proxies and servers of files, those of forward proxies, and those of tunnels.
const PEERS: [&[Variant]; 3] = [
    &[Variant::Nginx, Variant::Haproxy, Variant::Caddy],
    &[Variant::Squid, Variant::Tinyproxy, Variant::Dante, Variant::Microsocks],
    &[Variant::Rathole],
];

/// The Markdown tables that open the page: each scenario with its bar and verdict.
pub(crate) fn overview(measured: &[(&Spec, &Series)]) -> String {
    let tables = PEERS.iter().enumerate().map(|(index, peers)| {
        let place = |spec: &Spec| match spec.carrier() {
            Some(_) => 2,
            None => usize::from(spec.door().is_some()),
        };
        let rows = measured.iter().filter(|(spec, _)| place(spec) == index);
        let rows: String = rows.map(|(spec, series)| overview_rows(spec, series, peers)).collect();
        let names: String = peers.iter().map(|peer| format!(" {} |", peer.name())).collect();
        let rules = "---:|".repeat(peers.len());
        match rows.is_empty() {
            true => String::new(),
            false => format!(
                "| work | figure | wmproxy |{names} wmproxy of its rival | bar | |\n\
                 |---|---|---:|{rules}---:|---:|---|\n{rows}"
            ),
        }
    });
    tables.filter(|table| !table.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A row for each bar.
fn overview_rows(spec: &Spec, series: &Series, peers: &[Variant]) -> String {
    let rows = series.summaries(spec);
    let of = |variant| rows.iter().find(|row| row.variant == variant);
    let figure = |variant| of(variant).and_then(|row| row.figure).map_or("-".into(), |f| number(f.median));
    let theirs: String = peers.iter().map(|peer| format!(" {} |", figure(*peer))).collect();
    let row = |bar: &Bar| {
        let ours = of(Variant::Wmproxy).and_then(|row| row.ratio(bar.rival()));
        format!(
            "| {} | {} | {} |{theirs} {} | {} | {} |\n",
            spec.title,
            spec.figure,
            figure(Variant::Wmproxy),
            ours.map_or("-".into(), |ratio| times(ratio.median)),
            words(bar),
            verdict(bar, spec, series),
        )
    };
    spec.bars.iter().map(row).collect()
}

/// The figure wmproxy may reach at most by `bar`, where its rival's is known if it takes that.
pub(crate) fn limit(bar: &Bar, rows: &[Summary]) -> Option<f64> {
    match bar {
        Bar::AtMost(limit) => Some(*limit),
        Bar::Times(rival, factor) => {
            let ours = rows.iter().find(|row| row.variant == Variant::Wmproxy)?;
            Some(ours.figure?.median / ours.ratio(*rival)?.median * factor)
        }
    }
}

fn verdict_line(spec: &Spec, series: &Series) -> String {
    let verdicts: Vec<_> =
        spec.bars.iter().map(|bar| format!("{}: {}", words(bar), verdict(bar, spec, series))).collect();
    format!("Bar: {}.", verdicts.join("; "))
}

/// A bar as it is told.
pub(crate) fn words(bar: &Bar) -> String {
    match bar {
        Bar::Times(rival, factor) => format!("≤ {factor} × {}", rival.name()),
        Bar::AtMost(limit) => format!("≤ {limit}"),
    }
}

fn verdict(bar: &Bar, spec: &Spec, series: &Series) -> &'static str {
    let rows = series.summaries(spec);
    let Some(wmproxy) = rows.iter().find(|row| row.variant == Variant::Wmproxy) else {
        return "wmproxy was not there";
    };
    let reached = match bar {
        Bar::Times(rival, factor) => wmproxy.ratio(*rival).map(|ratio| ratio.median <= *factor),
        Bar::AtMost(limit) => wmproxy.figure.map(|figure| figure.median <= *limit),
    };
    match reached {
        _ if wmproxy.failed > 0 => "**not met**, runs failed",
        _ if series.quick => "not judged, this was a quick run",
        Some(true) => "met",
        Some(false) => "**not met**",
        None => "not judged, its rival was not there",
    }
}

fn column(head: &str, rows: &[Summary], cell: impl Fn(&Summary) -> Option<String>) -> Column {
    Column { head: head.to_owned(), cells: rows.iter().map(cell).collect() }
}

fn markdown(columns: &[Column]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|column| column.head.as_str()).collect());
    let rules = (0..columns.len()).map(|index| if index == 0 { "---" } else { "---:" });
    text.push_str(&line(rules.collect()));
    for row in 0..columns.first().map_or(0, |column| column.cells.len()) {
        text.push_str(&line(
            columns.iter().map(|column| column.cells[row].as_deref().unwrap_or("-")).collect(),
        ));
    }
    text
}

fn with_ends(spread: Spread, format: fn(f64) -> String) -> String {
    if spread.min == spread.max {
        return format(spread.median);
    }
    format!("**{}** ({} – {})", format(spread.median), format(spread.min), format(spread.max))
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Three digits that count, and no more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => thousands(value.round() as i64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: i64) -> String {
    match value {
        -999..1000 => value.to_string(),
        _ => format!("{},{:03}", thousands(value / 1000), (value % 1000).abs()),
    }
}

fn plural(unit: &str) -> String {
    if unit == "GB" { unit.to_owned() } else { format!("{unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0123, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.012", "1.23", "12.3", "123", "1,235", "1,234,567"]);
    }

    #[test]
    fn a_spread_of_one_has_no_ends() {
        let one = Spread { median: 2.0, min: 2.0, max: 2.0 };
        assert_eq!(with_ends(one, number), "2.00");
        assert_eq!(with_ends(Spread { max: 3.0, ..one }, number), "**2.00** (2.00 – 3.00)");
    }
}
