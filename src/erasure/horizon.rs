//! The horizon: the time from which no copy anywhere can open what was shredded.

use crate::erasure::json;
use serde::Serialize;
use std::time::Duration;
use time::OffsetDateTime;

/// How long copies of the keys are kept, as whoever runs the databases knows it. [`Horizon::of`] adds it up.
///
/// `None` means that it is not known. [`Duration::ZERO`] means that there are no such copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// How long backups of the key database are kept.
    pub backups: Option<Duration>,
    /// How long archives of the key database are kept: its archived log, snapshots of disks, dumps that were put aside.
    pub archives: Option<Duration>,
    /// How far replicas of the key database may lag, those that are switched off included.
    pub replicas: Option<Duration>,
    /// How long the KMS waits before it deletes a master key. It shortens the horizon only together with
    /// [`master_key_deletion`](Self::master_key_deletion).
    pub kms_waiting_period: Option<Duration>,
    /// When somebody asked the KMS to delete the master key under which the copies were made: the end of an epoch. No
    /// copy opens once that key is gone.
    pub master_key_deletion: Option<OffsetDateTime>,
}

/// By when no copy anywhere can open what was shredded, and what has to be true for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Horizon {
    /// The time of the shred; or, if keys came back after it, the time at which the last of them was destroyed again.
    #[serde(serialize_with = "json::time")]
    pub shredded_at: OffsetDateTime,
    /// The time from which no copy opens it. `None` if it is unknown.
    #[serde(serialize_with = "json::optional_time")]
    pub at: Option<OffsetDateTime>,
    /// Why it is unknown: what was not said about the copies. Empty if it is known.
    pub unknown: Vec<String>,
    /// What has to be true, one sentence each. Nothing of it was looked at.
    pub assumptions: Vec<String>,
}

impl Horizon {
    /// The horizon of a shred.
    ///
    /// It is unknown unless everything is said about backups, archives and replicas. A master key that is deleted ends
    /// all copies that were made under it, so it can only bring the horizon nearer.
    ///
    /// ```
    /// use eventseal::erasure::{Horizon, Retention};
    /// use std::time::Duration;
    /// use time::OffsetDateTime;
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// let mut retention = Retention::default();
    /// retention.backups = Some(35 * DAY);
    /// retention.replicas = Some(Duration::from_secs(60 * 60));
    /// let shredded_at = OffsetDateTime::UNIX_EPOCH;
    /// assert_eq!(Horizon::of(&retention, shredded_at).at, None, "nothing was said about archives");
    ///
    /// retention.archives = Some(Duration::ZERO);
    /// assert_eq!(Horizon::of(&retention, shredded_at).at, Some(shredded_at + 35 * DAY));
    /// ```
    #[must_use]
    pub fn of(retention: &Retention, shredded_at: OffsetDateTime) -> Self {
        let copies = [
            (retention.backups, "Backups of the key database", "backups"),
            (retention.archives, "Archives of the key database", "archives"),
            (retention.replicas, "Replicas of the key database", "replicas"),
        ];
        let mut assumptions = vec![
            "The shred was committed at the time that its entry names. A transaction that stayed open for longer moves \
             the horizon by as long."
                .to_owned(),
        ];
        let mut unknown = Vec::new();
        let mut at = Some(shredded_at);
        for (kept, what, word) in copies {
            let end = kept.and_then(|kept| shredded_at.checked_add(time::Duration::try_from(kept).ok()?));
            assumptions.extend(kept.map(|kept| match (kept.is_zero(), word) {
                (true, _) => format!("There are no {word} of the key database."),
                (false, "replicas") => format!("{what} lag by at most {}, or are deleted.", in_words(kept)),
                (false, _) => format!("{what} are deleted after {} at the latest.", in_words(kept)),
            }));
            if kept.is_none() {
                unknown.push(format!("Nobody said how long {word} of the key database are kept."));
            } else if end.is_none() {
                unknown.push(format!("{what} are kept for good."));
            }
            at = at.zip(end).map(|(at, end)| at.max(end));
        }
        assumptions
            .push("Nobody has another copy of the key tables, or of a key that was open in a process.".to_owned());
        let deleted = end_of_master_key(retention, shredded_at, &mut assumptions);
        if let Some(deleted) = deleted {
            at = Some(at.map_or(deleted, |at| at.min(deleted)));
        }
        if at.is_some() {
            unknown.clear();
        }
        Self { shredded_at, at, unknown, assumptions }
    }
}

impl Horizon {
    /// The horizon of a shred whose last key was destroyed at that time. That is later if keys came back, as with a
    /// restore: copies that were made until then may hold them.
    pub(crate) fn of_keys(retention: &Retention, shred: OffsetDateTime, last_key: Option<OffsetDateTime>) -> Self {
        let Some(again) = last_key.filter(|at| *at > shred) else { return Self::of(retention, shred) };
        let mut horizon = Self::of(retention, again);
        let (shred, again) = (json::in_rfc3339(shred), json::in_rfc3339(again));
        if let Some(first) = horizon.assumptions.first_mut() {
            *first = format!(
                "The scope was shredded at {shred}. A key of it was destroyed at {again}, so it had come back, as with \
                 a restore: copies from in between may hold it. The horizon begins at that time, and a transaction \
                 that stayed open for longer moves it by as long."
            );
        }
        horizon
    }
}

/// When the master key of the copies is gone, if somebody asked for that.
fn end_of_master_key(
    retention: &Retention,
    shredded_at: OffsetDateTime,
    assumptions: &mut Vec<String>,
) -> Option<OffsetDateTime> {
    let Some(waiting) = retention.kms_waiting_period else {
        if retention.master_key_deletion.is_some() {
            assumptions.push(
                "The deletion of the master key does not count, because nobody said how long the KMS waits.".to_owned(),
            );
        }
        return None;
    };
    let Some(asked) = retention.master_key_deletion else {
        assumptions.push(format!(
            "The master key of the copies stays. If it is deleted, the KMS waits {}, and no copy opens afterwards.",
            in_words(waiting)
        ));
        return None;
    };
    let deleted = asked.checked_add(time::Duration::try_from(waiting).ok()?)?;
    assumptions.push(format!(
        "The KMS was asked at {} to delete the master key, does so after {}, and nobody cancels it.",
        json::in_rfc3339(asked),
        in_words(waiting)
    ));
    assumptions.push(
        "Every copy that has the shredded keys was made under that master key, and it has no copy of its own."
            .to_owned(),
    );
    Some(deleted.max(shredded_at))
}

/// A duration in the largest unit in which it is a whole number.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    let (number, unit) = [(86_400, "day"), (3_600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length))
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SHRED: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn days(retention: &Retention) -> Option<i64> {
        Horizon::of(retention, SHRED).at.map(|at| (at - SHRED).whole_days())
    }

    #[test]
    fn a_horizon_is_known_once_all_copies_are() {
        let horizon = Horizon::of(&Retention::default(), SHRED);
        assert_eq!((horizon.at, horizon.unknown.len()), (None, 3), "{horizon:?}");
        let mut retention = Retention { backups: Some(35 * DAY), archives: Some(90 * DAY), ..Retention::default() };
        assert_eq!(days(&retention), None);
        let unknown = Horizon::of(&retention, SHRED).unknown;
        assert_eq!(unknown, ["Nobody said how long replicas of the key database are kept."]);
        retention.replicas = Some(Duration::ZERO);
        assert_eq!(days(&retention), Some(90), "the last copy counts");
        let horizon = Horizon::of(&retention, SHRED);
        assert!(horizon.unknown.is_empty());
        for said in ["35 days", "90 days", "There are no replicas"] {
            assert!(horizon.assumptions.iter().any(|assumption| assumption.contains(said)), "{said}: {horizon:?}");
        }
        retention.archives = Some(Duration::MAX);
        assert_eq!(Horizon::of(&retention, SHRED).unknown, ["Archives of the key database are kept for good."]);
        let none = Some(Duration::ZERO);
        let none = Retention { backups: none, archives: none, replicas: none, ..Retention::default() };
        assert_eq!(days(&none), Some(0), "there are no copies");
    }

    #[test]
    fn a_horizon_begins_when_the_last_key_was_destroyed() {
        let none = Some(Duration::ZERO);
        let retention = Retention { backups: Some(35 * DAY), archives: none, replicas: none, ..Retention::default() };
        let after = |days: i64| Some(SHRED + time::Duration::days(days));
        assert_eq!(Horizon::of_keys(&retention, SHRED, None), Horizon::of(&retention, SHRED));
        for not_later in [-3, 0] {
            assert_eq!(Horizon::of_keys(&retention, SHRED, after(not_later)), Horizon::of(&retention, SHRED));
        }
        let again = Horizon::of_keys(&retention, SHRED, after(60));
        assert_eq!((Some(again.shredded_at), again.at), (after(60), after(95)));
        assert!(again.assumptions[0].contains("1970-03-02T00:00:00Z, so it had come back"), "{again:?}");
    }

    #[test]
    fn a_master_key_that_is_deleted_ends_all_copies() {
        let mut retention = Retention {
            backups: Some(365 * DAY),
            archives: Some(Duration::MAX),
            replicas: Some(DAY),
            kms_waiting_period: Some(30 * DAY),
            master_key_deletion: None,
        };
        assert_eq!(days(&retention), None, "a waiting period deletes nothing");
        retention.master_key_deletion = Some(SHRED + 5 * DAY);
        assert_eq!(days(&retention), Some(35));
        retention.archives = Some(7 * DAY);
        retention.backups = Some(7 * DAY);
        assert_eq!(days(&retention), Some(7), "the copies are gone before");
        retention.archives = None;
        assert_eq!(days(&retention), Some(35), "whatever the archives are");
        retention.master_key_deletion = Some(SHRED - 90 * DAY);
        assert_eq!(days(&retention), Some(0), "never before the shred");
        retention.kms_waiting_period = None;
        assert_eq!(days(&retention), None);
    }

    #[test]
    fn durations_are_said_exactly() {
        for (seconds, expected) in
            [(0, "0 seconds"), (1, "1 second"), (90, "90 seconds"), (3_600, "1 hour"), (86_400 * 35, "35 days")]
        {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }
}
