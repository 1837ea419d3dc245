//! Last values from the files of the lake, for entries that the middle no longer has.

use forebay_wire::{QueueId, Seq};

use crate::{
    last::LastValues,
    read::{Columns, Filter, LakeFiles, ReadError},
};

/// Entries above `after` and up to `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) queue: QueueId,
    pub(super) after: Seq,
    pub(super) upto: Seq,
}

/// Takes up the rows of a gap; returns how many there were.
pub(super) fn rebuild(lake: &LakeFiles, last: &LastValues, gap: Gap) -> Result<u64, ReadError> {
    let mut rows = 0;
    let all = Filter::default();
    for file in lake.wanted(&all)? {
        let name = file.name;
        if name.queue != gap.queue || name.last <= gap.after || name.first > gap.upto {
            continue;
        }
        lake.scan(&file, &all, Columns::Readings, &mut |row| {
            if row.entry > gap.after && row.entry <= gap.upto {
                last.apply_row(&row);
                rows += 1;
            }
        })?;
    }
    Ok(rows)
}
