//! The tables and plots of `make bench`, made from fixed samples. Only `make bench ARGS=smoke`
//! tests the measurements themselves.

use common::figure::{Figure, columns, plain, whole};
use common::plot::{Axis, Scale};

fn axis(scale: Scale) -> Axis {
    Axis { label: "x & <y>".to_owned(), scale, show: plain }
}

fn figure(scales: [Scale; 2], samples: &[(&str, f64, f64, bool)]) -> Figure {
    let mut figure = Figure::new("name", ["Title", "how"], axis(scales[0]), axis(scales[1]));
    samples.iter().for_each(|&(label, x, value, noisy)| figure.add(label, x, value, noisy));
    figure
}

#[test]
fn a_point_has_median_minimum_and_maximum_of_the_quiet_samples() {
    for (samples, wanted) in [
        (&[(3.0, false)][..], (3.0, 3.0, 3.0, false)),
        (&[(9.0, false), (1.0, false), (2.0, false)], (1.0, 2.0, 9.0, false)),
        (&[(1.0, false), (2.0, false), (4.0, false), (9.0, false)], (1.0, 3.0, 9.0, false)),
        (&[(1.0, true), (5.0, false), (7.0, false)], (5.0, 6.0, 7.0, false)),
        (&[(1.0, true), (5.0, false)], (5.0, 5.0, 5.0, false)),
        (&[(1.0, true), (2.0, true), (7.0, false)], (1.0, 2.0, 7.0, true)),
    ] {
        let named: Vec<_> = samples.iter().map(|&(value, noisy)| ("a", 1.0, value, noisy)).collect();
        let summary = figure([Scale::Linear; 2], &named).summary("a", 1.0).expect("there are samples");
        assert_eq!((summary.low, summary.median, summary.high, summary.noisy), wanted, "{samples:?}");
    }
}

#[test]
fn a_ratio_is_the_median_of_the_ratios_within_rounds() {
    // The two lines have the same median; yet the first was twice as fast in two rounds of three.
    let rounds = [(2.0, 1.0), (4.0, 2.0), (1.0, 4.0)];
    let samples = rounds.iter().flat_map(|&(a, b)| [("a", 1.0, a, false), ("b", 1.0, b, false)]);
    let table = figure([Scale::Linear; 2], &samples.collect::<Vec<_>>()).table();
    let last = table.lines().last().expect("a row");
    assert!(last.starts_with('1') && last.ends_with("   2.00"), "{table}");
}

#[test]
fn a_point_that_only_one_line_has_is_a_dash_for_the_other() {
    let table = figure([Scale::Log; 2], &[("a", 0.0, 1.0, true), ("b", 10.0, 2.0, false)]).table();
    let rows: Vec<Vec<&str>> =
        table.lines().rev().take(2).map(|row| row.split("   ").map(str::trim).collect()).collect();
    let cells = |row: &[&str]| row.iter().filter(|cell| !cell.is_empty()).map(|c| (*c).to_owned()).collect::<Vec<_>>();
    assert_eq!(cells(&rows[1]), ["0", "~1.00 (1.00 - 1.00)", "-", "-"]);
    assert_eq!(cells(&rows[0]), ["10.0", "-", "2.00 (2.00 - 2.00)", "-"]);
}

#[test]
fn all_samples_are_in_the_tsv() {
    let tsv = figure([Scale::Log; 2], &[("a", 1.0, 2.5, false), ("a", 1.0, 3.5, true)]).tsv();
    assert_eq!(tsv, "x & <y>\tline\tround\tx & <y>\tnoisy\n1\ta\t0\t2.5\t0\n1\ta\t1\t3.5\t1\n");
}

#[test]
fn numbers_are_formatted_for_people() {
    for (value, text) in [(0.0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")] {
        assert_eq!(plain(value), text);
    }
    for (value, text) in [(0.0, "0"), (100.0, "100"), (1000.0, "1,000"), (1_000_000.0, "1,000,000")] {
        assert_eq!(whole(value), text);
    }
    let rows = [["x", "aa"], ["yyy", "b"]].map(|row| row.map(str::to_owned).to_vec());
    assert_eq!(columns(&rows), "x     aa\nyyy    b\n");
}

/// The values of an attribute, such as `x`, in all elements of a plot.
fn attributes(svg: &str, name: &str) -> Vec<f64> {
    let start = format!(" {name}=\"");
    let parts = svg.split(&start).skip(1).filter_map(|part| part.split('"').next());
    parts.filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn every_value_is_inside_the_plot() {
    let scales = [Scale::Linear, Scale::Log];
    for x in scales {
        for y in scales {
            let tables: &[&[(&str, f64, f64, bool)]] = &[
                &[],
                &[("a", 0.0, 0.0, false)],
                &[("a", 1.0, 1.0, false)],
                &[("a", 0.0, 3.0, false), ("a", 1.0, 0.0, false), ("b", 1e6, 1e9, false)],
                &[("a", 1.0, f64::NAN, false), ("b", 1.0, f64::INFINITY, false), ("c", 2.0, 1e-6, true)],
            ];
            for samples in tables {
                let svg = figure([x, y], samples).svg("a < b");
                for (names, edge) in [(["x", "cx", "x1", "x2"], 760.0), (["y", "cy", "y1", "y2"], 440.0)] {
                    let values = names.iter().flat_map(|name| attributes(&svg, name));
                    values.for_each(|value| assert!((0.0..=edge).contains(&value), "{value} {x:?} {y:?} {samples:?}"));
                }
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains("a &lt; b") && svg.contains("x &amp; &lt;y&gt;"), "{svg}");
            }
        }
    }
}

#[test]
fn zero_comes_before_the_minimum_on_a_logarithmic_axis() {
    let samples = [("a", 0.0, 1.0, false), ("a", 10.0, 1.0, false), ("a", 1000.0, 1.0, false)];
    let places = attributes(&figure([Scale::Log, Scale::Linear], &samples).svg(""), "cx");
    assert!(places[0] < places[1] && places[1] < places[2], "{places:?}");
    // On a logarithmic axis zero is one step of ten below the smallest other value.
    assert!((places[1] - places[0] - (places[2] - places[1]) / 2.0).abs() < 0.2, "{places:?}");
}
