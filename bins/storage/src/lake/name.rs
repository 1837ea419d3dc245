//! Where a range of entries lies in the lake: its hour and its file name, and back.
//!
//! `dt=2026-11-22/hour=14/<queue>-<first>-<last>.parquet`: the folder is the hour in which the
//! front received the rows (hive style, so that any tool prunes by it), the name is the queue id
//! and the range of its entries in hexadecimal of fixed width. The name is the sink's idempotency:
//! a replayed range writes the same names. Names of one queue sort by range.

use std::{fmt, path::PathBuf};

use forebay_wire::{QueueId, Seq};

/// What every finished file of the lake ends with.
pub const SUFFIX: &str = ".parquet";
/// What a file still being written ends with; readers pass over it, a start sweeps it away.
pub const SUFFIX_UNFINISHED: &str = ".tmp";

const HOUR_US: i64 = 3_600_000_000;

/// One hour of receive time, in hours since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hour(u32);

impl Hour {
    /// The hour that holds a time in microseconds since the epoch.
    #[must_use]
    pub fn of(time_us: i64) -> Self {
        Self(u32::try_from(time_us.div_euclid(HOUR_US)).unwrap_or(0))
    }

    /// When it starts, in microseconds since the epoch.
    #[must_use]
    pub fn start_us(self) -> i64 {
        i64::from(self.0) * HOUR_US
    }

    /// When the next one starts.
    #[must_use]
    pub fn end_us(self) -> i64 {
        self.start_us() + HOUR_US
    }

    /// Reads the two folder names of an hour.
    #[must_use]
    pub fn from_folders(day: &str, hour: &str) -> Option<Self> {
        let mut parts = day.strip_prefix("dt=")?.splitn(3, '-').map(number);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let hour = number(hour.strip_prefix("hour=")?)?;
        let days = u32::try_from(days_from_civil(year.into(), month, day)).ok()?;
        let found = Self(days.checked_mul(24)?.checked_add(hour)?);
        // Only the exact form counts: 2026-02-31 or hour=7 are somebody else's folders.
        (hour < 24 && civil_from_days(days.into()) == (year.into(), month, day)).then_some(found)
    }

    /// Its folder, relative to the lake.
    #[must_use]
    pub fn folder(self) -> PathBuf {
        PathBuf::from(self.to_string())
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(i64::from(self.0 / 24));
        write!(f, "dt={year:04}-{month:02}-{day:02}/hour={:02}", self.0 % 24)
    }
}

/// The name of one file: the range of entries that it holds the stored rows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    /// The middle's queue.
    pub queue: QueueId,
    /// First entry of the range.
    pub first: Seq,
    /// Last entry of the range.
    pub last: Seq,
}

impl FileName {
    /// Reads a name; `None` for anything that is not exactly one of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.splitn(3, '-');
        let (queue, first, last) = (parts.next()?, parts.next()?, parts.next()?);
        let queue = queue.parse().ok()?;
        let (first, last) = (Seq::new(hex(first)?), Seq::new(hex(last)?));
        let parsed = Self { queue, first, last };
        (first <= last && parsed.to_string() == name).then_some(parsed)
    }

    /// Whether this file holds all that `other` of the same hour does, by a longer range.
    ///
    /// A file of an hour holds every row of the hour in its range that was stored, so ranges alone
    /// tell. A gap, which the middle gave up for the sink, may lie within the range.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self != other
            && self.queue == other.queue
            && self.first <= other.first
            && other.last <= self.last
    }
}

/// Of the files of one hour, in the order of their names, those that no other one supersedes.
#[must_use]
pub fn in_force(names: &[FileName]) -> Vec<FileName> {
    let mut kept: Vec<FileName> = Vec::with_capacity(names.len());
    for name in names {
        if kept.last().is_some_and(|before| before.supersedes(name)) {
            continue;
        }
        // Of two that begin alike, the shorter one sorts first.
        while kept.last().is_some_and(|before| name.supersedes(before)) {
            kept.pop();
        }
        kept.push(*name);
    }
    kept
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, first, last } = self;
        write!(f, "{queue}-{:016x}-{:016x}{SUFFIX}", first.get(), last.get())
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of a year; 400 years repeat.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A time such as `2026-11-22T14:00:00Z` or `..:00.25Z`, in microseconds since the epoch.
#[must_use]
pub fn time_of_text(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let days = days_from_civil(year.into(), month, day);
    let valid = civil_from_days(days) == (year.into(), month, day)
        && hour < 24
        && minute < 60
        && second < 60
        && fraction.len() <= 6
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    valid.then_some(seconds * 1_000_000 + micros)
}

/// The date of a number of days since 1970-01-01: year, month, day.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = ((month_from_march + 2) % 12 + 1) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_names_its_folder_and_is_read_back() {
        for (time_us, folder) in [
            (0, "dt=1970-01-01/hour=00"),
            (951_782_400_000_000, "dt=2000-02-29/hour=00"),
            (1_795_356_000_000_000 - 1, "dt=2026-11-22/hour=13"),
            (1_795_356_000_000_000, "dt=2026-11-22/hour=14"),
            (7_258_118_399_999_999, "dt=2199-12-31/hour=23"),
        ] {
            let hour = Hour::of(time_us);
            assert_eq!(hour.to_string(), folder);
            let (day, name) = folder.split_once('/').expect("two folders");
            assert_eq!(Hour::from_folders(day, name), Some(hour));
            assert!((hour.start_us()..hour.end_us()).contains(&time_us));
        }
        for (day, name) in [
            ("dt=2026-02-31", "hour=00"),
            ("dt=2026-11-22", "hour=24"),
            ("dt=2026-11-22", "hour=7"),
            ("2026-11-22", "hour=07"),
            ("dt=2026-11", "hour=07"),
            ("dt=2026-00-10", "hour=07"),
        ] {
            assert_eq!(Hour::from_folders(day, name), None, "{day}/{name}");
        }
    }

    #[test]
    fn every_day_of_the_bounds_reads_back() {
        for days in 0..(Hour::of(7_258_118_399_999_999).0 / 24) {
            let (year, month, day) = civil_from_days(days.into());
            assert_eq!(days_from_civil(year, month, day), i64::from(days));
        }
    }

    #[test]
    fn only_our_own_names_are_taken_for_files() {
        let name = FileName {
            queue: QueueId::new(0xabc),
            first: Seq::from_parts(1, 2),
            last: Seq::from_parts(1, 99),
        };
        let text = name.to_string();
        assert_eq!(FileName::parse(&text), Some(name));
        for other in [
            text.replace(".parquet", ".tmp"),
            format!(".{text}.0.tmp"),
            text.to_uppercase(),
            text.replace("-0", "-"),
            "part-0.parquet".to_owned(),
            String::new(),
        ] {
            assert_eq!(FileName::parse(&other), None, "{other}");
        }
        let later = FileName { first: Seq::from_parts(2, 1), last: Seq::from_parts(2, 5), ..name };
        assert!(later.to_string() > text);
    }
    #[test]
    fn a_file_within_the_range_of_another_is_superseded() {
        let name = |queue, first, last| FileName {
            queue: QueueId::new(queue),
            first: Seq::from_parts(1, first),
            last: Seq::from_parts(1, last),
        };
        let mut names = vec![
            name(1, 1, 10),
            name(1, 1, 4),
            name(1, 5, 10),
            name(1, 8, 12),
            name(1, 11, 20),
            name(2, 5, 6),
            name(2, 1, 2),
        ];
        names.sort_unstable();
        let kept = [name(1, 1, 10), name(1, 8, 12), name(1, 11, 20), name(2, 1, 2), name(2, 5, 6)];
        assert_eq!(in_force(&names), kept);
        // Against the plain definition, over many sets of ranges.
        let mut random = 1_u64;
        for _ in 0..2000 {
            let mut names: Vec<FileName> = (0..6)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (first, length) = ((random >> 33) % 8, (random >> 50) % 6);
                    name(u128::from(random >> 60) & 1, first + 1, first + 1 + length)
                })
                .collect();
            names.sort_unstable();
            names.dedup();
            let plain: Vec<FileName> = names
                .iter()
                .filter(|name| !names.iter().any(|other| other.supersedes(name)))
                .copied()
                .collect();
            assert_eq!(in_force(&names), plain, "{names:?}");
        }
    }
}
