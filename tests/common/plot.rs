//! Draws plots in SVG: curves with their minimum and maximum over one axis.
//!
//! A plot is one small file with its own background, without scripts and without fonts of its own.
//! Axes are linear from zero or logarithmic; on a logarithmic axis zero is one step before the
//! smallest other value. Each curve is named at its end. Values that are not numbers are omitted.

use std::fmt::Write;

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Linear, from zero up.
    Linear,
    /// Logarithmic, by powers of ten.
    Log,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The name of the quantity, with its unit.
    pub label: String,
    /// The scale.
    pub scale: Scale,
    /// The function that returns the text for a value.
    pub show: fn(f64) -> String,
}

/// A curve with the range of its values.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The name of the curve.
    pub label: String,
    /// The points in the order of x, each with x, minimum, median and maximum.
    pub points: Vec<[f64; 4]>,
}

/// The content of a plot.
pub struct Plot<'a> {
    /// The first line at the top.
    pub title: &'a str,
    /// The second line.
    pub subtitle: &'a str,
    /// The line at the bottom.
    pub footer: &'a str,
    /// The horizontal axis, which is marked at the points of the curves.
    pub x: &'a Axis,
    /// The vertical axis, which is marked at round values.
    pub y: &'a Axis,
    /// The curves, the most important one first.
    pub curves: Vec<Curve>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 364.0;
/// Colours that are readable on the background and distinguishable without colour vision.
const COLOURS: [&str; 4] = ["#c4161c", "#1f5fa8", "#6b7280", "#2f7d4f"];
const DASHES: [&str; 4] = ["none", "none", "6 4", "2 3"];
/// The least vertical distance between the names of two curves, in pixels.
const NAME_STEP: f64 = 17.0;

impl Plot<'_> {
    /// The plot as the text of an SVG file.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#374151\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fcfcfa\"/>\n"
        );
        text(&mut svg, LEFT - 52.0, 26.0, "font-size=\"16\" font-weight=\"bold\" fill=\"#111827\"", self.title);
        text(&mut svg, LEFT - 52.0, 46.0, "", &format!("{}; {}", self.y.label, self.subtitle));
        text(&mut svg, LEFT - 52.0, HEIGHT - 10.0, "font-size=\"10\" fill=\"#6b7280\"", self.footer);
        let across = Span::of(self.x.scale, self.values(&[0]), (LEFT + 14.0, RIGHT - 14.0));
        let up = Span::of(self.y.scale, self.values(&[1, 2, 3]), (BOTTOM, TOP + 10.0));
        self.grid(&mut svg, &across, &up);
        for (number, curve) in self.curves.iter().enumerate() {
            draw(&mut svg, curve, number % COLOURS.len(), &across, &up);
        }
        self.names(&mut svg, &across, &up);
        svg.push_str("</svg>\n");
        svg
    }

    /// The values of all points of all curves. `at` selects from x, minimum, median and maximum, by
    /// position.
    fn values(&self, at: &[usize]) -> Vec<f64> {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        points.flat_map(|point| at.iter().map(|&at| point[at])).filter(|value| value.is_finite()).collect()
    }

    fn grid(&self, svg: &mut String, across: &Span, up: &Span) {
        for value in up.round_values() {
            let y = up.place(value);
            line(svg, (LEFT, y), (RIGHT, y), "stroke=\"#e5e7eb\"");
            text(svg, LEFT - 8.0, y + 4.0, "text-anchor=\"end\"", &round(value));
        }
        line(svg, (LEFT, BOTTOM), (RIGHT, BOTTOM), "stroke=\"#9ca3af\"");
        let mut values = self.values(&[0]);
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut free = f64::MIN;
        for value in values {
            let x = across.place(value);
            line(svg, (x, BOTTOM), (x, BOTTOM + 5.0), "stroke=\"#9ca3af\"");
            let name = (self.x.show)(value);
            let half = 3.6 * name.len() as f64;
            if x - half > free {
                text(svg, x, BOTTOM + 20.0, "text-anchor=\"middle\"", &name);
                free = x + half;
            }
        }
        text(svg, f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0, "text-anchor=\"middle\"", &self.x.label);
    }

    /// Draws the name of each curve at the curve's end, moved up or down where two names would
    /// overlap.
    fn names(&self, svg: &mut String, across: &Span, up: &Span) {
        let end = |curve: &Curve| curve.points.iter().rfind(|point| is_drawn(point)).copied();
        let named = |(number, curve)| end(curve).map(|p| (up.place(p[2]), across.place(p[0]), number));
        let mut names: Vec<_> = self.curves.iter().enumerate().filter_map(named).collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut least = f64::MIN;
        for (y, ..) in &mut names {
            *y = y.max(least);
            least = *y + NAME_STEP;
        }
        let mut most = BOTTOM;
        for (y, x, number) in names.into_iter().rev() {
            let y = y.min(most);
            most = y - NAME_STEP;
            let style = format!("fill=\"{}\" font-weight=\"bold\"", COLOURS[number % COLOURS.len()]);
            text(svg, x + 14.0, y + 4.0, &style, &self.curves[number].label);
        }
    }
}

/// The mapping from the values of an axis to coordinates.
struct Span {
    scale: Scale,
    /// The smallest and the greatest value of the axis. On a logarithmic axis: their logarithms.
    range: (f64, f64),
    /// The smallest value above zero.
    least: f64,
    paper: (f64, f64),
}

impl Span {
    fn of(scale: Scale, values: Vec<f64>, paper: (f64, f64)) -> Self {
        let greatest = values.iter().copied().reduce(f64::max).filter(|v| *v > 0.0).unwrap_or(1.0);
        let least = values.iter().copied().filter(|v| *v > 0.0).fold(greatest, f64::min);
        let mut span = Self { scale, range: (0.0, greatest * 1.03), least, paper };
        if scale == Scale::Log {
            let first = if values.iter().any(|v| *v <= 0.0) { span.logarithm(0.0) } else { least.log10() };
            let last = greatest.log10().max(first + 0.3);
            let slack = (last - first) / 25.0;
            span.range = (first - slack, last + slack);
        }
        span
    }

    /// The logarithm of a value. For zero: one less than that of the smallest other value.
    fn logarithm(&self, value: f64) -> f64 {
        if value > 0.0 { value.log10() } else { self.least.log10() - 1.0 }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Log { self.logarithm(value) } else { value };
        let part = (value - self.range.0) / (self.range.1 - self.range.0);
        self.paper.0 + part * (self.paper.1 - self.paper.0)
    }

    /// Three to eight round values to mark on the axis.
    fn round_values(&self) -> Vec<f64> {
        let (first, last) = self.range;
        if self.scale == Scale::Linear {
            let rough = last / 7.0;
            let power = 10_f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            return (0..=(last / step) as u32).map(|n| f64::from(n) * step).collect();
        }
        let (low, high) = (10_f64.powf(first), 10_f64.powf(last));
        let factors: &[f64] = if last - first > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (first.floor() as i32)..=(last.ceil() as i32);
        let values = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
        values.filter(|value| *value >= low * 0.999 && *value <= high * 1.001).collect()
    }
}

fn draw(svg: &mut String, curve: &Curve, style: usize, across: &Span, up: &Span) {
    let (colour, dash) = (COLOURS[style], DASHES[style]);
    let points: Vec<_> = curve.points.iter().filter(|point| is_drawn(point)).collect();
    let path: Vec<_> = points.iter().map(|p| format!("{:.1},{:.1}", across.place(p[0]), up.place(p[2]))).collect();
    let path = path.join(" ");
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
    );
    // The bars of each curve are shifted a little, so that those of two curves do not cover each
    // other.
    let beside = style as f64 * 2.0 - 2.0;
    for point in points {
        let (x, low, middle, high) =
            (across.place(point[0]), up.place(point[1]), up.place(point[2]), up.place(point[3]));
        let stroke = format!("stroke=\"{colour}\" stroke-opacity=\"0.55\"");
        line(svg, (x + beside, low), (x + beside, high), &stroke);
        [low, high].iter().for_each(|&y| line(svg, (x + beside - 3.0, y), (x + beside + 3.0, y), &stroke));
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3.2\" fill=\"{colour}\"/>");
    }
}

fn is_drawn(point: &[f64; 4]) -> bool {
    point.iter().all(|value| value.is_finite())
}

/// The text of a round value, without floating-point errors.
fn round(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>");
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>");
}
