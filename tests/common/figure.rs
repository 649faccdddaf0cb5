//! A figure of the benchmark: measurements over one quantity, as a table and as a plot.
//!
//! Each line belongs to one server or one measured quantity. Each point of a line has the samples
//! of all rounds, and shows their median, minimum and maximum. Samples taken while other processes
//! kept the machine busy are omitted if at least half of the samples are quiet; otherwise all
//! count, and the point is marked `~`.

use std::fmt::Write;

use crate::plot::{Axis, Curve, Plot};

/// A figure with its samples.
pub struct Figure {
    /// The name of the files to which the figure is written, without their endings.
    pub name: &'static str,
    /// The first line of the heading: what the figure shows.
    pub title: String,
    /// The second line of the heading: how it was measured.
    pub subtitle: String,
    /// The quantity that the series varies.
    pub x: Axis,
    /// The quantity that is measured.
    pub y: Axis,
    /// Lines of text below the table, such as conclusions.
    pub notes: Vec<String>,
    /// Whether the table shows the ratio of the first line to each other line.
    pub compares: bool,
    lines: Vec<Line>,
}

struct Line {
    label: String,
    points: Vec<Point>,
}

struct Point {
    x: f64,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    value: f64,
    noisy: bool,
}

/// The statistics of the samples of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The smallest sample.
    pub low: f64,
    /// The median. For an even number of samples: the mean of the middle two.
    pub median: f64,
    /// The greatest sample.
    pub high: f64,
    /// Whether other processes kept the machine busy during most samples.
    pub noisy: bool,
}

impl Figure {
    /// A figure without samples.
    pub fn new(name: &'static str, [title, subtitle]: [&str; 2], x: Axis, y: Axis) -> Self {
        let (title, subtitle) = (title.to_owned(), subtitle.to_owned());
        Self { name, title, subtitle, x, y, notes: Vec::new(), compares: true, lines: Vec::new() }
    }

    /// Adds a sample to the line `label` at the position `x`. `noisy` says whether other processes
    /// kept the machine busy.
    pub fn add(&mut self, label: &str, x: f64, value: f64, noisy: bool) {
        let at = self.lines.iter().position(|line| line.label == label).unwrap_or_else(|| {
            self.lines.push(Line { label: label.to_owned(), points: Vec::new() });
            self.lines.len() - 1
        });
        let points = &mut self.lines[at].points;
        let at = points.iter().position(|point| point.x == x).unwrap_or_else(|| {
            points.push(Point { x, samples: Vec::new() });
            points.len() - 1
        });
        points[at].samples.push(Sample { value, noisy });
    }

    /// Whether the figure has no samples.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The statistics of one line at one point.
    pub fn summary(&self, label: &str, x: f64) -> Option<Summary> {
        let line = self.lines.iter().find(|line| line.label == label)?;
        line.points.iter().find(|point| point.x == x).map(|point| summarize(&point.samples))
    }

    /// The median over all rounds of the ratio of the first line to `other` at a point. In a round
    /// both have the same load.
    fn ratio(&self, other: &Line, x: f64) -> Option<f64> {
        let samples = |line: &Line| line.points.iter().find(|p| p.x == x).map(|p| p.samples.clone());
        let pairs = samples(self.lines.first()?)?.into_iter().zip(samples(other)?);
        let ratios = pairs.map(|(a, b)| Sample { value: a.value / b.value, noisy: a.noisy || b.noisy });
        Some(summarize(&ratios.collect::<Vec<_>>()).median)
    }

    /// The positions on the x axis of all points, in order.
    fn places(&self) -> Vec<f64> {
        let mut places: Vec<f64> = self.lines.iter().flat_map(|line| line.points.iter().map(|p| p.x)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        places
    }

    /// The figure as a table for human readers.
    pub fn table(&self) -> String {
        let mut head = vec![self.x.label.clone()];
        head.extend(self.lines.iter().map(|line| line.label.clone()));
        let others = self.lines.get(1..).filter(|_| self.compares).unwrap_or_default();
        head.extend(others.iter().map(|other| format!("{} : {}", self.lines[0].label, other.label)));
        let mut rows = vec![head];
        for x in self.places() {
            let mut row = vec![(self.x.show)(x)];
            row.extend(self.lines.iter().map(|line| {
                let summary = self.summary(&line.label, x);
                summary.map_or("-".to_owned(), |s| self.cell(s))
            }));
            row.extend(others.iter().map(|line| {
                let ratio = self.ratio(line, x).filter(|ratio| ratio.is_finite());
                ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
            }));
            rows.push(row);
        }
        let mut text = format!("{}\n{}\n{}: median (least - greatest)\n\n", self.title, self.subtitle, self.y.label);
        text.push_str(&columns(&rows));
        self.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
        text
    }

    fn cell(&self, s: Summary) -> String {
        let noisy = if s.noisy { "~" } else { "" };
        format!("{noisy}{} ({} - {})", plain(s.median), plain(s.low), plain(s.high))
    }

    /// The figure as tab-separated values for programs, one row for each sample.
    pub fn tsv(&self) -> String {
        let mut text = format!("{}\tline\tround\t{}\tnoisy\n", self.x.label, self.y.label);
        for line in &self.lines {
            for point in &line.points {
                for (round, sample) in point.samples.iter().enumerate() {
                    let noisy = u8::from(sample.noisy);
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{}\t{}\t{round}\t{}\t{noisy}", point.x, line.label, sample.value);
                }
            }
        }
        text
    }

    /// The figure as a plot. `footer` describes the machine.
    pub fn svg(&self, footer: &str) -> String {
        let curve = |line: &Line| {
            let mut points: Vec<_> = line.points.iter().map(|p| (p.x, summarize(&p.samples))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let points = points.into_iter().map(|(x, s)| [x, s.low, s.median, s.high]).collect();
            Curve { label: line.label.clone(), points }
        };
        let curves = self.lines.iter().map(curve).collect();
        Plot { title: &self.title, subtitle: &self.subtitle, footer, x: &self.x, y: &self.y, curves }.svg()
    }
}

fn summarize(samples: &[Sample]) -> Summary {
    let quiet: Vec<f64> = samples.iter().filter(|s| !s.noisy).map(|s| s.value).collect();
    let noisy = quiet.len() * 2 < samples.len();
    let mut values = if noisy { samples.iter().map(|s| s.value).collect() } else { quiet };
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let (last, half) = (values.len().saturating_sub(1), values.len() / 2);
    let median = if values.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) };
    Summary { low: at(0), median, high: at(last), noisy }
}

/// A number as text, with its significant digits only.
pub fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A whole number as text, with commas between thousands.
pub fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Aligns rows in columns: the first column to the left, the others to the right.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padded = if at == 0 { format!("{cell:<width$}") } else { format!("   {cell:>width$}") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
