//! What came of a measurement: a row, with its ratio to what stands beside it, and the goal of that ratio.

use crate::bench::{Series, Spread};
use serde::{Deserialize, Serialize};

/// What a subject found out.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Measured>,
    /// Sentences for below the table.
    pub notes: Vec<String>,
    /// Texts that are shown as they are, with what they are.
    pub texts: Vec<(String, String)>,
}

impl Report {
    pub fn of(rows: impl Into<Vec<Measured>>) -> Self {
        Self { rows: rows.into(), ..Self::default() }
    }
}

/// How a ratio is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// How many times as long it takes: less is better.
    Time,
    /// How many times as fast it is: more is better.
    Speed,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was done.
    pub workload: String,
    /// How long one piece took, in seconds. The median.
    pub seconds: f64,
    /// What it is compared with.
    pub beside: String,
    pub beside_seconds: f64,
    pub reading: Reading,
    pub ratio: Spread,
    /// The goal of the ratio, if there is one.
    pub reach: Option<f64>,
    pub rounds: usize,
}

impl Measured {
    /// A row that says how many times as long as the other way it takes.
    pub fn time(workload: impl Into<String>, took: &Series, beside: impl Into<String>, other: &Series) -> Self {
        Self {
            workload: workload.into(),
            seconds: took.median(),
            beside: beside.into(),
            beside_seconds: other.median(),
            reading: Reading::Time,
            ratio: took.over(other),
            reach: None,
            rounds: took.rounds(),
        }
    }

    /// A row that says how many times as fast as the other way it is.
    pub fn speed(workload: impl Into<String>, took: &Series, beside: impl Into<String>, other: &Series) -> Self {
        let ratio = other.over(took);
        Self { reading: Reading::Speed, ratio, ..Self::time(workload, took, beside, other) }
    }

    /// The goal: at most this for a time, at least this for a speed.
    pub fn reach(self, reach: f64) -> Self {
        Self { reach: Some(reach), ..self }
    }

    /// The goal, if there is one.
    pub fn reach_if(self, reach: Option<f64>) -> Self {
        Self { reach, ..self }
    }

    /// Whether the goal was met, if there is one.
    pub fn is_met(&self) -> Option<bool> {
        self.reach.map(|reach| match self.reading {
            Reading::Time => self.ratio.median <= reach,
            Reading::Speed => self.ratio.median >= reach,
        })
    }

    /// The goal in words.
    pub fn goal(&self) -> String {
        let sign = if self.reading == Reading::Time { '≤' } else { '≥' };
        self.reach.map(|reach| format!("{sign} {reach}")).unwrap_or_default()
    }

    /// Whether the goal was met, in a word.
    pub fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }
}

/// A time with three digits, in the unit that fits.
pub fn time_of(seconds: f64) -> String {
    let units = [("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)];
    let (unit, factor) = units.into_iter().find(|(_, factor)| seconds * factor >= 1.0).unwrap_or(("ns", 1e9));
    format!("{} {unit}", three_digits(seconds * factor))
}

/// A number with three digits, or all digits that it has before its point.
pub fn three_digits(number: f64) -> String {
    let after_the_point = match number {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.after_the_point$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reading: Reading, median: f64, reach: f64) -> Measured {
        Measured {
            workload: "seal".to_owned(),
            seconds: 1.0,
            beside: "floor".to_owned(),
            beside_seconds: 1.0,
            reading,
            ratio: Spread { low: median, median, high: median },
            reach: Some(reach),
            rounds: 1,
        }
    }

    #[test]
    fn a_time_is_to_stay_below_its_goal_and_a_speed_above() {
        assert_eq!(row(Reading::Time, 3.6, 3.5).verdict(), "missed");
        assert_eq!(row(Reading::Time, 3.5, 3.5).verdict(), "met");
        assert_eq!(row(Reading::Speed, 0.89, 0.9).verdict(), "missed");
        assert_eq!(row(Reading::Speed, 0.9, 0.9).verdict(), "met");
        assert_eq!(row(Reading::Speed, 0.9, 0.9).reach_if(None).verdict(), "");
    }

    #[test]
    fn times_have_three_digits_in_the_unit_that_fits() {
        let shown = [0.000_000_58, 0.000_012_34, 0.001, 61.25].map(time_of);
        assert_eq!(shown, ["580 ns", "12.3 µs", "1.00 ms", "61.2 s"]);
    }
}
