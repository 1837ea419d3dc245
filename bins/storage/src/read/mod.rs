//! Reading what is stored: history, trends and whole scans over the lake and the unflushed tail.
//!
//! A query first copies what it wants of the tail, then lists the files and passes over those
//! whose range lies in that tail: every row is seen once, though files appear, and hours are
//! compacted, while it runs.
//!
//! Not here: last values (`last`), and HTTP (`http`).

mod files;
mod filter;
mod history;
pub mod scan;
mod tail;
mod trend;
mod walk;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use files::{LakeFile, LakeFiles};
pub use filter::Filter;
pub use history::{History, Order, Point, PointValue, history};
pub use scan::Columns;
pub use tail::{NoTail, Tail, TailMark};
pub use trend::{Bucket, Trend, trend};

use crate::rows::RowView;

/// Why a query could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Retry: a file or folder could not be read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Stop: a file of the lake is not what was written.
    #[error("lake file {path} is damaged: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl ReadError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }

    /// Whether a file was listed and is not there any more.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn parquet(path: &Path, error: parquet::errors::ParquetError) -> Self {
        Self::Damaged { path: path.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn arrow(path: &Path, error: arrow_schema::ArrowError) -> Self {
        Self::Damaged { path: path.to_owned(), reason: error.to_string() }
    }
}

/// Calls `each` for every row of a lake's files that the filter wants, hour by hour.
///
/// For checks and exports: it reads all columns, and only what is in files.
///
/// # Errors
/// [`ReadError`] names the file; rows before the fault have been handed out.
pub fn scan_lake(
    root: &Path,
    filter: &Filter,
    each: &mut dyn FnMut(RowView<'_>),
) -> Result<(), ReadError> {
    LakeFiles::open(root)?.visit(filter, Columns::All, &[], each)
}

/// Visits every wanted row once: those of the tail, then those of the files before it.
fn visit(
    files: &LakeFiles,
    tail: &dyn Tail,
    filter: &Filter,
    columns: Columns,
    each: &mut dyn FnMut(RowView<'_>),
) -> Result<(), ReadError> {
    let marks = tail.visit(filter, each);
    files.visit(filter, columns, &marks, each)
}
