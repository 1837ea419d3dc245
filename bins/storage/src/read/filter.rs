//! Which rows a query wants.

use crate::rows::RowView;

/// Every part that is given must match; a filter without parts wants all rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Rows of this tenant.
    pub tenant: Option<String>,
    /// Rows of this device.
    pub device: Option<String>,
    /// Rows of this key.
    pub key: Option<String>,
    /// Rows measured (or, without such a time, received) at or after this, in microseconds.
    pub from_us: Option<i64>,
    /// Rows measured (or received) before this.
    pub to_us: Option<i64>,
}

impl Filter {
    /// Whether a row matches.
    #[must_use]
    pub fn wants(&self, row: &RowView<'_>) -> bool {
        let text = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        text(&self.device, row.device)
            && self.key.as_deref().is_none_or(|wanted| row.key == Some(wanted))
            && text(&self.tenant, row.tenant)
            && self.from_us.is_none_or(|from_us| row.at_us() >= from_us)
            && self.to_us.is_none_or(|to_us| row.at_us() < to_us)
    }

    /// The half-open range of times it wants, if it bounds any side.
    #[must_use]
    pub fn bounds(&self) -> Option<(i64, i64)> {
        (self.from_us.is_some() || self.to_us.is_some())
            .then(|| (self.from_us.unwrap_or(i64::MIN), self.to_us.unwrap_or(i64::MAX)))
    }

    /// Whether it can want a row whose time lies between two times, both included.
    #[must_use]
    pub fn meets(&self, (earliest_us, latest_us): (i64, i64)) -> bool {
        self.from_us.is_none_or(|from_us| latest_us >= from_us)
            && self.to_us.is_none_or(|to_us| earliest_us < to_us)
    }
}
