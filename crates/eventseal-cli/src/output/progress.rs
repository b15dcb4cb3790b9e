//! Shows the progress of long work: a bar on a terminal, and a line now and then elsewhere.

use super::{number, shown};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// Prints to standard error, and prints nothing with JSON.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// How often a line is printed. `None` means never.
    every: Option<Duration>,
    unit: &'static str,
    start: Instant,
    last_line: Instant,
}

impl Progress {
    pub(crate) fn new(json: bool, every: u32, unit: &'static str) -> Self {
        let on_terminal = !json && std::io::stderr().is_terminal();
        let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(unit);
        let bar = match ProgressStyle::with_template("{bar:20} {human_pos}/{human_len} {msg}, {rate}, {eta} left") {
            Ok(style) => bar.with_style(style.with_key("rate", |state: &ProgressState, to: &mut dyn Write| {
                let _ = to.write_str(&rate(state.pos(), state.elapsed()));
            })),
            Err(_) => bar,
        };
        let every = (!on_terminal && !json).then(|| Duration::from_secs(every.into()));
        Self { bar, every, unit, start: Instant::now(), last_line: Instant::now() }
    }

    /// Says that `done` of `all` units are done.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done);
        if self.every.is_some_and(|every| self.last_line.elapsed() >= every) {
            self.last_line = Instant::now();
            let line = format!(
                "{} of {} {}, {}\n",
                number(done),
                number(all),
                shown(self.unit),
                rate(done, self.start.elapsed())
            );
            // If standard error is closed, the report at the end still tells it.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    /// Says that another unit is counted from now on.
    pub(crate) fn count_in(&mut self, unit: &'static str) {
        if unit != self.unit {
            self.unit = unit;
            self.start = Instant::now();
            self.bar.set_message(unit);
            self.bar.reset();
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A rate in a unit in which it is at least 1: `12,300/s`, `7/min`, `2/h`.
pub(crate) fn rate(done: u64, took: Duration) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate to look at"
    )]
    let per = |seconds: f64| (done as f64 * seconds / took.as_secs_f64().max(0.001)).round() as u64;
    let (number_of, unit) = [(per(1.0), "s"), (per(60.0), "min"), (per(3_600.0), "h")]
        .into_iter()
        .find(|(number, _)| *number >= 1)
        .unwrap_or((0, "s"));
    format!("{}/{unit}", number(three_digits(number_of)))
}

/// Rounds a number down to its three highest digits, because a rate needs no more.
fn three_digits(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(2));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_readable() {
        for (done, seconds, expected) in [
            (0, 0.0, "0/s"),
            (0, 9.0, "0/s"),
            (1_234_567, 100.0, "12,300/s"),
            (999, 1.0, "999/s"),
            (500, 0.0, "500,000/s"),
            (12, 600.0, "1/min"),
            (1, 1_800.0, "2/h"),
            (1, 1e9, "0/s"),
            (u64::MAX, 1.0, "18,400,000,000,000,000,000/s"),
        ] {
            assert_eq!(rate(done, Duration::from_secs_f64(seconds)), expected, "{done} in {seconds} s");
        }
    }
}
