//! What each durable consumer has accounted for, kept with its cursor.
//!
//! A tally belongs to the number that was committed with it. It is written before the cursor moves,
//! into the older of two files; the other still holds what belongs to the cursor as it stands. So
//! whatever dies in between, one of the two has the tally of the cursor that is found (I15).
//!
//! ```text
//!   0  magic       u64   "FBTALLY2"
//!   8  generation  u64   one more at each write; the higher of two files is the newer
//!  16  length      u32   bytes that follow, the checksum not counted
//!  20  consumers: length of the name u8, name, committed u64, whether the beginning is known u8,
//!      records and messages of the log before the consumer's first u64 each, messages that its
//!      gaps named then u64, tally 56 bytes
//!      crc         u32   CRC-32C of all before
//! ```
//!
//! History: 1, the first; 2, with what gaps named then, which is 0 for files of version 1.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crc_fast::{CrcAlgorithm, checksum};
use forebay_link::{Seq, Tally};
use forebay_wire::feed::TALLY_BYTES;
use hashbrown::HashMap;

use crate::{
    dedup::ledger::Ledger,
    snapshot::slot::{FileMedium, Medium},
};

/// The two files.
const FILES: [&str; 2] = ["tallies-0", "tallies-1"];
const MAGIC: u64 = u64::from_le_bytes(*b"FBTALLY2");
/// Of files that did not know gaps.
const MAGIC_1: u64 = u64::from_le_bytes(*b"FBTALLY1");
const HEAD_BYTES: usize = 20;
const CRC_BYTES: usize = 4;
/// Consumers are few and their names short.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What one consumer has accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// The cursor that the tally belongs to.
    pub committed: Seq,
    /// What it has told.
    pub tally: Tally,
    /// What the log had counted before the consumer's first record. Not known of a consumer that
    /// joined later, or whose tally was lost, until it has passed what was the log's end at one of
    /// its commits (`beginning`).
    pub before: Option<Before>,
}

/// Figures of the ledger at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Before {
    pub records: u64,
    pub messages: u64,
    /// Messages that the consumer's gaps named by then: they are among `messages`.
    pub given_up: u64,
}

impl Before {
    /// Of a consumer that has told `tally` where the log's figures are `ledger`, and whose gaps
    /// name so many messages.
    pub(crate) fn of(ledger: &Ledger, tally: &Tally, given_up: u64) -> Self {
        Self {
            records: ledger.records.saturating_sub(tally.records),
            messages: ledger.entries.saturating_sub(tally.messages),
            given_up,
        }
    }
}

impl Account {
    /// Of a consumer that reads the log from its first record on.
    const FIRST: Self = Self {
        committed: Seq::ZERO,
        tally: Tally {
            records: 0,
            messages: 0,
            unreadable: 0,
            rows: 0,
            stored: 0,
            dead: 0,
            left_out: 0,
        },
        before: Some(Before { records: 0, messages: 0, given_up: 0 }),
    };
}

type Page = HashMap<String, Account>;

/// The accounts of all consumers.
#[derive(Debug)]
pub(crate) struct Accounts<M = FileMedium> {
    current: Page,
    /// The page before the newest, for cursors that the newest is ahead of.
    older: Page,
    files: [M; 2],
    generation: u64,
}

impl Accounts {
    /// Opens or makes the files in `dir`.
    ///
    /// # Errors
    /// They cannot be opened or read. What is torn in them is passed over.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let [first, second] = FILES.map(|name| dir.join(name));
        let files = [FileMedium::open(&first)?, FileMedium::open(&second)?];
        File::open(dir)?.sync_all()?;
        Self::of(files)
    }
}

impl<M: Medium> Accounts<M> {
    /// Reads what `files` hold.
    fn of(files: [M; 2]) -> io::Result<Self> {
        let mut pages = Vec::new();
        for file in &files {
            let length = file.length_bytes()?.min(FILE_BYTES_MAX) as usize;
            let mut bytes = vec![0; length];
            let filled = file.read_at(0, &mut bytes)?;
            pages.push(decode(&bytes[..filled]).unwrap_or_default());
        }
        pages.sort_by_key(|(generation, _)| *generation);
        let (generation, current) = pages.pop().unwrap_or_default();
        let (_, older) = pages.pop().unwrap_or_default();
        Ok(Self { current, older, files, generation })
    }

    /// The account of `name`, which stands at `committed` in the log.
    pub(crate) fn get(&self, name: &str, committed: Seq) -> Option<Account> {
        let pages = [&self.current, &self.older];
        let accounts = pages.into_iter().filter_map(|page| page.get(name));
        accounts.into_iter().find(|account| account.committed == committed).copied()
    }

    /// The newest account of `name`: the one that its cursor has reached, or is about to.
    pub(crate) fn latest(&self, name: &str) -> Option<Account> {
        self.current.get(name).copied()
    }

    /// The cursor of `name` stands at `committed`: of what was kept of it, only what belongs there
    /// holds.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn settle(&mut self, name: &str, committed: Seq) -> io::Result<()> {
        let account = self.get(name, committed);
        if account == self.latest(name) { Ok(()) } else { self.put(name, account) }
    }

    /// Forgets the accounts of those that are not to be kept; durable on return.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        let gone: Vec<_> = self.current.keys().filter(|name| !keep(name)).cloned().collect();
        gone.iter().try_for_each(|name| self.put(name, None))
    }

    /// A consumer begins at the first record of an empty log; durable on return.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn begin(&mut self, name: &str) -> io::Result<()> {
        self.put(name, Some(Account::FIRST))
    }

    /// Keeps the account of `name`, or forgets it; durable on return.
    ///
    /// # Errors
    /// What the files hold is not known: end the process.
    pub(crate) fn put(&mut self, name: &str, account: Option<Account>) -> io::Result<()> {
        self.older.clone_from(&self.current);
        match account {
            Some(account) => self.current.insert(name.to_owned(), account),
            None => self.current.remove(name),
        };
        self.generation += 1;
        let bytes = encode(self.generation, &self.current);
        let file = &mut self.files[(self.generation % 2) as usize];
        file.write_at(0, &bytes)?;
        file.sync()
    }

    /// The consumer has caught up with the log, whose figures are `ledger`: what it has not told
    /// lies before its beginning, with the messages of its gaps. Written down with its next commit.
    pub(crate) fn caught_up(&mut self, name: &str, ledger: &Ledger, given_up: u64) {
        let Some(account) = self.current.get_mut(name) else { return };
        account.before.get_or_insert(Before::of(ledger, &account.tally, given_up));
    }
}

fn encode(generation: u64, page: &Page) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + page.len() * 128);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for (name, account) in page {
        let Account { committed, tally, before } = account;
        bytes.push(u8::try_from(name.len()).expect("a consumer's name has at most 64 bytes"));
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&committed.get().to_le_bytes());
        bytes.push(u8::from(before.is_some()));
        let Before { records, messages, given_up } = before.unwrap_or_default();
        bytes.extend_from_slice(&records.to_le_bytes());
        bytes.extend_from_slice(&messages.to_le_bytes());
        bytes.extend_from_slice(&given_up.to_le_bytes());
        bytes.extend_from_slice(&tally.to_bytes());
    }
    let length = u32::try_from(bytes.len() - HEAD_BYTES).expect("consumers are few");
    bytes[16..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Page)> {
    let mut rest = bytes;
    let magic = u64::from_le_bytes(take(&mut rest)?);
    if ![MAGIC, MAGIC_1].contains(&magic) {
        return None;
    }
    let generation = u64::from_le_bytes(take(&mut rest)?);
    let length = u32::from_le_bytes(take(&mut rest)?) as usize;
    let covered = HEAD_BYTES.checked_add(length)?;
    let crc = bytes.get(covered..covered.checked_add(CRC_BYTES)?)?;
    if (checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..covered]) as u32).to_le_bytes() != crc {
        return None;
    }
    let mut rest = rest.get(..length)?;
    let mut page = Page::new();
    while !rest.is_empty() {
        let [name_bytes] = take(&mut rest)?;
        let (name, left) = rest.split_at_checked(usize::from(name_bytes))?;
        rest = left;
        let committed = Seq::new(u64::from_le_bytes(take(&mut rest)?));
        let [known] = take(&mut rest)?;
        let records = u64::from_le_bytes(take(&mut rest)?);
        let messages = u64::from_le_bytes(take(&mut rest)?);
        let given_up = if magic == MAGIC { u64::from_le_bytes(take(&mut rest)?) } else { 0 };
        let tally = Tally::from_bytes(&take::<TALLY_BYTES>(&mut rest)?);
        let before = (known == 1).then_some(Before { records, messages, given_up });
        let name = String::from_utf8(name.to_vec()).ok()?;
        page.insert(name, Account { committed, tally, before });
    }
    Some((generation, page))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counter: u64) -> Seq {
        Seq::from_parts(3, counter)
    }

    fn account(counter: u64) -> Account {
        let tally = Tally { records: counter, messages: counter, ..Tally::default() };
        let before = Some(Before { given_up: 3, ..Before::default() });
        Account { committed: at(counter), tally, before }
    }

    /// A death between the tally and the cursor finds the old cursor, after it the new one; and a
    /// write that was torn leaves what was there.
    #[test]
    fn a_cursor_has_its_tally_on_both_sides_of_a_death() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut accounts = Accounts::open(dir.path()).expect("opens");
        accounts.begin("lake").expect("written");
        accounts.put("lake", Some(account(5))).expect("written");
        accounts.put("other", Some(account(7))).expect("written");
        accounts.put("lake", Some(account(9))).expect("written");
        drop(accounts);
        let again = Accounts::open(dir.path()).expect("opens");
        assert_eq!(again.get("lake", at(5)), Some(account(5)));
        assert_eq!(again.get("lake", at(9)), Some(account(9)));
        assert_eq!(again.get("other", at(7)), Some(account(7)));
        assert_eq!((again.get("lake", at(6)), again.get("nobody", at(9))), (None, None));
        let newest = dir.path().join(FILES[(again.generation % 2) as usize]);
        let whole = fs::read(&newest).expect("read");
        for length in 0..whole.len() {
            fs::write(&newest, &whole[..length]).expect("written");
            let torn = Accounts::open(dir.path()).expect("opens");
            assert_eq!(torn.get("lake", at(5)), Some(account(5)), "cut at {length}");
            assert_eq!(torn.get("lake", at(9)), None, "cut at {length}");
        }
        for at_byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at_byte] ^= 0x10;
            assert_eq!(decode(&flipped), None, "flipped at {at_byte}");
        }
    }

    /// A file as it was written before gaps were known, byte by byte.
    #[test]
    fn a_file_of_version_1_is_read_and_no_gap_is_before_it() {
        let mut bytes = b"FBTALLY1".to_vec();
        bytes.extend_from_slice(&4_u64.to_le_bytes());
        bytes.extend_from_slice(&(5 + 8 + 1 + 16 + TALLY_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(b"\x04lake");
        bytes.extend_from_slice(&at(9).get().to_le_bytes());
        bytes.push(1);
        bytes.extend_from_slice(&20_u64.to_le_bytes());
        bytes.extend_from_slice(&10_u64.to_le_bytes());
        let account = account(9);
        bytes.extend_from_slice(&account.tally.to_bytes());
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
        bytes.extend_from_slice(&crc.to_le_bytes());
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(FILES[0]), bytes).expect("written");
        let accounts = Accounts::open(dir.path()).expect("opens");
        let before = Some(Before { records: 20, messages: 10, given_up: 0 });
        assert_eq!(accounts.get("lake", at(9)), Some(Account { before, ..account }));
    }

    #[test]
    fn who_joins_later_is_counted_from_when_it_has_caught_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut accounts = Accounts::open(dir.path()).expect("opens");
        accounts.put("late", Some(Account { before: None, ..account(4) })).expect("written");
        let ledger = Ledger { records: 12, entries: 10, ..Ledger::default() };
        accounts.caught_up("late", &ledger, 2);
        let known = accounts.get("late", at(4)).expect("an account").before;
        assert_eq!(known, Some(Before { records: 8, messages: 6, given_up: 2 }));
        accounts.caught_up("late", &Ledger { records: 99, entries: 99, ..ledger }, 5);
        assert_eq!(accounts.get("late", at(4)).expect("an account").before, known);
    }
}
