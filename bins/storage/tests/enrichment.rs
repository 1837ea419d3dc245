//! What the registry knows stands beside every row, and never changes which rows there are.
//!
//! Method: the same messages with and without a registry, as batches, as files, and as live events.
//! Files of before the registry are made by leaving out the columns that came with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::{
    DEADLINE, Log, eventually,
    rows::{OwnedRow, messages, simple},
};
use forebay_link::{QueueId, Seq};
use forebay_model::{
    Message,
    registry::{Builder, DataType, KeyDefinition, Listing, Registry},
};
use forebay_ops::Shutdown;
use forebay_storage::{
    lake::{
        encode,
        schema::{SCHEMA, schema_of},
    },
    last::LastValues,
    live::{BufferLimits, Follower, FollowerConfig, Hub, LiveFeed, Reader},
    read::{Columns, Filter, scan},
    registry::Current,
    rows::Rows,
};
use forebay_wire::live::{ServerFrame, Subscription};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use tokio::sync::Semaphore;

/// Half of the devices of [`messages`], with bounds that some of their readings break.
fn registry() -> Arc<Registry> {
    let mut builder = Builder::default();
    let temperature = KeyDefinition {
        data_type: Some(DataType::Float),
        unit: Some("K".into()),
        max: Some(50.0),
        ..KeyDefinition::default()
    };
    builder.keys_of_type("pump").insert("temperature", temperature).unwrap();
    for device in 0..4 {
        let listing = Listing {
            device: format!("device-{device}"),
            tenant: (device == 3).then(|| "other".to_owned()),
            name: Some(format!("Pump {device}")),
            device_type: Some("pump".to_owned()),
            location: (device % 2 == 0).then(|| "hall 2".to_owned()),
            ..Listing::default()
        };
        builder.add(listing).unwrap();
    }
    Arc::new(builder.build())
}

fn batch(messages: &[Message<'_>], registry: Option<Arc<Registry>>) -> Rows {
    let mut rows = Rows::new(QueueId::new(7));
    rows.describe_by(registry.unwrap_or_default());
    for (number, message) in messages.iter().enumerate() {
        rows.append(Seq::from_parts(1, number as u64 + 1), message);
    }
    rows
}

#[test]
fn enrichment_changes_no_row_no_order_and_no_block() {
    let messages = messages(5, 4000);
    let (plain, described) = (batch(&messages, None), batch(&messages, Some(registry())));
    assert_eq!(plain.held_bytes(), described.held_bytes());
    assert_eq!((plain.span(), plain.len()), (described.span(), described.len()));
    let (mut known, mut suspect, mut units) = (0, 0, 0);
    for (before, after) in plain.iter().zip(described.iter()) {
        let (owned, mut expected) = (OwnedRow::of(&after), OwnedRow::of(&before));
        if before.unit.is_none() && after.unit.is_some() {
            assert_eq!((after.unit, after.key), (Some("K"), Some("temperature")));
            expected.unit = Some("K".to_owned());
            units += 1;
        }
        assert_eq!(owned, expected);
        assert!(!before.known && before.name.is_none() && !before.suspect);
        let listed = ["device-0", "device-1", "device-2", "device-3"].contains(&after.device);
        assert_eq!((after.known, after.name.is_some()), (listed, listed));
        assert_eq!(after.device_type, listed.then_some("pump"));
        let located = listed && ["device-0", "device-2"].contains(&after.device);
        assert_eq!(after.location, located.then_some("hall 2"));
        assert!(!after.suspect || (listed && after.key == Some("temperature")));
        known += usize::from(after.known);
        suspect += usize::from(after.suspect);
    }
    assert!(known > 1000 && suspect > 100 && units > 100, "{known} {suspect} {units}");
    let names = |rows: &Rows| -> Vec<_> {
        encode::encode(rows).unwrap().iter().map(|file| (file.hour, file.name, file.rows)).collect()
    };
    assert_eq!(names(&plain), names(&described));
    // The registry stays for the batches that follow.
    let mut described = described;
    described.clear(QueueId::new(8));
    described.append(Seq::from_parts(1, 1), &messages[0]);
    assert_eq!(described.held_bytes(), {
        let mut plain = plain;
        plain.clear(QueueId::new(8));
        plain.append(Seq::from_parts(1, 1), &messages[0]);
        plain.held_bytes()
    });
}

#[test]
fn files_hold_the_described_rows_and_older_files_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let messages = messages(6, 3000);
    let rows = batch(&messages, Some(registry()));
    let mut expected: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
    let (mut found, mut older) = (Vec::new(), Vec::new());
    for (number, file) in encode::encode(&rows).unwrap().into_iter().enumerate() {
        let path = dir.path().join(format!("{number}.parquet"));
        std::fs::write(&path, &file.bytes).unwrap();
        scan::scan(&path, &Filter::default(), Columns::All, &mut |row| {
            found.push(format!("{row:?}"));
        })
        .unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.bytes).unwrap().build().unwrap();
        let path = dir.path().join(format!("{number}-older.parquet"));
        let before = schema_of(18);
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), before, None).unwrap();
        for batch in reader {
            writer.write(&batch.unwrap().project(&Vec::from_iter(0..18)).unwrap()).unwrap();
        }
        writer.close().unwrap();
        for columns in [Columns::All, Columns::Readings] {
            scan::scan(&path, &Filter::default(), columns, &mut |row| {
                assert!(!row.known && row.name.is_none() && !row.suspect);
                older.push(row.seq);
            })
            .unwrap();
        }
    }
    assert_eq!(SCHEMA.fields().len(), 23);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(older.len(), 2 * expected.len());
}

#[tokio::test]
async fn live_readers_filter_by_what_the_registry_knows() {
    let log = Log::new(1);
    let current = Current::default();
    let limits = BufferLimits { events: 1000, bytes: 1 << 20 };
    let hub = Hub::new(Arc::new(LastValues::new(100)), limits, current.clone());
    let end = Shutdown::new();
    let config = FollowerConfig { middle: log.middle("m"), lake: None };
    let follower = Follower::start(config, hub.clone(), end.clone()).unwrap();
    let middles = vec![log.middle("m")];
    let feed = LiveFeed { hub, middles, resumes: Arc::new(Semaphore::new(2)) };
    eventually("the follower is there", || feed.hub.position(log.queue()).is_some());
    let by_type = Subscription {
        types: vec!["pump".to_owned()],
        locations: vec!["hall 2".to_owned()],
        snapshot: true,
        ..Subscription::default()
    };
    let refused = Reader::subscribe(&feed, &by_type).expect_err("there is no registry");
    assert!(refused.to_string().contains("registry"), "{refused}");
    current.set(registry());
    log.append(&simple("device-0", 1, 1.0));
    log.append(&simple("device-1", 1, 1.0));
    log.append(&simple("stranger", 1, 1.0));
    eventually("it is handed out", || feed.hub.position(log.queue()) == Some(log.head()));
    let mut reader = Reader::subscribe(&feed, &by_type).unwrap();
    let mut all = Reader::subscribe(&feed, &Subscription::default()).unwrap();
    for device in ["stranger", "device-1", "device-2", "device-0"] {
        log.append(&simple(device, 2, 2.0));
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for frame in next(&mut reader).await {
            match frame {
                ServerFrame::Snapshot(snapshot) => {
                    for value in snapshot.values {
                        assert_eq!(value.known, Some(true));
                        seen.push(value.name.unwrap().into_owned());
                    }
                }
                ServerFrame::Event(event) => {
                    assert_eq!(event.device_type.as_deref(), Some("pump"));
                    assert_eq!(event.location.as_deref(), Some("hall 2"));
                    seen.push(event.name.unwrap().into_owned());
                }
                _ => {}
            }
        }
    }
    assert_eq!(seen, ["Pump 0", "Pump 2", "Pump 0"]);
    let mut known = Vec::new();
    while known.len() < 4 {
        for frame in next(&mut all).await {
            if let ServerFrame::Event(event) = frame {
                known.push((event.device.into_owned(), event.known));
            }
        }
    }
    assert_eq!(known[0], ("stranger".to_owned(), Some(false)));
    assert_eq!(known[1], ("device-1".to_owned(), Some(true)));
    end.begin("the test ends");
    follower.join();
}

async fn next(reader: &mut Reader) -> Vec<ServerFrame<'static>> {
    let outgoing = tokio::time::timeout(DEADLINE, reader.next()).await.unwrap().unwrap();
    let decode = |bytes: &[u8]| ServerFrame::decode(std::str::from_utf8(bytes).unwrap()).unwrap();
    outgoing.iter().map(|outgoing| decode(&outgoing.bytes)).collect()
}
