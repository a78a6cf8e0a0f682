//! Bar charts as SVG: groups of bars with their spread, and a legend. Plain enough to be written by hand; a plotting
//! crate would bring more code than this and fonts of its own.

use std::fmt::Write as _;

use crate::statistics::Spread;

/// Bars that are compared with each other.
pub(crate) struct Group {
    pub(crate) label: String,
    /// Name of the series and its figure; a series has one colour in all groups.
    pub(crate) bars: Vec<(String, Spread)>,
}

/// Everything on one scale.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) groups: Vec<Group>,
}

/// In pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 70.0;
const BAR: f64 = 16.0;
const GAP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Told apart by people with any kind of colour vision (Okabe and Ito).
const COLOURS: [&str; 6] = [
    "#0072b2", "#56b4e9", "#e69f00", "#999999", "#009e73", "#cc79a7",
];

impl Chart {
    /// As an SVG document.
    pub(crate) fn svg(&self) -> String {
        let bars = self.groups.iter().map(|group| group.bars.len());
        let height = TOP + BOTTOM + bars.map(|bars| bars as f64 * BAR + GAP).sum::<f64>();
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"20\" y=\"26\" font-size=\"16\">{}</text>\n",
            escape(&self.title)
        );
        let series = self.series();
        legend(&mut text, &series);
        self.grid(&mut text, height);
        let mut y = TOP;
        for group in &self.groups {
            self.group(&mut text, group, &series, y);
            y += group.bars.len() as f64 * BAR + GAP;
        }
        text += "</svg>\n";
        text
    }

    /// In the order of their first bars.
    fn series(&self) -> Vec<&str> {
        let mut series = Vec::new();
        for (name, _) in self.groups.iter().flat_map(|group| &group.bars) {
            if !series.contains(&name.as_str()) {
                series.push(name.as_str());
            }
        }
        series
    }

    /// The end of the scale, and the distance between its lines: 1, 2 or 5 times a power of ten.
    fn scale(&self) -> (f64, f64) {
        let spreads = self.groups.iter().flat_map(|group| &group.bars);
        let highest = spreads.map(|(_, spread)| spread.max).fold(1e-9, f64::max);
        let rough = highest / 6.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        ((highest / step).ceil() * step, step)
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.scale().0 * (WIDTH - LEFT - RIGHT)
    }

    fn grid(&self, text: &mut String, height: f64) {
        let (end, step) = self.scale();
        let bottom = height - BOTTOM;
        for line in 0..=(end / step).round() as usize {
            let value = line as f64 * step;
            let x = self.x(value);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                bottom + 16.0,
                short(value)
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            WIDTH - 10.0,
            bottom + 32.0,
            escape(self.unit)
        );
    }

    fn group(&self, text: &mut String, group: &Group, series: &[&str], y: f64) {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            escape(&group.label)
        );
        for (index, (name, spread)) in group.bars.iter().enumerate() {
            let top = y + index as f64 * BAR;
            let number = series.iter().position(|known| known == name);
            let colour = COLOURS[number.unwrap_or_default() % COLOURS.len()];
            let [start, end] = [0.0, spread.median].map(|value| self.x(value));
            let [low, high] = [spread.min, spread.max].map(|value| self.x(value));
            let centre = top + BAR / 2.0 - 1.0;
            let _ = writeln!(
                text,
                "<rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <line x1=\"{low:.1}\" y1=\"{centre:.1}\" x2=\"{high:.1}\" y2=\"{centre:.1}\" stroke=\"black\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{}</text>",
                end - start,
                BAR - 2.0,
                high.max(end) + 5.0,
                centre + 4.0,
                short(spread.median)
            );
        }
    }
}

fn legend(text: &mut String, series: &[&str]) {
    let mut x = 20.0;
    for (index, name) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"40\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"50\">{}</text>",
            x + 17.0,
            escape(name)
        );
        x += 40.0 + 7.5 * name.chars().count() as f64;
    }
}

/// Three digits are more than a figure is worth.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let bars = values.iter().enumerate();
        Chart {
            title: "a < b".to_owned(),
            unit: "Gbit/s",
            groups: vec![Group {
                label: "TCP".to_owned(),
                bars: bars
                    .map(|(index, value)| {
                        (format!("series {index}"), Spread::of([*value]).unwrap())
                    })
                    .collect(),
            }],
        }
    }

    #[test]
    fn the_scale_ends_at_a_round_number_beyond_the_longest_bar() {
        assert_eq!(chart(&[0.7, 4.3]).scale(), (5.0, 1.0));
        assert_eq!(chart(&[33.0]).scale(), (40.0, 10.0));
    }

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let chart = chart(&[2.5, 5.0]);
        let width = |value| chart.x(value) - chart.x(0.0);
        assert!((2.0 * width(2.5) - width(5.0)).abs() < 1e-9);
        let svg = chart.svg();
        assert_eq!(svg.matches("fill=\"#0072b2\"").count(), 2, "bar and legend");
        assert!(svg.contains("a &lt; b"));
    }
}
