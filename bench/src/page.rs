//! The page `docs/benchmarks.md` with its plots and raw samples.
//!
//! Raw samples are the source: scenarios that were not run this time are kept from the file that is there, and the
//! page is written anew from all of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::plot::{self, Row};
use crate::proxies::Variant;
use crate::report;
use crate::sample::{Place, Series};
use crate::scenario::{self, Bar, Spec};

const METHOD: &str = include_str!("method.md");

/// Writes the page to `file`, the rest into the folder `bench` beside it.
pub(crate) fn write(file: &Path, new: Vec<Series>) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("")).join("bench");
    fs::create_dir_all(&dir)?;
    let raw = dir.join("raw.json");
    let mut all = match fs::read_to_string(&raw) {
        Ok(text) => {
            serde_json::from_str(&text).with_context(|| format!("{} is not readable", raw.display()))?
        }
        Err(_) => Vec::new(),
    };
    all.retain(|old: &Series| new.iter().all(|new| new.scenario != old.scenario));
    all.extend(new);
    all.sort_by_key(|series| scenario::all().position(|spec| spec.slug == series.scenario));
    fs::write(&raw, serde_json::to_string_pretty(&all)? + "\n")?;
    let spec_of = |series: &Series| scenario::all().find(|spec| spec.slug == series.scenario);
    let measured: Vec<(&Spec, &Series)> =
        all.iter().filter_map(|series| Some((spec_of(series)?, series))).collect();
    for (spec, series) in &measured {
        fs::write(dir.join(format!("{}.svg", spec.slug)), chart(spec, series))?;
    }
    Ok(fs::write(file, page(&measured))?)
}

fn page(measured: &[(&Spec, &Series)]) -> String {
    let mut text = format!("{METHOD}\n## Overview\n\n{}", report::overview(measured));
    let Some((_, first)) = measured.first() else { return text };
    if measured.iter().all(|(_, series)| series.place == first.place) {
        text.push_str(&format!("\nMeasured {}.\n", place(&first.place)));
    }
    for (spec, series) in measured {
        text.push_str(&format!("\n## {}\n\n{}\n\n", spec.title, spec.what));
        text.push_str(&report::table(spec, series));
        if series.place != first.place || measured.iter().any(|(_, other)| other.place != first.place) {
            text.push_str(&format!("\nMeasured {}.\n", place(&series.place)));
        }
        text.push_str(&format!("\n![{}](bench/{}.svg)\n", spec.title, spec.slug));
    }
    text
}

fn place(place: &Place) -> String {
    let twice = [Variant::Plain, Variant::Relay, Variant::Direct];
    let versions = place.versions.iter().filter(|(variant, _)| !twice.contains(variant));
    let versions: Vec<_> =
        versions.map(|(variant, version)| format!("{} {version}", variant.name())).collect();
    let (date, rounds, kernel, cpu) = (&place.date, place.rounds, &place.kernel, &place.cpu);
    format!("on {date}, rounds: {rounds}, {kernel}, {cpu}; {}", versions.join(", "))
}

fn chart(spec: &Spec, series: &Series) -> String {
    let summaries = series.summaries(spec);
    let row = |ours| move |(name, figure)| Row { name, figure, ours };
    let rows: Vec<Row> = summaries
        .iter()
        .filter_map(|summary| {
            Some(row(summary.variant == Variant::Wmproxy)((summary.variant.name(), summary.figure?)))
        })
        .collect();
    // The first bar is drawn; the table tells of the others.
    let name = match spec.bars[0] {
        Bar::Times(rival, factor) => format!("{factor} × {}", rival.name()),
        Bar::AtMost(_) => "bar".to_owned(),
    };
    let limit = report::limit(&spec.bars[0], &summaries).map(|limit| (limit, name.as_str()));
    plot::bars(spec.title, spec.figure, &rows, limit)
}
