//! How a piece of work is measured. Several ways to do it run in one process. Each round runs every way once, and each
//! way is first, second and last equally often. So a change of the machine's speed affects all of them alike, and the
//! ratio of two ways is the median of their ratios within each round.

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// Everything once, to see that it works.
    Quick,
    Normal,
    /// With as much data as the goals name.
    Full,
}

/// One way to do a piece of work. It runs once, and says how long it took.
pub type Way<'w> = Box<dyn FnMut() -> Duration + 'w>;

/// This closure as a way.
pub fn way<'w>(run: impl FnMut() -> Duration + 'w) -> Way<'w> {
    Box::new(run)
}

/// Measures, and shows how far it is.
pub struct Bench {
    pub scale: Scale,
    progress: ProgressBar,
}

impl Bench {
    pub fn new(scale: Scale) -> Self {
        let style = ProgressStyle::with_template("{prefix:<12} {wide_msg} {pos}/{len} {elapsed}");
        let progress = ProgressBar::new(0).with_style(style.expect("a template"));
        progress.enable_steady_tick(Duration::from_millis(500));
        Self { scale, progress }
    }

    /// What is measured now.
    pub fn begin(&self, subject: &'static str) {
        self.progress.set_prefix(subject);
        self.say("preparing");
    }

    /// What takes long now.
    pub fn say(&self, doing: &str) {
        self.progress.set_message(doing.to_owned());
    }

    /// Prints, beside the line of progress.
    pub fn print(&self, text: &str) {
        self.progress.suspend(|| println!("{text}"));
    }

    pub fn end(&self) {
        self.progress.finish_and_clear();
    }

    /// The number for this scale.
    pub const fn pick(&self, quick: usize, normal: usize, full: usize) -> usize {
        match self.scale {
            Scale::Quick => quick,
            Scale::Normal => normal,
            Scale::Full => full,
        }
    }

    /// Runs all ways in turns, and returns how long each took for one of the `pieces` that it does in a run.
    pub fn compare<const N: usize>(
        &self,
        what: &str,
        rounds: usize,
        pieces: usize,
        mut ways: [Way<'_>; N],
    ) -> [Series; N] {
        let (warm_up, rounds) = if self.scale == Scale::Quick { (0, 1) } else { (1 + rounds / 10, rounds) };
        self.say(what);
        self.progress.set_length((warm_up + rounds) as u64);
        self.progress.set_position(0);
        let mut series = [const { Series(Vec::new()) }; N];
        for round in 0..warm_up + rounds {
            for turn in 0..N {
                let which = (round + turn) % N;
                let took = ways[which]();
                if round >= warm_up {
                    series[which].0.push(took.as_secs_f64() / pieces as f64);
                }
            }
            self.progress.inc(1);
        }
        series
    }

    /// As [`compare`](Self::compare), for work that is over so soon that one run of it can't be timed. Each way is
    /// repeated for half a millisecond or more.
    pub fn compare_short<const N: usize>(&self, what: &str, rounds: usize, ways: [&dyn Fn(); N]) -> [Series; N] {
        let long_enough = Duration::from_micros(if self.scale == Scale::Quick { 0 } else { 500 });
        let repeated = ways.map(|way| {
            let mut times = 1;
            while repeat(way, times) < long_enough {
                times *= 2;
            }
            self::way(move || repeat(way, times) / times)
        });
        self.compare(what, rounds, 1, repeated)
    }
}

fn repeat(way: &dyn Fn(), times: u32) -> Duration {
    time(|| (0..times).for_each(|_| way()))
}

/// How long this takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// How long a piece of work took in each round, in seconds.
#[derive(Clone, Debug)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    pub fn rounds(&self) -> usize {
        self.0.len()
    }

    /// The time of one of `parts` equal parts.
    pub fn part(&self, parts: usize) -> Self {
        Self(self.0.iter().map(|seconds| seconds / parts as f64).collect())
    }

    /// How many times as long as the other way it took, round by round.
    pub fn over(&self, other: &Self) -> Spread {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(this, other)| this / other).collect();
        Spread { low: quantile(&ratios, 0.25), median: quantile(&ratios, 0.5), high: quantile(&ratios, 0.75) }
    }
}

/// A median, and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let (at, fraction) = {
        let at = part * (sorted.len() - 1) as f64;
        (at as usize, at.fract())
    };
    let next = sorted[(at + 1).min(sorted.len() - 1)];
    sorted[at] + (next - sorted[at]) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn ways_take_turns_and_each_is_first_equally_often() {
        let order = RefCell::new(Vec::new());
        let way = |name: char| -> Way<'_> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                Duration::from_secs(2)
            })
        };
        let [a, _, _] = Bench::new(Scale::Normal).compare("turns", 5, 4, [way('a'), way('b'), way('c')]);
        assert_eq!(order.borrow().iter().collect::<String>(), "abcbcacababcbcacab");
        assert_eq!((a.rounds(), a.median()), (5, 0.5), "the round that warms up does not count");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let (fast, slow) = (Series(vec![1.0, 10.0, 100.0]), Series(vec![2.0, 30.0, 400.0]));
        assert_eq!(slow.over(&fast), Spread { low: 2.5, median: 3.0, high: 3.5 });
        assert_eq!(fast.median(), 10.0);
    }
}
