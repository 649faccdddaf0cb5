//! Draws charts in SVG: bars by hour, a list of bars, and a bar of several parts.
//!
//! Numbers and names stand beside the charts as text, so that a chart can be stretched to any width,
//! and so that a page is complete without pictures. Colours come from the style sheet.

use super::html::Html;

/// The width of an hour's bar with its gap.
const STEP: usize = 10;
/// The height of a chart.
const HEIGHT: u64 = 100;

/// Draws a bar for each value. Each value has the text that is shown when the pointer is on the bar.
/// `label` describes the chart for screen readers.
pub fn bars(html: &mut Html, label: &str, values: &[(String, u64)]) {
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or_default().max(1);
    html.raw("<svg class=\"chart\" role=\"img\" preserveAspectRatio=\"none\"").attribute("aria-label", label);
    html.attribute("viewBox", format_args!("0 0 {} {HEIGHT}", STEP * values.len().max(1))).raw(">");
    for (at, (title, value)) in values.iter().enumerate() {
        let height = scaled(*value, most, HEIGHT);
        html.raw("<g><rect class=\"back\" y=\"0\"").attribute("x", at * STEP);
        html.attribute("width", STEP).attribute("height", HEIGHT).raw("/><rect").attribute("x", at * STEP + 1);
        html.attribute("y", HEIGHT - height).attribute("width", STEP - 2).attribute("height", height);
        html.element("/><title>", title, "</title></g>");
    }
    html.raw("</svg>");
}

/// Draws a single bar, whose length is `value` of `most`.
pub fn bar(html: &mut Html, value: u64, most: u64) {
    html.raw("<svg class=\"bar\" aria-hidden=\"true\" preserveAspectRatio=\"none\" viewBox=\"0 0 100 10\">");
    html.raw("<rect height=\"10\"").attribute("width", scaled(value, most.max(1), 100)).raw("/></svg>");
}

/// Draws a bar of parts, one after the other. Its length is the sum of `parts` of `most`.
pub fn parts(html: &mut Html, parts: &[usize], most: usize) {
    html.raw("<svg class=\"bar\" aria-hidden=\"true\" preserveAspectRatio=\"none\" viewBox=\"0 0 1000 10\">");
    let (mut before, most) = (0_u64, most.max(1) as u64);
    for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
        let start = scaled(before, most, 1000);
        before = before.saturating_add(*part as u64);
        let width = scaled(before, most, 1000).saturating_sub(start).max(1);
        html.raw("<rect height=\"10\"").attribute("class", format_args!("age{at}"));
        html.attribute("x", start).attribute("width", width).raw("/>");
    }
    html.raw("</svg>");
}

/// Returns `value` of `most`, in parts of `full`. A value that is not zero is visible.
fn scaled(value: u64, most: u64, full: u64) -> u64 {
    let length = u128::from(value.min(most)) * u128::from(full) / u128::from(most.max(1));
    let length = u64::try_from(length).unwrap_or(full);
    if value > 0 { length.max(full / 50) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_inside_the_chart_and_small_values_are_visible() {
        for (value, most, expected) in
            [(0, 5, 0), (5, 5, 100), (1, 1_000_000, 2), (u64::MAX, u64::MAX, 100), (9, 3, 100), (1, 0, 2)]
        {
            assert_eq!(scaled(value, most, 100), expected, "{value} of {most}");
        }
        let mut html = Html::default();
        bars(&mut html, "a <chart>", &[("1: 0".into(), 0), ("2: 7".into(), 7)]);
        bars(&mut html, "nothing", &[]);
        parts(&mut html, &[3, 0, 1], 8);
        let text = html.into_text();
        for part in [
            "aria-label=\"a &lt;chart&gt;\" viewBox=\"0 0 20 100\"",
            "<rect x=\"11\" y=\"0\" width=\"8\" height=\"100\"/><title>2: 7</title>",
            "<rect x=\"1\" y=\"100\" width=\"8\" height=\"0\"/>",
            "viewBox=\"0 0 10 100\"></svg>",
            "class=\"age0\" x=\"0\" width=\"375\"/>",
            "class=\"age2\" x=\"375\" width=\"125\"/>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
