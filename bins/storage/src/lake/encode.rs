//! Rows to the bytes of Parquet files, one file for each hour of receive time in the batch.
//!
//! The same rows give the same files in the same order: rows are sorted by (hour, tenant, device,
//! key, time, arrival), and nothing of this process, its clock or its random numbers enters.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt64Array, builder::BinaryBuilder,
    builder::StringBuilder, new_null_array, types::Int32Type,
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions},
    errors::ParquetError,
};

use super::{
    name::{FileName, Hour},
    schema::{CHUNK_ROWS, PROPERTIES, SCHEMA, column},
};
use crate::rows::{Cell, Interner, Kind, Rows};

/// One file of a batch.
#[derive(Debug, Clone)]
pub struct File {
    /// Its folder.
    pub hour: Hour,
    /// Its name.
    pub name: FileName,
    /// Its content.
    pub bytes: Bytes,
    /// How many rows it holds.
    pub rows: usize,
}

/// Writes a batch as files, in the order of their hours. A batch without rows makes no file.
///
/// # Errors
/// [`ParquetError`] says that the library refused the rows, which no row of ours makes it do; the
/// same batch will be refused again.
pub fn encode(rows: &Rows) -> Result<Vec<File>, ParquetError> {
    let Some((first, last)) = rows.span() else { return Ok(Vec::new()) };
    let name = FileName { queue: rows.queue(), first, last };
    let order = sorted(rows);
    #[cfg(feature = "planted-faults")]
    let order: Vec<Place> = order
        .into_iter()
        .filter(|place| !super::planted::loses(rows, place.row as usize))
        .collect();
    let dictionaries = Dictionaries::new(rows);
    let mut files = Vec::new();
    for part in order.chunk_by(|left, right| left.hour() == right.hour()) {
        let hour = Hour::of(rows.received_us(rows.message(part[0].row as usize)));
        let options = ArrowWriterOptions::new()
            .with_properties(PROPERTIES.as_ref().clone())
            .with_skip_arrow_metadata(true);
        let buffer = Vec::with_capacity(part.len() * 24);
        let mut writer = ArrowWriter::try_new_with_options(buffer, SCHEMA.clone(), options)?;
        for chunk in part.chunks(CHUNK_ROWS) {
            writer.write(&record_batch(rows, &dictionaries, chunk)?)?;
        }
        let bytes = Bytes::from(writer.into_inner()?);
        files.push(File { hour, name, bytes, rows: part.len() });
    }
    Ok(files)
}

/// Where a row goes; ordered by its fields from the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Hour, then the ranks of tenant, device and key, 32 bits each.
    series: u128,
    at_us: i64,
    row: u32,
}

impl Place {
    fn hour(self) -> u32 {
        (self.series >> 96) as u32
    }
}

/// All rows in the order of the files.
fn sorted(rows: &Rows) -> Vec<Place> {
    let (tenants, devices, keys) =
        (rows.tenants().ranks(), rows.devices().ranks(), rows.keys().ranks());
    let mut hours = Vec::with_capacity(rows.messages());
    for message in 0..rows.messages() {
        let hour = Hour::of(rows.received_us(message)).start_us() / 3_600_000_000;
        let (tenant, device) =
            (tenants[rows.tenant(message) as usize], devices[rows.device(message) as usize]);
        hours
            .push(((hour as u128) << 96) | (u128::from(tenant) << 64) | (u128::from(device) << 32));
    }
    let mut order: Vec<Place> = (0..rows.len())
        .map(|row| {
            let message = rows.message(row);
            // Rows without a key lie first, as in the file's declared order of nulls.
            let key = rows.key(row).map_or(0, |code| keys[code as usize] + 1);
            let at_us = rows.time_us(row).unwrap_or_else(|| rows.received_us(message));
            Place { series: hours[message] | u128::from(key), at_us, row: row as u32 }
        })
        .collect();
    order.sort_unstable();
    order
}

impl Kind {
    /// The column that holds values of this kind.
    fn column(self) -> usize {
        match self {
            Self::Float => column::FLOAT,
            Self::Int => column::INT,
            Self::Bool => column::BOOL,
            Self::Text => column::TEXT,
            Self::Opaque => column::PAYLOAD,
        }
    }
}

/// The dictionaries of a batch as Arrow arrays, shared by all its chunks.
struct Dictionaries {
    tenants: ArrayRef,
    devices: ArrayRef,
    keys: ArrayRef,
    labels: ArrayRef,
    kinds: ArrayRef,
    queue: ArrayRef,
    names: ArrayRef,
    device_types: ArrayRef,
    locations: ArrayRef,
}

impl Dictionaries {
    fn new(rows: &Rows) -> Self {
        let words = |words: &Interner| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(words.iter()))
        };
        Self {
            tenants: words(rows.tenants()),
            devices: words(rows.devices()),
            keys: words(rows.keys()),
            labels: words(rows.labels()),
            kinds: Arc::new(StringArray::from_iter_values(Kind::ALL.map(Kind::as_str))),
            queue: Arc::new(StringArray::from_iter_values([rows.queue().to_string()])),
            names: words(rows.names()),
            device_types: words(rows.device_types()),
            locations: words(rows.locations()),
        }
    }
}

/// One chunk of rows as Arrow arrays.
fn record_batch(
    rows: &Rows,
    dictionaries: &Dictionaries,
    chunk: &[Place],
) -> Result<RecordBatch, ParquetError> {
    let row = |place: &Place| place.row as usize;
    let message = |place: &Place| rows.message(place.row as usize);
    let words = |codes: Int32Array, values: &ArrayRef| -> Result<ArrayRef, ParquetError> {
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(codes, values.clone())?))
    };
    let by_message = |code: &dyn Fn(usize) -> u32| {
        Int32Array::from_iter_values(chunk.iter().map(|place| code(message(place)) as i32))
    };
    let optional = |code: &dyn Fn(usize) -> Option<u32>| {
        chunk.iter().map(|place| code(row(place)).map(|code| code as i32)).collect::<Int32Array>()
    };
    let label = |opaque: bool| {
        optional(&|row| rows.label(row).filter(|_| (rows.kind(row) == Kind::Opaque) == opaque))
    };
    let kinds = chunk.iter().map(|place| rows.kind(row(place)) as i32);
    let times = chunk.iter().map(|place| rows.time_us(row(place)));
    let received = chunk.iter().map(|place| rows.received_us(message(place)));
    let identity = |place: &Place| rows.identity(message(place));
    let sessions = chunk.iter().map(|place| identity(place).0.cast_signed());
    let seqs = chunk.iter().map(|place| identity(place).1.cast_signed());
    let indexes = chunk.iter().map(|place| i32::from(rows.index(row(place))));
    let entries = chunk.iter().map(|place| rows.entry(message(place)).get());
    let known = chunk.iter().map(|place| rows.is_known(message(place)));
    let suspect = chunk.iter().map(|place| rows.is_suspect(row(place)));
    let [float, int, bool, text, payload] = values(rows, chunk);
    let columns: Vec<ArrayRef> = vec![
        words(by_message(&|message| rows.tenant(message)), &dictionaries.tenants)?,
        words(by_message(&|message| rows.device(message)), &dictionaries.devices)?,
        words(optional(&|row| rows.key(row)), &dictionaries.keys)?,
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(TimestampMicrosecondArray::from_iter_values(received).with_timezone("UTC")),
        words(Int32Array::from_iter_values(kinds), &dictionaries.kinds)?,
        float,
        int,
        bool,
        text,
        words(label(false), &dictionaries.labels)?,
        Arc::new(Int64Array::from_iter_values(sessions)),
        Arc::new(Int64Array::from_iter_values(seqs)),
        Arc::new(Int32Array::from_iter_values(indexes)),
        words(label(true), &dictionaries.labels)?,
        payload,
        words(Int32Array::from_iter_values(chunk.iter().map(|_| 0)), &dictionaries.queue)?,
        Arc::new(UInt64Array::from_iter_values(entries)),
        words(optional(&|row| rows.name(rows.message(row))), &dictionaries.names)?,
        words(optional(&|row| rows.device_type(rows.message(row))), &dictionaries.device_types)?,
        words(optional(&|row| rows.location(rows.message(row))), &dictionaries.locations)?,
        Arc::new(known.map(Some).collect::<BooleanArray>()),
        Arc::new(suspect.map(Some).collect::<BooleanArray>()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

/// The five value columns of a chunk; one that holds nothing costs nothing.
fn values(rows: &Rows, chunk: &[Place]) -> [ArrayRef; 5] {
    let mut present = [false; Kind::ALL.len()];
    for place in chunk {
        present[rows.kind(place.row as usize) as usize] = true;
    }
    let cells = || chunk.iter().map(|place| rows.cell(place.row as usize));
    Kind::ALL.map(|kind| -> ArrayRef {
        if !present[kind as usize] {
            return new_null_array(SCHEMA.field(kind.column()).data_type(), chunk.len());
        }
        match kind {
            Kind::Float => Arc::new(
                cells()
                    .map(|cell| if let Cell::Float(number) = cell { Some(number) } else { None })
                    .collect::<Float64Array>(),
            ),
            Kind::Int => Arc::new(
                cells()
                    .map(|cell| if let Cell::Int(number) = cell { Some(number) } else { None })
                    .collect::<Int64Array>(),
            ),
            Kind::Bool => Arc::new(
                cells()
                    .map(|cell| if let Cell::Bool(on) = cell { Some(on) } else { None })
                    .collect::<BooleanArray>(),
            ),
            Kind::Text => {
                let mut builder = StringBuilder::new();
                for cell in cells() {
                    builder.append_option(if let Cell::Text(text) = cell {
                        Some(text)
                    } else {
                        None
                    });
                }
                Arc::new(builder.finish())
            }
            Kind::Opaque => {
                let mut builder = BinaryBuilder::new();
                for cell in cells() {
                    builder.append_option(match cell {
                        Cell::Opaque { payload, .. } => Some(payload),
                        _ => None,
                    });
                }
                Arc::new(builder.finish())
            }
        }
    })
}
