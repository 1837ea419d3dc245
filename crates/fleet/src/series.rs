//! Real sensor series: a name and its (time, value) points, read from CSV files.
//!
//! A file has a header `timestamp,value` and one row per reading. Gaps, repeated and descending
//! times and outliers are kept: real devices send them. A small sample is part of the executable
//! ([`builtin`]), so that a demo needs no files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use forebay_model::{DeviceId, Timestamp};

/// Characters of a series name, so that a device named after it fits every store.
const NAME_BYTES_MAX: usize = 64;

/// The sample that is part of the executable: name and CSV text. See its README for the licence.
const SAMPLE: [(&str, &str); 6] = [
    ("ambient_temperature", include_str!("../../../examples/data/nab/ambient_temperature.csv")),
    ("cpu_utilization", include_str!("../../../examples/data/nab/cpu_utilization.csv")),
    ("machine_temperature", include_str!("../../../examples/data/nab/machine_temperature.csv")),
    ("nyc_taxi", include_str!("../../../examples/data/nab/nyc_taxi.csv")),
    ("occupancy_6005", include_str!("../../../examples/data/nab/occupancy_6005.csv")),
    ("speed_6005", include_str!("../../../examples/data/nab/speed_6005.csv")),
];

/// One series, at least one point long.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(i64, f64)>,
    whole: bool,
    lap_us: i64,
}

/// Why a series cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A row is not a time and a finite number.
    #[error("{name} line {line}: {fault}: {text:?}")]
    Row {
        /// The series or file.
        name: String,
        /// From 1, the header included.
        line: usize,
        /// What is wrong with it.
        fault: &'static str,
        /// The row, shortened.
        text: String,
    },
    /// A series without a point.
    #[error("{name} has no readings")]
    Empty {
        /// The series or file.
        name: String,
    },
    /// A folder without a series.
    #[error("no .csv file below {path}")]
    None {
        /// The folder.
        path: PathBuf,
    },
}

/// The sample that comes with the executable: six series of 2,000 points.
#[must_use]
pub fn builtin() -> Vec<Series> {
    SAMPLE
        .iter()
        .map(|(name, text)| {
            Series::parse(name, text).expect("the sample is parsed by a test of this package")
        })
        .collect()
}

/// Every `.csv` file below a folder, in the order of its path.
///
/// # Errors
/// [`SeriesError`] names the first file or row that cannot be used; nothing is skipped silently.
pub fn load(folder: &Path) -> Result<Vec<Series>, SeriesError> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(SeriesError::None { path: folder.to_owned() });
    }
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .map_err(|source| SeriesError::Io { path: path.clone(), source })?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            Series::parse(&stem, &text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), SeriesError> {
    let fault = |source| SeriesError::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let path = entry.path();
        if entry.file_type().map_err(fault)?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            files.push(path);
        }
    }
    Ok(())
}

impl Series {
    /// Reads a CSV text; its first line is a header.
    ///
    /// # Errors
    /// [`SeriesError::Row`] with the line, [`SeriesError::Empty`] without any.
    pub fn parse(name: &str, text: &str) -> Result<Self, SeriesError> {
        let name = device_name(name);
        let mut points = Vec::new();
        let mut whole = true;
        for (index, row) in text.lines().enumerate().skip(1) {
            let row = row.trim();
            if row.is_empty() {
                continue;
            }
            let fault = |fault| SeriesError::Row {
                name: name.clone(),
                line: index + 1,
                fault,
                text: row.chars().take(60).collect(),
            };
            let (time, value) = row.split_once(',').ok_or_else(|| fault("no comma"))?;
            let time_us = parse_time(time).ok_or_else(|| fault("not a time"))?;
            Timestamp::from_micros(time_us).map_err(|_| fault("time before 1970 or after 2199"))?;
            let number: f64 = value.trim().parse().map_err(|_| fault("not a number"))?;
            if !number.is_finite() {
                return Err(fault("not a finite number"));
            }
            whole &= !value.contains(['.', 'e', 'E']) && number.abs() < 1e15;
            points.push((time_us, number));
        }
        let (Some(first), Some(last)) =
            (points.iter().map(|p| p.0).min(), points.iter().map(|p| p.0).max())
        else {
            return Err(SeriesError::Empty { name });
        };
        // One more step than the span, so that the next lap does not begin where the last ended.
        let steps = i64::try_from(points.len()).unwrap_or(i64::MAX).max(2) - 1;
        let lap_us = (last - first) + ((last - first) / steps).max(1);
        Ok(Self { name, points, whole, lap_us })
    }

    /// The series' name: also the key of its readings and the first part of its devices' ids.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many points it has: at least one.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.points.len() as u64
    }

    /// Never true; here because [`Self::len`] is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Whether every value was written as a whole number.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The time in microseconds and the value at a step of an endless replay.
    ///
    /// After the last point it begins again, a lap later; so that times stay within what a store
    /// accepts, the laps begin again too, after about a century.
    #[must_use]
    pub fn at(&self, step: u64) -> (i64, f64) {
        const CENTURY_US: i64 = 100 * 365 * 86_400 * 1_000_000;
        let (time_us, number) = self.points[(step % self.len()) as usize];
        let laps = (CENTURY_US / self.lap_us).max(1) as u64;
        let lap = ((step / self.len()) % laps) as i64;
        (time_us.saturating_add(lap * self.lap_us).min(Timestamp::END_US - 1), number)
    }
}

/// A file's name as the first part of a device id.
fn device_name(stem: &str) -> String {
    let mut name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' })
        .take(NAME_BYTES_MAX)
        .collect();
    if DeviceId::check(&name).is_err() {
        name.insert(0, 's');
    }
    name
}

/// `YYYY-MM-DD HH:MM:SS` with an optional fraction and `T` or `Z`, as microseconds in UTC.
fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches('Z');
    let (date, clock) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let bounded = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second);
    if !bounded || !(1970..2200).contains(&year) {
        return None;
    }
    let micros = match fraction.len() {
        0 => 0,
        1..=6 => fraction.parse::<i64>().ok()? * 10_i64.pow(6 - fraction.len() as u32),
        _ => fraction.get(..6)?.parse().ok()?,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

/// Days from 1970-01-01 in the Gregorian calendar, counted from March so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_six_series_of_two_thousand_points() {
        let all = builtin();
        assert_eq!(all.len(), 6);
        assert!(all.iter().all(|series| series.len() == 2000));
        let whole: Vec<_> = all.iter().filter(|s| s.is_whole()).map(Series::name).collect();
        assert_eq!(whole, ["nyc_taxi", "speed_6005"]);
    }

    #[test]
    fn a_replay_begins_again_a_lap_later() {
        let text = "timestamp,value\n1970-01-02 00:00:00,1\n1970-01-02 00:00:10,2.5\n";
        let series = Series::parse("two", text).unwrap();
        let day = 86_400_000_000;
        assert_eq!(series.at(0), (day, 1.0));
        assert_eq!(series.at(1), (day + 10_000_000, 2.5));
        assert_eq!(series.at(2), (day + 20_000_000, 1.0));
        assert!(series.at(u64::MAX).0 < Timestamp::END_US);
    }

    #[test]
    fn times_are_read_as_utc_and_leap_days_exist() {
        assert_eq!(parse_time("1970-01-01 00:00:00"), Some(0));
        assert_eq!(parse_time("2016-02-29T12:00:00.25Z"), Some(1_456_747_200_250_000));
        assert_eq!(parse_time("2014-13-01 00:00:00"), None);
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_bad_row_is_named_with_its_line() {
        let error = Series::parse("x", "timestamp,value\n2014-01-01 00:00:00,NaN\n").unwrap_err();
        assert!(error.to_string().starts_with("x line 2: not a finite number"), "{error}");
        let error = Series::parse("x", "timestamp,value\n").unwrap_err();
        assert!(matches!(error, SeriesError::Empty { .. }));
    }

    #[test]
    fn a_folder_is_read_recursively_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        let text = "timestamp,value\n2014-01-01 00:00:00,1\n";
        fs::write(dir.path().join("b/Odd name.csv"), text).unwrap();
        fs::write(dir.path().join("a.csv"), text).unwrap();
        fs::write(dir.path().join("LICENSE.txt"), "no series").unwrap();
        let names: Vec<_> = load(dir.path()).unwrap().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names, ["a", "odd_name"]);
        assert!(matches!(load(&dir.path().join("none")), Err(SeriesError::Io { .. })));
    }
}
