//! A plot of ratios as SVG: a bar for each row, with a tick at its goal.

use crate::measured::{Measured, Reading, three_digits};
use std::fmt::Write as _;

const ROW: usize = 26;
const TOP: usize = 12;
const BOTTOM: usize = 34;
/// The width of a character, more or less: nothing here knows the reader's fonts.
const CHARACTER: usize = 7;
const BARS: usize = 360;
const FIGURES: usize = 190;
const MET: &str = "#2f7d4f";
const MISSED: &str = "#b3452f";
const NEUTRAL: &str = "#5b6b7b";

/// The rows as a picture.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "pixels")]
pub fn of(rows: &[Measured]) -> String {
    let longest = rows.iter().map(|row| row.workload.chars().count()).max().unwrap_or(0);
    let left = longest * CHARACTER + 16;
    let (width, height) = (left + BARS + FIGURES, TOP + rows.len() * ROW + BOTTOM);
    // Quartiles of a busy machine may lie far out. They do not stretch the axis.
    let end = 1.1 * rows.iter().flat_map(|row| [row.ratio.median, row.reach.unwrap_or(0.0)]).fold(0.0, f64::max);
    let step = step(end);
    let x = |ratio: f64| left + ((ratio / end).min(1.0) * BARS as f64) as usize;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let bottom = TOP + rows.len() * ROW;
    let mut tick = 0.0;
    while tick <= end {
        let at = x(tick);
        line(&mut svg, [at, TOP, at, bottom], "#d9dee3", 1);
        text(&mut svg, at, bottom + 16, "middle", "#5b6b7b", &trimmed(tick));
        tick += step;
    }
    for (row, y) in rows.iter().zip((TOP..).step_by(ROW)) {
        let colour = row.is_met().map_or(NEUTRAL, |met| if met { MET } else { MISSED });
        let length = x(row.ratio.median) - left;
        text(&mut svg, left - 8, y + 17, "end", "#1f2933", &row.workload);
        writeln!(svg, "<rect x=\"{left}\" y=\"{}\" width=\"{length}\" height=\"14\" fill=\"{colour}\"/>", y + 6)
            .expect("a string");
        line(&mut svg, [x(row.ratio.low), y + 13, x(row.ratio.high), y + 13], "#1f2933", 1);
        if let Some(reach) = row.reach {
            line(&mut svg, [x(reach), y + 3, x(reach), y + 23], "#1f2933", 2);
        }
        let kind = if row.reading == Reading::Time { "× the time" } else { "× the speed" };
        let goal = if row.reach.is_some() { format!(" ({})", row.goal()) } else { String::new() };
        let figures = format!("{} {kind}{goal}", three_digits(row.ratio.median));
        text(&mut svg, left + BARS + 10, y + 17, "start", colour, &figures);
    }
    svg + "</svg>\n"
}

/// A round number that divides the axis into a handful of parts.
fn step(end: f64) -> f64 {
    let size = 10_f64.powf((end / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * size).find(|step| end / step <= 6.0).unwrap_or(end)
}

/// A number without zeros at its end.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [usize; 4], colour: &str, width: usize) {
    let ends = format!("x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"");
    writeln!(svg, "<line {ends} stroke=\"{colour}\" stroke-width=\"{width}\"/>").expect("a string");
}

fn text(svg: &mut String, x: usize, y: usize, anchor: &str, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>")
        .expect("a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_a_handful_of_round_ticks() {
        assert_eq!([0.9, 3.5, 12.0, 47.0].map(step), [0.2, 1.0, 2.0, 10.0]);
        assert_eq!([0.0, 0.2, 10.0, 2.5].map(trimmed), ["0", "0.2", "10", "2.5"]);
    }
}
