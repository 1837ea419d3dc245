//! The checker reads lake files as any other reader of the public format does, and finds there what
//! was planted: a missing row, a repeated one, one that nobody sent, a changed value.
//!
//! The files are written by this test, in the documented columns and sorted as the storage tier
//! sorts them, so that a fault of the real writer cannot hide itself here.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use forebay_fleet::{
    checker::{Checker, Verdict, lake},
    journal::Journal,
    script::Script,
    series::builtin,
};
use forebay_model::{Reading, Value};
use parquet::arrow::ArrowWriter;

/// Readings of a lake that changes, and how long is waited for one that sees it.
const READINGS: u32 = 40;
/// How much later each reading meets it than the one before, and after how many it begins anew.
const STEP: Duration = Duration::from_micros(50);
const STEPS: u32 = 80;
const DEADLINE: Duration = Duration::from_secs(30);

const DEVICES: u32 = 7;
const MESSAGES: u64 = 500;

#[derive(Clone)]
struct Row {
    device: String,
    session: u64,
    seq: u64,
    index: u16,
    entry: u64,
    reading: Reading<'static>,
}

fn write(path: &Path, rows: &[Row]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| (&row.device, &row.reading.key, row.reading.time, row.entry));
    let readings = || rows.iter().map(|row| &row.reading);
    let text = |value: &Value<'_>| match value {
        Value::Text(text) => Some(text.to_string()),
        _ => None,
    };
    let float = |value: &Value<'_>| if let Value::Float(n) = value { Some(*n) } else { None };
    let int = |value: &Value<'_>| if let Value::Int(n) = value { Some(*n) } else { None };
    let times = readings().map(|reading| reading.time.map(|time| time.micros()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "default")))),
        ("device", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.device)))),
        ("key", Arc::new(readings().map(|r| Some(r.key.to_string())).collect::<StringArray>())),
        ("time_us", Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
        ("value_float", Arc::new(readings().map(|r| float(&r.value)).collect::<Float64Array>())),
        ("value_int", Arc::new(readings().map(|r| int(&r.value)).collect::<Int64Array>())),
        ("value_bool", Arc::new(readings().map(|_| None).collect::<BooleanArray>())),
        ("value_text", Arc::new(readings().map(|r| text(&r.value)).collect::<StringArray>())),
        ("unit", Arc::new(readings().map(|_| None::<&str>).collect::<StringArray>())),
        (
            "session",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.session.cast_signed()))),
        ),
        ("seq", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.seq.cast_signed())))),
        (
            "index",
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| i32::from(row.index)))),
        ),
        ("entry", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.entry)))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

struct Store {
    script: Script,
    journal: Journal,
    rows: Vec<Row>,
}

/// Everything that was sent, as the tiers would deliver it: devices take turns.
fn faithful() -> Store {
    let script = Script::new(builtin(), 256, 21);
    let journal = Journal::default();
    let mut rows = Vec::new();
    let mut entry = 0;
    let sessions: Vec<u64> = (0..DEVICES).map(|device| 9000 + u64::from(device)).collect();
    for device in 0..DEVICES {
        let session = sessions[device as usize];
        let voice = script.voice(device, session);
        let log = journal.open(device, &script.device_name(device), session, script.rows(voice));
        log.sending(MESSAGES);
        log.acknowledged(MESSAGES);
    }
    for seq in 1..=MESSAGES {
        for device in 0..DEVICES {
            entry += 1;
            let session = sessions[device as usize];
            let voice = script.voice(device, session);
            for index in 0..script.rows(voice) {
                let reading = script.reading(voice, seq, index).into_owned();
                let device = script.device_name(device);
                rows.push(Row { device, session, seq, index, entry, reading });
            }
        }
    }
    Store { script, journal, rows }
}

fn check(store: &Store) -> Verdict {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = store.rows.split_at(store.rows.len() / 2);
    let hour = dir.path().join("dt=2026-11-22/hour=13");
    // Written in the wrong order: the names count.
    write(&hour.join("aa-0000000000000200-0000000000000300.parquet"), two);
    write(&hour.join("aa-0000000000000001-0000000000000199.parquet"), one);
    fs::write(hour.join(".aa-0000000000000400-0000000000000500.parquet.7.tmp"), "torn").unwrap();
    let records = store.journal.records();
    let mut checker = Checker::new(&store.script, &records);
    assert_eq!(lake::read(dir.path(), &mut checker).unwrap(), 2);
    checker.finish()
}

#[test]
fn a_faithful_lake_is_clean() {
    let store = faithful();
    let verdict = check(&store);
    assert!(verdict.is_clean(), "{verdict:#?}");
    let all = u64::from(DEVICES) * MESSAGES;
    assert_eq!((verdict.acked, verdict.stored, verdict.rows), (all, all, 2 * all));
}

#[test]
fn what_is_planted_is_found_and_nothing_else() {
    let mut store = faithful();
    let at = |row: usize| 2 * row;
    let again = store.rows[at(50)].clone();
    store.rows.push(again);
    let mut invented = store.rows[at(60)].clone();
    invented.seq = MESSAGES + 1;
    store.rows.push(invented);
    let mut foreign = store.rows[at(61)].clone();
    foreign.session = 5;
    store.rows.push(foreign);
    store.rows[at(70)].reading.value = Value::Float(-1.0);
    store.rows[at(80) + 1].reading.value = Value::Text("nonsense".into());
    store.rows.remove(at(100));
    let verdict = check(&store);
    let found = [verdict.lost, verdict.duplicated, verdict.invented, verdict.wrong];
    assert_eq!(found, [1, 1, 1, 2], "{verdict:#?}");
    assert_eq!((verdict.foreign_rows, verdict.inversions), (1, 0));
    assert_eq!(verdict.findings.len(), 5);
}

#[test]
fn a_torn_or_foreign_file_is_named() {
    let store = faithful();
    let records = store.journal.records();
    let dir = tempfile::tempdir().unwrap();
    let mut checker = Checker::new(&store.script, &records);
    assert_eq!(lake::read(&dir.path().join("none"), &mut checker).unwrap(), 0);
    fs::write(dir.path().join("torn.parquet"), "PAR1 and no footer").unwrap();
    let error = lake::read(dir.path(), &mut checker).unwrap_err().to_string();
    assert!(error.contains("torn.parquet"), "{error}");
}

#[test]
fn a_lake_whose_hours_are_exchanged_while_it_is_read_is_read_once() {
    let store = faithful();
    let dir = tempfile::tempdir().unwrap();
    let (day, beside) = (dir.path().join("dt=2026-11-22"), dir.path().join(".compacted"));
    let hour = day.join("hour=13");
    let name = |first: u64, last: u64| format!("aa-{first:016x}-{last:016x}.parquet");
    let entry_of = |row: usize| store.rows[row].entry;
    // Many small files and one large one hold the same rows.
    let rows = store.rows.len();
    let (mut start, mut small) = (0, 0);
    while start < rows {
        let mut end = (start + 40).min(rows);
        while end < rows && entry_of(end) == entry_of(end - 1) {
            end += 1;
        }
        let file = name(entry_of(start), entry_of(end - 1));
        write(&hour.join(file), &store.rows[start..end]);
        start = end;
        small += 1;
    }
    write(&beside.join(name(entry_of(0), entry_of(rows - 1))), &store.rows);
    let records = store.journal.records();
    let exchange = || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &hour, CWD, &beside, RenameFlags::EXCHANGE).unwrap();
    };
    // Each reading meets one exchange, a little later each time: some fall between two files.
    let (mut readings, mut mixed) = (0, 0);
    let deadline = Instant::now() + DEADLINE;
    while readings < READINGS || mixed == 0 {
        assert!(Instant::now() < deadline, "no reading of {readings} saw an exchange");
        let moment = STEP * (readings % STEPS);
        let mut checker = Checker::new(&store.script, &records);
        let files = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(moment);
                exchange();
            });
            lake::read(dir.path(), &mut checker)
        });
        exchange();
        let files = files.unwrap();
        let verdict = checker.finish();
        assert!(verdict.is_clean(), "{verdict:#?}");
        assert_eq!(verdict.rows as usize, rows);
        mixed += u32::from(files != 1 && files != small);
        readings += 1;
    }
    println!("{mixed} of {readings} readings saw an exchange");
}
