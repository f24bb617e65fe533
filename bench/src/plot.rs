//! Bar charts as SVG: a bar for each proxy, whiskers for the spread of its rounds, a dashed line for the bar to meet.

use std::fmt::Write;

use crate::sample::Spread;

const WIDTH: f64 = 720.0;
/// Where the bars begin, right of the names.
const LEFT: f64 = 90.0;
/// Room for the figure behind the longest bar.
const RIGHT: f64 = 70.0;
const TOP: f64 = 52.0;
const ROW: f64 = 34.0;
const BAR: f64 = 20.0;
const BOTTOM: f64 = 30.0;

/// One row of a chart.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) figure: Spread,
    /// Whether it is ours, which is drawn in the stronger colour.
    pub(crate) ours: bool,
}

/// Draws `rows`; `limit` is a figure and what to call it.
pub(crate) fn bars(title: &str, unit: &str, rows: &[Row], limit: Option<(f64, &str)>) -> String {
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let longest = rows.iter().map(|row| row.figure.max).chain(limit.map(|limit| limit.0)).fold(0.0, f64::max);
    let x =
        |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (value / longest.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\" role=\"img\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, (12.0, 20.0), "start", "font-size=\"15\" font-weight=\"600\"", title);
    text(&mut svg, (12.0, 38.0), "start", "fill=\"#666\"", &format!("{unit}; less is better"));
    for (index, row) in rows.iter().enumerate() {
        let top = TOP + ROW * index as f64 + (ROW - BAR) / 2.0;
        let middle = top + BAR / 2.0;
        text(&mut svg, (LEFT - 8.0, middle + 4.5), "end", "", row.name);
        let colour = if row.ours { "#2563a8" } else { "#a9b4c0" };
        let length = x(row.figure.median) - LEFT;
        push(
            &mut svg,
            format_args!(
                "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
            ),
        );
        let (from, to) = (x(row.figure.min), x(row.figure.max));
        let (upper, lower) = (middle - 5.0, middle + 5.0);
        push(
            &mut svg,
            format_args!(
                "<path d=\"M{from:.1} {upper:.1}V{lower:.1}M{from:.1} {middle:.1}H{to:.1}M{to:.1} {upper:.1}V{lower:.1}\" stroke=\"#222\" fill=\"none\"/>"
            ),
        );
        text(&mut svg, (to + 8.0, middle + 4.5), "start", "", &figure(row.figure.median));
    }
    if let Some((value, name)) = limit {
        let (at, end) = (x(value), height - BOTTOM + 4.0);
        push(
            &mut svg,
            format_args!(
                "<path d=\"M{at:.1} {TOP}V{end:.1}\" stroke=\"#c2410c\" stroke-dasharray=\"5 4\" fill=\"none\"/>"
            ),
        );
        let anchor = if at > WIDTH / 2.0 { "end" } else { "start" };
        text(
            &mut svg,
            (at, height - 10.0),
            anchor,
            "fill=\"#c2410c\"",
            &format!("{name}: {}", figure(value)),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    push(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>"),
    );
}

fn push(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(svg, "{line}");
}

fn figure(value: f64) -> String {
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_words_are_escaped() {
        let spread = |median| Spread { median, min: median, max: median };
        let rows = [
            Row { name: "a<b", figure: spread(5.0), ours: true },
            Row { name: "c", figure: spread(10.0), ours: false },
        ];
        let svg = bars("title", "s", &rows, Some((5.0, "bar")));
        assert!(svg.contains("a&lt;b"));
        let full = WIDTH - LEFT - RIGHT;
        assert!(svg.contains(&format!("width=\"{full:.1}\"")));
        assert!(svg.contains(&format!("width=\"{:.1}\"", full / 2.0)));
    }
}
