//! The rows of a lake's files, hour by hour, each once, though an hour is exchanged meanwhile.
//!
//! A compaction by this process keeps what a query has listed. One by another process knows nothing
//! of the query: a file may be gone when it is opened, and its rows lie in one with a longer range.
//! Then the hour is listed anew, and read without the ranges whose rows were handed out before.

use super::{Columns, Filter, LakeFile, LakeFiles, ReadError, TailMark, files::LISTINGS_MAX};
use crate::{
    lake::name::{FileName, Hour},
    rows::RowView,
};

/// What a query looks for.
struct Query<'a> {
    filter: &'a Filter,
    columns: Columns,
    /// Rows that were handed out from memory.
    marks: &'a [TailMark],
}

impl LakeFiles {
    /// Calls `each` for every row in files that the filter wants, but for those of the tail.
    ///
    /// # Errors
    /// [`ReadError`]; rows before the fault have been handed out.
    pub(super) fn visit(
        &self,
        filter: &Filter,
        columns: Columns,
        marks: &[TailMark],
        each: &mut dyn FnMut(RowView<'_>),
    ) -> Result<(), ReadError> {
        let query = Query { filter, columns, marks };
        for listed in self.wanted(filter)?.chunk_by(|one, other| one.hour == other.hour) {
            self.visit_hour(listed[0].hour, listed.to_vec(), &query, each)?;
        }
        Ok(())
    }

    fn visit_hour(
        &self,
        hour: Hour,
        mut listed: Vec<LakeFile>,
        query: &Query<'_>,
        each: &mut dyn FnMut(RowView<'_>),
    ) -> Result<(), ReadError> {
        let mut read: Vec<FileName> = Vec::new();
        // Of these, the ones before the listing that is read now.
        let mut before = 0;
        'listing: for _ in 0..LISTINGS_MAX {
            for file in &listed {
                let name = &file.name;
                if read[..before].iter().any(|done| done == name || done.supersedes(name)) {
                    continue;
                }
                if self.visit_file(file, query, &read[..before], each)? {
                    read.push(*name);
                    continue;
                }
                let now = self.list(hour)?;
                if now.iter().any(|file| file.name == *name || file.name.supersedes(name)) {
                    before = read.len();
                    listed = now;
                    continue 'listing;
                }
                // Dropped, or taken away by hand: no longer stored.
            }
            return Ok(());
        }
        Err(self.changing(hour))
    }

    /// The rows of a file, but for those of the files `before`; `false` if it is gone.
    fn visit_file(
        &self,
        file: &LakeFile,
        query: &Query<'_>,
        before: &[FileName],
        each: &mut dyn FnMut(RowView<'_>),
    ) -> Result<bool, ReadError> {
        let &Query { filter, columns, marks } = query;
        let name = &file.name;
        let tail = marks.iter().find(|mark| mark.queue == name.queue).map(|mark| mark.first);
        if tail.is_some_and(|tail| tail <= name.first) {
            return Ok(true);
        }
        // Compacted since the tail was copied: it begins before the tail and reaches into it.
        let tail = tail.filter(|&tail| tail <= name.last);
        let overlaps = |other: &&FileName| {
            other.queue == name.queue && other.first <= name.last && name.first <= other.last
        };
        let before: Vec<&FileName> = before.iter().filter(overlaps).collect();
        if tail.is_none() && before.is_empty() {
            return self.scan(file, filter, columns, each);
        }
        self.scan(file, filter, columns.with_entries(), &mut |row| {
            let seen = |of: &&FileName| (of.first..=of.last).contains(&row.entry);
            if tail.is_none_or(|tail| row.entry < tail) && !before.iter().any(seen) {
                each(row);
            }
        })
    }
}
