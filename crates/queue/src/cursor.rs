//! The named readers as the ring knows them: where each stands, and where its space begins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::{Mark, NAME_BYTES_MAX, READERS_MAX, Row};

/// One named reader's place.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) name: String,
    place: Mutex<Place>,
    /// Whether a `Reader` is using it.
    held: AtomicBool,
}

/// Where a reader stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Everything below is done.
    pub(crate) committed: Mark,
    /// The same, as of the last checkpoint.
    pub(crate) durable: Mark,
    /// Kept beside it.
    pub(crate) note: Vec<u8>,
}

impl Cursor {
    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Release);
    }
}

/// All named readers.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    table: Mutex<Vec<Arc<Cursor>>>,
}

impl Cursors {
    /// The readers of a checkpoint.
    pub(crate) fn of_rows(rows: &[Row]) -> Self {
        let cursor = |row: &Row| {
            let place =
                Place { committed: row.cursor, durable: row.cursor, note: row.note.clone() };
            let held = AtomicBool::new(false);
            Arc::new(Cursor { name: row.name.clone(), place: Mutex::new(place), held })
        };
        Cursors { table: Mutex::new(rows.iter().map(cursor).collect()) }
    }

    /// The rows of the next checkpoint.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |cursor: &Arc<Cursor>| {
            let place = cursor.place();
            Row { name: cursor.name.clone(), cursor: place.committed, note: place.note.clone() }
        };
        self.table().iter().map(row).collect()
    }

    /// The slowest commit; `None` without readers.
    pub(crate) fn slowest(&self) -> Option<Mark> {
        let table = self.table();
        table.iter().map(|cursor| cursor.place().committed).min_by_key(|mark| mark.position)
    }

    /// Remembers that the checkpoint of these rows is on the medium.
    pub(crate) fn mark_durable(&self, rows: &[Row]) {
        let table = self.table();
        for row in rows {
            if let Some(cursor) = table.iter().find(|cursor| cursor.name == row.name) {
                cursor.place().durable = row.cursor;
            }
        }
    }

    /// Takes the reader of that name, and says whether it is new; a new one stands at `oldest`.
    pub(crate) fn hold(&self, name: &str, oldest: Mark) -> Result<(Arc<Cursor>, bool)> {
        let refuse = |reason| Err(Error::Reader { name: name.to_owned(), reason });
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return refuse("a name has 1 to 40 bytes");
        }
        let mut table = self.table();
        if let Some(cursor) = table.iter().find(|cursor| cursor.name == name) {
            if cursor.held.swap(true, Ordering::Acquire) {
                return refuse("it is in use");
            }
            return Ok((Arc::clone(cursor), false));
        }
        if table.len() == READERS_MAX {
            return refuse("the queue has 24 readers already");
        }
        let place = Place { committed: oldest, durable: oldest, note: Vec::new() };
        let cursor = Arc::new(Cursor {
            name: name.to_owned(),
            place: Mutex::new(place),
            held: AtomicBool::new(true),
        });
        table.push(Arc::clone(&cursor));
        Ok((cursor, true))
    }

    /// Forgets a reader that nobody uses.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let refuse = |reason| Err(Error::Reader { name: name.to_owned(), reason });
        let mut table = self.table();
        match table.iter().position(|cursor| cursor.name == name) {
            None => refuse("there is none of this name"),
            Some(at) if table[at].is_held() => refuse("it is in use"),
            Some(at) => {
                table.remove(at);
                Ok(())
            }
        }
    }

    /// The table, locked.
    pub(crate) fn table(&self) -> MutexGuard<'_, Vec<Arc<Cursor>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
