//! Finds the rows of a range that a store will never take, and lets all others through.
//!
//! A refused piece is cut in the middle, left half first, down to single rows. Which pieces there
//! are follows from the number of rows alone, so a piece's token names the same rows for ever. What
//! has been decided is kept in the plan of the announced range, durably, **before** a smaller piece
//! is sent: a refused piece is never sent again as a whole, which would store its rows twice if the
//! store had been mended meanwhile.
//!
//! A single refused row is only a suspect until the store has taken something else of the range:
//! a store that takes nothing at all is misconfigured, and nothing healthy is to be set aside. Its
//! letter is kept at once all the same, and dropped if the row is taken when it is asked again.
//!
//! Not here: sending, and where bad rows are kept (`dead_letter`).

/// Suspects held at most: when so many rows were refused one by one and none was taken, a human has
/// to look.
pub(super) const SUSPECTS_MAX: usize = 8;

/// Versions of the plan kept with an announced range; one line of history each:
/// - 1: the range alone decides the block.
/// - 2: the range was refused; a byte that says whether the store took any of it since, then the
///   next piece (start, end) and the suspects, `u32` little-endian each.
const WHOLE: u8 = 1;
const CUT: u8 = 2;

/// The plan of a range that is sent in one block.
pub(super) const PLAN_WHOLE: &[u8] = &[WHOLE];

/// Rows of a range, from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Piece {
    fn row(row: u32) -> Self {
        Self { start: row, end: row + 1 }
    }

    fn is_row(self) -> bool {
        self.end - self.start == 1
    }

    fn halves(self) -> (Self, Self) {
        let middle = self.start + (self.end - self.start) / 2;
        (Self { end: middle, ..self }, Self { start: middle, ..self })
    }
}

/// A row refused alone, and why.
pub(super) type Suspect = (u32, String);

/// What is to be done after a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Keep the new plan, then go on.
    Cut,
    /// Set this row aside, then go on.
    SetAside(Suspect),
    /// Keep this row's letter, then go on: it shows later whether the row or the store is bad.
    Wait(Suspect),
    /// The store took none of these: alarm, wait, then go on.
    Alarm(String),
}

/// A plan that this release cannot follow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range was announced with a plan that this release does not know: {0:02x?}")]
pub(super) struct UnknownPlan(Vec<u8>);

/// A refused range on its way through.
#[derive(Debug)]
pub(super) struct Bisection {
    /// Pieces to be sent, the next one last.
    todo: Vec<Piece>,
    suspects: Vec<Suspect>,
    /// Whether the store has taken something of this range.
    took: bool,
}

impl Bisection {
    /// The range was refused as a whole.
    ///
    /// # Panics
    /// If it has no row.
    pub(super) fn new(rows: u32, reason: String) -> (Self, Step) {
        let all = Piece { start: 0, end: rows };
        let mut bisection = Self { todo: Vec::new(), suspects: Vec::new(), took: false };
        let step = bisection.refused(all, reason);
        (bisection, step)
    }

    /// Goes on where an earlier process was; `None` if the range is still to be sent whole.
    pub(super) fn resume(rows: u32, plan: &[u8]) -> Result<Option<Self>, UnknownPlan> {
        let unknown = || UnknownPlan(plan.to_vec());
        match plan.split_first() {
            None | Some((&WHOLE, [])) => return Ok(None),
            Some((&CUT, [took @ (0 | 1), numbers @ ..]))
                if numbers.len() >= 8 && numbers.len().is_multiple_of(4) =>
            {
                let took = *took == 1;
                let numbers: Vec<u32> = numbers
                    .chunks_exact(4)
                    .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                    .collect();
                let next = Piece { start: numbers[0], end: numbers[1] };
                let mut todo = way_to(rows, next).ok_or_else(unknown)?;
                let mut rows_before = next.start;
                // Asked again first: the answer says why, or that they were mended.
                for &row in numbers[2..].iter().rev() {
                    if row >= rows_before {
                        return Err(unknown());
                    }
                    todo.push(Piece::row(row));
                    rows_before = row;
                }
                return Ok(Some(Self { todo, suspects: Vec::new(), took }));
            }
            Some(_) => {}
        }
        Err(unknown())
    }

    /// Rows that are not decided yet.
    pub(super) fn open_rows(&self) -> u64 {
        let todo: u64 = self.todo.iter().map(|piece| u64::from(piece.end - piece.start)).sum();
        todo + self.suspects.len() as u64
    }

    /// What to keep before the next piece is sent.
    pub(super) fn plan(&self) -> Option<Vec<u8>> {
        let next = self.todo.last()?;
        let mut plan = vec![CUT, u8::from(self.took)];
        let rows = self.suspects.iter().map(|(row, _)| *row);
        for number in [next.start, next.end].into_iter().chain(rows) {
            plan.extend_from_slice(&number.to_le_bytes());
        }
        Some(plan)
    }

    /// The piece to send; `None` when all have been decided but the suspects.
    pub(super) fn next(&self) -> Option<Piece> {
        self.todo.last().copied()
    }

    /// The store took the next piece. Returns the suspects: they are to be set aside.
    pub(super) fn took(&mut self) -> Vec<Suspect> {
        self.todo.pop();
        self.took = true;
        std::mem::take(&mut self.suspects)
    }

    /// The store refused the next piece.
    pub(super) fn refused_next(&mut self, reason: String) -> Option<Step> {
        let piece = self.todo.pop()?;
        Some(self.refused(piece, reason))
    }

    fn refused(&mut self, piece: Piece, reason: String) -> Step {
        if !piece.is_row() {
            let (left, right) = piece.halves();
            self.todo.extend([right, left]);
            return Step::Cut;
        }
        if self.took {
            return Step::SetAside((piece.start, reason));
        }
        let suspect = (piece.start, reason);
        self.suspects.push(suspect.clone());
        if self.suspects.len() >= SUSPECTS_MAX {
            // All are asked again before anything else is sent.
            return Step::Alarm(self.again());
        }
        Step::Wait(suspect)
    }

    /// The suspects that are left when nothing else of the range was taken.
    pub(super) fn left(&mut self) -> Vec<Suspect> {
        std::mem::take(&mut self.suspects)
    }

    /// Takes refusals for what they say from now on: the store was asked often enough.
    pub(super) fn believe(&mut self) {
        self.took = true;
    }

    /// Asks about all suspects again; says what is wrong.
    pub(super) fn doubt(&mut self, suspects: Vec<Suspect>) -> String {
        self.suspects = suspects;
        self.again()
    }

    fn again(&mut self) -> String {
        let count = self.suspects.len();
        let mut last = String::new();
        for (row, reason) in self.suspects.drain(..).rev() {
            self.todo.push(Piece::row(row));
            last = reason;
        }
        format!("the store refuses rows one by one and took none of the last {count}: {last}")
    }
}

/// The pieces from `next` to the end of the range, the next one last; `None` if halving never leads
/// to it.
fn way_to(rows: u32, next: Piece) -> Option<Vec<Piece>> {
    let mut todo = Vec::new();
    let mut here = Piece { start: 0, end: rows };
    while here != next {
        if here.is_row() || here.start >= here.end {
            return None;
        }
        let (left, right) = here.halves();
        if next.end <= left.end {
            todo.push(right);
            here = left;
        } else {
            here = right;
        }
    }
    todo.push(here);
    Some(todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_leads_back_to_the_same_pieces() {
        for rows in [1_u32, 2, 3, 7, 64, 1000] {
            let (mut bisection, step) = Bisection::new(rows, "bad".to_owned());
            let mut cut = step == Step::Cut;
            let mut seed = rows;
            while let Some(next) = bisection.next() {
                if cut {
                    let plan = bisection.plan().expect("there is a next piece");
                    assert!(plan.len() <= forebay_wire::feed::PLAN_BYTES_MAX);
                    let again = Bisection::resume(rows, &plan).expect("known").expect("cut");
                    let suspects = bisection.suspects.iter().rev().map(|(row, _)| Piece::row(*row));
                    let expected: Vec<_> = bisection.todo.iter().copied().chain(suspects).collect();
                    assert_eq!(again.todo, expected);
                }
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let take = bisection.took || next.is_row();
                cut = if take && seed >> 30 != 0 {
                    bisection.took();
                    false
                } else {
                    bisection.refused_next("bad".to_owned()).expect("there was one") == Step::Cut
                };
            }
        }
    }

    #[test]
    fn plans_of_other_releases_and_impossible_ones_are_refused() {
        assert!(matches!(Bisection::resume(9, &[]), Ok(None)));
        assert!(matches!(Bisection::resume(9, PLAN_WHOLE), Ok(None)));
        let plan = |numbers: &[u32]| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            [CUT, 0].into_iter().chain(bytes).collect::<Vec<u8>>()
        };
        assert!(Bisection::resume(8, &plan(&[4, 6])).is_ok());
        for bad in [vec![3], vec![1, 1], vec![CUT, 0, 1], plan(&[3, 5]), plan(&[4, 6, 5])] {
            assert!(Bisection::resume(8, &bad).is_err(), "{bad:?}");
        }
        assert!(Bisection::resume(0, &plan(&[0, 1])).is_err());
    }
}
