//! The readings of a series in a range of time.

use forebay_wire::Seq;
use serde::Serialize;

use super::{Columns, Filter, LakeFiles, ReadError, Tail, visit};
use crate::rows::{Cell, RowView};

/// Which end of the range comes first, and is kept when there are more than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// What was measured, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PointValue {
    /// A finite number.
    Float(f64),
    /// A whole number.
    Int(i64),
    /// On or off.
    Bool(bool),
    /// Text.
    Text(String),
    /// An opaque payload, by its media type.
    Opaque {
        /// Its media type.
        content_type: String,
    },
}

/// One reading of a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it was measured, else received; microseconds since the epoch.
    pub time: i64,
    /// When the front received it.
    pub received: i64,
    /// What was measured; absent for an opaque payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value.
    pub value: PointValue,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whether the value is not of the type or within the bounds that the registry gives.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// Which life of the device's counter.
    pub session: u64,
    /// The message's number in that session.
    pub seq: u64,
    /// The reading's place in the message.
    pub index: u16,
    /// Its entry in the middle's queue: settles the order of equal times.
    #[serde(skip)]
    pub entry: Seq,
}

/// An answer of [`history`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// The readings, in the order asked for.
    pub points: Vec<Point>,
    /// Whether there are more in the range than the limit.
    pub truncated: bool,
}

/// The first `limit` readings that the filter wants, by time.
///
/// Memory is bounded by twice the limit, whatever the range holds.
///
/// # Errors
/// [`ReadError`]: a file of the lake cannot be read; there is no partial answer.
pub fn history(
    files: &LakeFiles,
    tail: &dyn Tail,
    filter: &Filter,
    order: Order,
    limit: usize,
) -> Result<History, ReadError> {
    let mut points: Vec<Point> = Vec::new();
    let mut truncated = false;
    visit(files, tail, filter, Columns::Readings, &mut |row| {
        points.push(Point::of(&row));
        if points.len() >= limit.saturating_mul(2).max(1024) {
            truncated |= cut(&mut points, order, limit);
        }
    })?;
    truncated |= cut(&mut points, order, limit);
    Ok(History { points, truncated })
}

/// Sorts and keeps the first `limit`; says whether any was let go.
fn cut(points: &mut Vec<Point>, order: Order, limit: usize) -> bool {
    points.sort_unstable_by(|left, right| {
        let ordering = left.place().cmp(&right.place());
        if order == Order::Ascending { ordering } else { ordering.reverse() }
    });
    let more = points.len() > limit;
    points.truncate(limit);
    more
}

impl Point {
    fn of(row: &RowView<'_>) -> Self {
        Self {
            time: row.at_us(),
            received: row.received_us,
            key: row.key.map(str::to_owned),
            value: match row.value {
                Cell::Float(number) => PointValue::Float(number),
                Cell::Int(number) => PointValue::Int(number),
                Cell::Bool(on) => PointValue::Bool(on),
                Cell::Text(text) => PointValue::Text(text.to_owned()),
                Cell::Opaque { content_type, .. } => {
                    PointValue::Opaque { content_type: content_type.to_owned() }
                }
            },
            unit: row.unit.map(str::to_owned),
            suspect: row.suspect,
            session: row.session,
            seq: row.seq,
            index: row.index,
            entry: row.entry,
        }
    }

    fn place(&self) -> (i64, u64, u64, Seq, u16) {
        (self.time, self.session, self.seq, self.entry, self.index)
    }
}
