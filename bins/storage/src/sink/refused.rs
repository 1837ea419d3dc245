//! What a store refuses: the range is cut until only the rows at fault are left, and these are set
//! aside, each as a letter that is on the medium before anything after it is sent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use tokio::runtime::Runtime;

use super::{
    Backoff, DeadLetters, Letter, Sink, Token, TokenPiece,
    bisect::{Bisection, SUSPECTS_MAX, Step, Suspect},
    writer::{Stopped, Writer},
};
use crate::{feed::Consumer, rows::Rows};

/// Rounds in which rows are tried again before a store that takes nothing is believed: about half a
/// minute.
const DOUBTS_MAX: u32 = 6;

/// Letters on the medium of rows that may yet be taken, by their places in the range.
type Letters = BTreeMap<u32, PathBuf>;

impl<C: Consumer, S: Sink> Writer<C, S> {
    /// Sends what a refused range holds piece by piece, and sets aside the rows that are at fault.
    ///
    /// Returns how many those are.
    pub(super) fn bisect(
        &mut self,
        runtime: &Runtime,
        rows: &Rows,
        token: &Token,
        mut cut: Bisection,
    ) -> Result<u64, Stopped> {
        let mut wait = Backoff::for_human();
        let (mut doubts, mut count) = (0, 0);
        // Suspects whose letter is on the medium already.
        let mut kept = Letters::new();
        // A range of one row was refused alone already.
        let mut changed = true;
        loop {
            let Some(piece) = cut.next() else {
                let left = cut.left();
                if self.refused_in_a_row + left.len() < SUSPECTS_MAX {
                    self.refused_in_a_row += left.len();
                    return Ok(count + self.set_aside(rows, token, left, &mut kept)?);
                }
                let reason = cut.doubt(left);
                self.doubt(&reason, &mut cut, &mut doubts, &mut wait)?;
                continue;
            };
            if changed && let Some(plan) = cut.plan() {
                self.prepare(token, &plan)?;
            }
            let (start, end) = (piece.start as usize, piece.end as usize);
            let named = TokenPiece { start: piece.start, end: piece.end, letter: false };
            let named = Token { piece: Some(named), ..*token };
            let sent = self.send(runtime, &rows.piece(start..end), &named)?;
            changed = false;
            match sent {
                Ok(()) => {
                    if let Some(letter) = kept.remove(&piece.start) {
                        self.drop_letter(&letter);
                    }
                    let bad = cut.took();
                    count += self.set_aside(rows, token, bad, &mut kept)?;
                }
                Err(reason) => match cut.refused_next(reason) {
                    Some(Step::SetAside(bad)) => {
                        count += self.set_aside(rows, token, vec![bad], &mut kept)?;
                    }
                    Some(Step::Alarm(reason)) => {
                        self.doubt(&reason, &mut cut, &mut doubts, &mut wait)?;
                    }
                    Some(Step::Cut) => changed = true,
                    // A store with a cursor of its own moves it past the row when it takes the
                    // next piece: a replay would leave the row out, so its letter comes first.
                    Some(Step::Wait(suspect)) => {
                        let letter = self.keep_letter(rows, token, &suspect)?;
                        kept.insert(suspect.0, letter);
                    }
                    None => {}
                },
            }
        }
    }

    /// Alarms, waits, and lets the same rows be tried again; after some rounds they are believed to
    /// be at fault.
    fn doubt(
        &mut self,
        reason: &str,
        cut: &mut Bisection,
        doubts: &mut u32,
        wait: &mut Backoff,
    ) -> Result<(), Stopped> {
        *doubts += 1;
        if *doubts > DOUBTS_MAX {
            tracing::error!(consumer = %self.name, reason, "believing the store: setting rows aside");
            cut.believe();
            return Ok(());
        }
        self.alarm(reason, wait)
    }

    /// Keeps rows that the store will never take, but those `kept` before, and says how many they
    /// are; a disk that is full holds the sink up.
    fn set_aside(
        &mut self,
        rows: &Rows,
        token: &Token,
        bad: Vec<Suspect>,
        kept: &mut Letters,
    ) -> Result<u64, Stopped> {
        let count = bad.len() as u64;
        self.range.dead += count;
        for suspect in bad {
            let path = match kept.remove(&suspect.0) {
                Some(path) => path,
                None => self.keep_letter(rows, token, &suspect)?,
            };
            let (place, reason) = suspect;
            let row = rows.row(place as usize);
            self.status.dead_letters.fetch_add(1, Ordering::Relaxed);
            tracing::error!(consumer = %self.name, device = row.device, seq = row.seq,
                path = %path.display(), reason, "set aside a row that the store refuses");
        }
        Ok(count)
    }

    /// Keeps the letter of a row that was refused; on return it is on the medium.
    fn keep_letter(
        &mut self,
        rows: &Rows,
        token: &Token,
        (place, reason): &Suspect,
    ) -> Result<PathBuf, Stopped> {
        let letter = Letter::new(&self.name, reason, token, *place, &rows.row(*place as usize));
        let mut backoff = Backoff::default();
        loop {
            match self.dead_letters.keep_row(&letter) {
                Ok(path) => return Ok(path),
                Err(error) => {
                    self.retry(&format!("cannot keep a dead letter: {error}"), &mut backoff)?;
                }
            }
        }
    }

    /// A suspect was taken after all: its letter goes. One that stays counts once when it is sent.
    fn drop_letter(&self, letter: &Path) {
        if let Err(error) = DeadLetters::drop_letter(letter) {
            tracing::warn!(consumer = %self.name, %error, path = %letter.display(),
                "the letter of a row that the store has taken stays");
        }
    }
}
