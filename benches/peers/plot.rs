//! Horizontal bars as SVG, readable on light and dark ground, by hand: it is a few rectangles.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LABEL: f64 = 150.0;
/// Room behind the longest bar for its figure.
const FIGURE: f64 = 70.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const TITLE: f64 = 30.0;

/// Bars that are compared with each other: the longest fills the width.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<(String, f64)>,
}

/// The picture.
pub(crate) fn bars(title: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 36.0 + groups.len() as f64 * (TITLE + 8.0) + rows as f64 * STEP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         role=\"img\" aria-label=\"{title}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <style>text {{ fill: #333 }} .other {{ fill: #8a94a3 }} .ours {{ fill: #d9822b }} \
         .floor {{ fill: #b8c0cc }}\n@media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} }}\
         </style>\n<text x=\"0\" y=\"18\" font-size=\"15\" font-weight=\"600\">{title}</text>\n"
    );
    let mut y = 36.0;
    for group in groups {
        y += TITLE;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\" font-weight=\"600\">{}</text>",
            y - 8.0,
            group.title
        );
        let longest = group.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (label, value) in &group.bars {
            let width = (value / longest * (WIDTH - LABEL - FIGURE)).max(1.0);
            let class = match label.as_str() {
                "floor" => "floor",
                label if label.starts_with("Fanlight") => "ours",
                _ => "other",
            };
            let text = y + BAR - 3.5;
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{label}</text>\
                 <rect class=\"{class}\" x=\"{LABEL}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\"/>\
                 <text x=\"{:.1}\" y=\"{text}\">{value:.2}</text>",
                LABEL - 8.0,
                LABEL + width + 6.0,
            );
            y += STEP;
        }
        y += 8.0;
    }
    svg.push_str("</svg>\n");
    svg
}
