//! Times and durations on the command line.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// A date, which stands for its first moment in UTC, or a time as in RFC 3339.
pub(crate) fn time(text: &str) -> Result<OffsetDateTime, String> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339);
    parse(text).or_else(|_| parse(&format!("{text}T00:00:00Z"))).map_err(|_| {
        "write a date, such as 2027-01-31 (its first moment in UTC), or a time, such as 2027-01-31T12:00:00+01:00"
            .to_owned()
    })
}

/// A whole number of minutes, hours, days or weeks.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = |unit| match unit {
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        'w' => Some(604_800),
        _ => None,
    };
    let parse = || {
        let unit = text.chars().next_back()?;
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::seconds(seconds(unit)? * i64::from(number)))
    };
    let read = parse().filter(|duration| duration.is_positive());
    read.ok_or_else(|| "write a number and a unit: 90m, 12h, 30d or 4w".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read_as_people_write_them() {
        let first = time("2027-01-31").unwrap();
        assert_eq!(time("2027-01-31T01:00:00+01:00").unwrap(), first);
        assert_eq!(first.unix_timestamp(), 1_801_353_600);
        for wrong in ["", "31.1.2027", "2027-02-30", "2027-01-31 12:00", "tomorrow", "2027-01-31T12:00:00"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        let hours = |text| duration(text).unwrap().whole_hours();
        assert_eq!(["120m", "12h", "30d", "4w"].map(hours), [2, 12, 720, 672]);
        for wrong in ["", "d", "30", "-1d", "0d", "1.5d", "1y", "99999999999d", "1 d", "3\u{64c}"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
