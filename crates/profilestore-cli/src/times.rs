//! Times as people read them and type them in.

use jiff::{
    Span as Duration, Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use profilestore::env::Env;

const HOW: &str = "a time is given as 2026-11-21, 2026-11-21 14:00 or 2026-11-21T14:00:00Z, \
    or as 2h, 3 days ago, today, yesterday 18:30";

/// A time as it was typed, from its first to its last millisecond: `14:31` is a minute, `14:31:24`
/// a second, a date the whole day. So what was written at a time that is shown cut off belongs to
/// that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

impl Span {
    fn at(unix_ms: i64) -> Self {
        Self { first_ms: unix_ms, last_ms: unix_ms }
    }
}

/// A time for people, to the millisecond, so that what is printed means the same when it is typed
/// in again.
pub(crate) fn time(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).ok();
    time.map_or_else(
        || format!("{unix_ms} ms"),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// A time on the command line: a date or a moment, UTC if it does not say otherwise; one that is
/// told from now; or what [`time`] and [`ago`] give.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    span_from(text, Env::system().unix_ms())
}

/// A moment that is to come: `90 days` counts from now.
pub(crate) fn to_come(text: &str) -> Result<i64, String> {
    to_come_from(text, Env::system().unix_ms())
}

fn to_come_from(text: &str, now_ms: i64) -> Result<i64, String> {
    let at = match length_ms(text.trim()) {
        Some(length) => now_ms.checked_add(length).ok_or_else(|| HOW.to_owned())?,
        None => span_from(text, now_ms)?.first_ms,
    };
    let to_come = (at > now_ms).then_some(at);
    to_come.ok_or_else(|| "that is over; give a date to come, or a length such as 90 days".into())
}

fn span_from(text: &str, now_ms: i64) -> Result<Span, String> {
    let text = text.trim();
    if let Some(unix_ms) = text.strip_suffix(" ms").and_then(|number| number.parse().ok()) {
        return Ok(Span::at(unix_ms));
    }
    let found = written(text).or_else(|| told_from(text, now_ms));
    found.ok_or_else(|| HOW.to_owned())
}

/// True for what is meant as a date, a moment or a length of time, right or wrong.
pub(crate) fn looks_like_a_time(text: &str) -> bool {
    let first = text.split(' ').next().unwrap_or_default();
    let first =
        first.split_once('T').map(|(day, _)| day).filter(|day| !day.is_empty()).unwrap_or(first);
    let is_day = |day: &str| day.eq_ignore_ascii_case(first);
    if ["now", "today", "yesterday", "tomorrow", "in"].into_iter().any(is_day)
        || text.to_ascii_lowercase().ends_with(" ago")
    {
        return true;
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.len() - rest.len();
    // A date, a time of the day, or a number with a unit.
    let is_date = matches!(digits, 1 | 2 | 4) && rest.starts_with(['-', '/', '.', ':']);
    let is_length = digits > 0
        && !rest.is_empty()
        && rest.trim_start().chars().all(|c| c.is_ascii_alphabetic());
    is_date || is_length || is_sum_of_lengths(text)
}

/// True for `1h30m`, `1h 30` and `2 days, 3 hours`, which are not understood.
fn is_sum_of_lengths(text: &str) -> bool {
    let (mut rest, mut lengths) = (text, 0);
    loop {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if unit.len() == rest.len() {
            return false;
        }
        let unit = unit.trim_start();
        let more = unit.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &unit[..unit.len() - more.len()];
        if unit.is_empty() {
            return lengths > 0 && more.is_empty();
        }
        if unit_ms(unit).is_none() {
            return false;
        }
        lengths += 1;
        rest = more.trim_start_matches([' ', ',']);
        if rest.is_empty() {
            return true;
        }
    }
}

fn written(text: &str) -> Option<Span> {
    // In `[Europe/Berlin]` an offset would have to be looked up, and to leave it out would be an
    // hour wrong silently.
    let civil = if text.contains('[') { None } else { text.parse::<DateTime>().ok() };
    let in_utc = || civil?.to_zoned(TimeZone::UTC).ok();
    let moment = text.parse::<Timestamp>().ok();
    let moment = moment.or_else(|| in_utc().map(|zoned| zoned.timestamp()))?;
    let first_ms = moment.as_millisecond();
    Some(Span { first_ms, last_ms: first_ms.saturating_add(width_ms(text) - 1) })
}

/// How many milliseconds belong to what was written of a time.
fn width_ms(text: &str) -> i64 {
    const DAY: i64 = 86_400_000;
    let Some((_, clock)) = text.split_once(['T', 't', ' ']) else { return DAY };
    let clock = clock.split(['Z', 'z', '+', '-', '[']).next().unwrap_or_default();
    let (whole, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    match (whole.chars().filter(char::is_ascii_digit).count(), fraction.trim_end().len()) {
        (0, _) => DAY,
        (1..=2, _) => 3_600_000,
        (3..=4, _) => 60_000,
        (_, 0) => 1000,
        (_, 1) => 100,
        (_, 2) => 10,
        _ => 1,
    }
}

/// `2h`, `3 days ago`, `in 5 s`, `today`, `yesterday 18:30`.
fn told_from(text: &str, now_ms: i64) -> Option<Span> {
    if text == "now" {
        return Some(Span::at(now_ms));
    }
    let (day, clock) = text.split_once(' ').unwrap_or((text, ""));
    let back = match day {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    };
    if let Some(back) = back {
        let today = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(TimeZone::UTC).date();
        let day: Date = today.checked_sub(Duration::new().days(back)).ok()?;
        return written(format!("{day} {clock}").trim_end());
    }
    // As it is shown of a clock that is ahead.
    if let Some(length) = text.strip_prefix("in ") {
        return Some(Span::at(now_ms.checked_add(length_ms(length)?)?));
    }
    let text = text.strip_suffix(" ago").unwrap_or(text);
    Some(Span::at(now_ms.checked_sub(length_ms(text)?)?))
}

/// How long something takes: `90s`, `1h`, `2 days`. At least a second.
pub(crate) fn length(text: &str) -> Result<std::time::Duration, String> {
    let length = length_ms(text.trim()).and_then(|ms| u64::try_from(ms).ok());
    let length = length.filter(|ms| *ms > 0).map(std::time::Duration::from_millis);
    length.ok_or_else(|| "a length of time is given as 90s, 30min, 1h or 1 day".to_owned())
}

/// How long something takes that is usually said in seconds: `600`, `1.5`, or with a unit, as
/// `500ms`, `90s`, `1.5m` or `2 hours`. It may be 0.
pub(crate) fn seconds_or_length(text: &str) -> Result<std::time::Duration, String> {
    /// A hundred years, which no clock runs over.
    const TOO_LONG: std::time::Duration = std::time::Duration::from_secs(100 * 365 * 86_400);
    let text = text.trim();
    let seconds = text.parse::<f64>().ok().or_else(|| {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let in_ms = match &text[number.len()..] {
            "ms" => 1,
            unit => unit_ms(unit)?,
        };
        Some(number.trim_end().parse::<f64>().ok()? * in_ms as f64 / 1000.0)
    });
    let length = seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
    length
        .filter(|length| *length < TOO_LONG)
        .ok_or_else(|| "a length of time is given in seconds, or as 500ms, 90s, 1.5m or 2h".into())
}

/// A number with a unit of time, in milliseconds.
fn length_ms(text: &str) -> Option<i64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let count: i64 = text[..text.len() - unit.len()].parse().ok()?;
    count.checked_mul(unit_ms(unit.trim_start())?)
}

/// How many milliseconds a unit of time has.
fn unit_ms(unit: &str) -> Option<i64> {
    Some(match unit {
        "s" | "sec" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 604_800_000,
        _ => return None,
    })
}

/// How long ago something was, for people.
pub(crate) fn ago(now_ms: i64, then_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms).div_euclid(1000);
    match seconds {
        ..0 => format!("in {} s", seconds.saturating_neg()),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20.042Z.
    const NOW: i64 = 1_790_000_000_042;

    fn bounds(text: &str) -> Option<(i64, i64)> {
        span_from(text, NOW).ok().map(|span| (span.first_ms, span.last_ms))
    }

    #[test]
    fn times_are_printed_to_the_millisecond() {
        assert_eq!(time(NOW), "2026-09-21T14:13:20.042Z");
        assert_eq!((ago(10_000, 9_000), ago(10_000, 12_000)), ("1 s ago".into(), "in 2 s".into()));
        assert_eq!(ago(86_400_000 * 3, 0), "3 days ago");
    }

    #[test]
    fn a_length_that_is_to_come_counts_from_now_and_what_is_over_is_refused() {
        assert_eq!(to_come_from("2h", NOW), Ok(NOW + 7_200_000));
        assert_eq!(to_come_from("2026-09-22", NOW), Ok(1_790_035_200_000));
        for over in ["2026-09-21", "2h ago", "yesterday", "now", "0s"] {
            assert!(to_come_from(over, NOW).unwrap_err().contains("over"), "{over}");
        }
    }

    #[test]
    fn a_time_includes_what_was_not_written_of_it() {
        let day = 86_400_000;
        for (text, first, width) in [
            ("1970-01-02", day, day),
            ("1970-01-01T00:00:01Z", 1000, 1000),
            ("1970-01-01 00:00:01Z", 1000, 1000),
            ("1970-01-01 00:00:01", 1000, 1000),
            ("1970-01-01T00:00:01", 1000, 1000),
            ("1970-01-01T01:00:01+01:00", 1000, 1000),
            ("1970-01-01T00:01", 60_000, 60_000),
            ("1970-01-01 00:01", 60_000, 60_000),
            ("1970-01-01T00:01Z", 60_000, 60_000),
            ("1970-01-01T00:00:01.5Z", 1500, 100),
            ("1970-01-01T00:00:01.25Z", 1250, 10),
            ("1970-01-01 00:00:01.125", 1125, 1),
            ("1970-01-01T00:00:01.123456Z", 1123, 1),
        ] {
            assert_eq!(bounds(text), Some((first, first + width - 1)), "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_typed_with_a_blank_too() {
        for unix_ms in [0, 1, NOW, -5, i64::MAX] {
            let shown = time(unix_ms);
            assert_eq!(bounds(&shown), Some((unix_ms, unix_ms)), "{shown}");
            let with_blank = shown.replace('T', " ");
            assert_eq!(bounds(&with_blank), Some((unix_ms, unix_ms)), "{with_blank}");
        }
        // The last one is of a clock that is ahead.
        let times = [3000, 1_200_000, 18_000_000, 864_000_000, -7000].map(|ms| NOW - ms);
        for then_ms in times {
            assert_eq!(bounds(&ago(NOW, then_ms)), Some((then_ms, then_ms)));
        }
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("30 min", 1800), ("1h", 3600), ("2 days", 172_800)] {
            assert_eq!(length(text).map(|length| length.as_secs()), Ok(seconds), "{text}");
        }
        for wrong in ["", "0h", "1", "h", "-1h", "1 moon", "99999999999999999w"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_alone_is_seconds_where_seconds_are_usual() {
        for (text, ms) in [
            ("600", 600_000),
            ("0.25", 250),
            ("0", 0),
            ("1e3", 1_000_000),
            ("500ms", 500),
            ("90s", 90_000),
            ("1m", 60_000),
            ("1.5 min", 90_000),
            (" 2 hours ", 7_200_000),
        ] {
            let length = seconds_or_length(text).map(|length| length.as_millis());
            assert_eq!(length, Ok(ms), "{text}");
        }
        for wrong in ["", "m", "-1", "-1s", "NaN", "inf", "1 moon", "1m30s", "101 years", "1e12"] {
            assert!(seconds_or_length(wrong).is_err(), "{wrong}");
        }
    }

    /// The zone was left out, so that the time was another one.
    #[test]
    fn a_zone_without_an_offset_is_refused() {
        let zone = "[Europe/Berlin]";
        for text in ["2026-11-27T04:00", "2026-11-27 04:00:00", "2026-11-27"] {
            assert!(bounds(text).is_some(), "{text}");
            assert_eq!(bounds(&format!("{text}{zone}")), None, "{text}");
            assert!(looks_like_a_time(&format!("{text}{zone}")), "{text}");
        }
        let offset = "2026-11-27T04:00:00+01:00";
        assert!(bounds(offset).is_some());
        assert_eq!(bounds(&format!("{offset}{zone}")), bounds(offset));
    }

    /// They counted as version strings: `there is no such version`, with exit code 4.
    #[test]
    fn what_is_meant_as_a_time_is_told_from_a_version_string() {
        for time in [
            "1h30m",
            "1h 30m",
            "2h 5",
            "2 days, 3 hours",
            "Yesterday",
            "TODAY 18:30",
            "yesterdayT18:30",
            "2H AGO",
            "18:30",
            "1.5h",
            "2026-13-40",
            "tomorrow",
        ] {
            assert!(looks_like_a_time(time), "{time}");
            assert_eq!(bounds(time), None, "{time}");
        }
        for label in [
            "000001A223323482.0000000004.000001A21357060A.01",
            "D8205237-4941",
            "3d5f",
            "1h30x",
            "nowhere",
            "Today's",
            "Text",
            "v2",
            "",
        ] {
            assert!(!looks_like_a_time(label), "{label}");
        }
    }

    #[test]
    fn times_can_be_told_from_now() {
        let hour = 3_600_000;
        for (text, at) in [("now", NOW), ("2h", NOW - 2 * hour), ("1 week ago", NOW - 168 * hour)] {
            assert_eq!(bounds(text), Some((at, at)), "{text}");
        }
        let midnight = 1_790_000_000_000 / 86_400_000 * 86_400_000;
        assert_eq!(bounds("today"), Some((midnight, midnight + 24 * hour - 1)));
        let shift = midnight - 24 * hour + 37 * hour / 2;
        assert_eq!(bounds("yesterday 18:30"), Some((shift, shift + 59_999)));
        for wrong in ["", "h", "2 moons", "yesterday evening", "-2h", "99999999999999d", "2026"] {
            assert_eq!(bounds(wrong), None, "{wrong}");
        }
    }
}
