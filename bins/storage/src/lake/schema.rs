//! The columns of a lake file, how each is packed, and in which order rows lie.
//!
//! Any Parquet tool reads it: strings are plain UTF-8, times are `TIMESTAMP(us, UTC)`, nothing is
//! nested and no Arrow schema is embedded. Rows lie by (tenant, device, key, time), so that the
//! page index finds the pages of one series; `entry` and `index` give back the order of arrival.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::{
    arrow::ProjectionMask,
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
    },
    schema::types::ColumnPath,
};

/// Places of the columns in the schema.
pub mod column {
    #![allow(missing_docs)]
    pub const TENANT: usize = 0;
    pub const DEVICE: usize = 1;
    pub const KEY: usize = 2;
    pub const TIME: usize = 3;
    pub const RECEIVED: usize = 4;
    pub const TYPE: usize = 5;
    pub const FLOAT: usize = 6;
    pub const INT: usize = 7;
    pub const BOOL: usize = 8;
    pub const TEXT: usize = 9;
    pub const UNIT: usize = 10;
    pub const SESSION: usize = 11;
    pub const SEQ: usize = 12;
    pub const INDEX: usize = 13;
    pub const CONTENT_TYPE: usize = 14;
    pub const PAYLOAD: usize = 15;
    pub const QUEUE: usize = 16;
    pub const ENTRY: usize = 17;
    pub const NAME: usize = 18;
    pub const DEVICE_TYPE: usize = 19;
    pub const LOCATION: usize = 20;
    pub const KNOWN: usize = 21;
    pub const SUSPECT: usize = 22;
}

/// Rows in a page: what a reader of one series has to decode at least.
pub const PAGE_ROWS: usize = 4096;
/// Rows handed to the writer at a time: bounds the Arrow copies of a batch to about half a MiB.
pub const CHUNK_ROWS: usize = 8192;

/// Bytes of rows decoded at a time from a file, about: payloads make rows large.
pub const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a row group at most, about: a writer holds all pages of one until it is closed.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// The schema of a lake file, as rows are written.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let word = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("tenant", word(), false),
        Field::new("device", word(), false),
        Field::new("key", word(), true),
        Field::new("time_us", time(), true),
        Field::new("received_us", time(), false),
        Field::new("type", word(), false),
        Field::new("value_float", DataType::Float64, true),
        Field::new("value_int", DataType::Int64, true),
        Field::new("value_bool", DataType::Boolean, true),
        Field::new("value_text", DataType::Utf8, true),
        Field::new("unit", word(), true),
        Field::new("session", DataType::Int64, false),
        Field::new("seq", DataType::Int64, false),
        Field::new("index", DataType::Int32, false),
        Field::new("content_type", word(), true),
        Field::new("payload", DataType::Binary, true),
        Field::new("queue", word(), false),
        Field::new("entry", DataType::UInt64, false),
        Field::new("name", word(), true),
        Field::new("device_type", word(), true),
        Field::new("location", word(), true),
        Field::new("known", DataType::Boolean, true),
        Field::new("suspect", DataType::Boolean, true),
    ]))
});

/// The schema of a file with so many columns: later releases add columns at the end.
///
/// - 18 columns: before the registry.
/// - 23 columns: what the registry knows of the device.
#[must_use]
pub fn schema_of(columns: usize) -> SchemaRef {
    if columns >= SCHEMA.fields().len() {
        return SCHEMA.clone();
    }
    Arc::new(Schema::new(SCHEMA.fields()[..columns].to_vec()))
}

/// Bytes of a file's row on average, before compression, where its rows are largest; at least 1.
///
/// Only the columns of the mask count.
#[must_use]
pub fn row_bytes(metadata: &ParquetMetaData, columns: &ProjectionMask) -> usize {
    let of_group = |group: &RowGroupMetaData| {
        let read = group.columns().iter().enumerate();
        let read = read.filter(|(place, _)| columns.leaf_included(*place));
        let bytes: i64 = read.map(|(_, column)| column.uncompressed_size()).sum();
        usize::try_from(bytes / group.num_rows().max(1)).unwrap_or(0)
    };
    metadata.row_groups().iter().map(of_group).max().unwrap_or(0).max(1)
}

/// Rows to decode at a time where a row has so many bytes: about [`BATCH_BYTES`] of them.
#[must_use]
pub fn batch_rows(row_bytes: usize) -> usize {
    (BATCH_BYTES / row_bytes).clamp(1, PAGE_ROWS)
}

/// How a lake file is packed.
///
/// Everything in it is fixed: the same rows give the same bytes for as long as the version of the
/// Parquet library stays the same, and the same rows for ever.
pub static PROPERTIES: LazyLock<Arc<WriterProperties>> = LazyLock::new(|| {
    let path = |place: usize| ColumnPath::from(SCHEMA.field(place).name().as_str());
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("forebay".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a zstd level")))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_bytes(Some(GROUP_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(
            [column::TENANT, column::DEVICE, column::KEY]
                .map(|place| SortingColumn {
                    column_idx: place as i32,
                    descending: false,
                    nulls_first: true,
                })
                .to_vec(),
        ));
    for place in [column::DEVICE, column::KEY, column::TIME, column::RECEIVED] {
        properties = properties.set_column_statistics_enabled(path(place), EnabledStatistics::Page);
    }
    for place in [column::TIME, column::RECEIVED, column::INT, column::SEQ, column::ENTRY] {
        properties = properties
            .set_column_dictionary_enabled(path(place), false)
            .set_column_encoding(path(place), Encoding::DELTA_BINARY_PACKED);
    }
    for place in [column::TEXT, column::PAYLOAD] {
        properties = properties
            .set_column_dictionary_enabled(path(place), false)
            .set_column_statistics_enabled(path(place), EnabledStatistics::None);
    }
    Arc::new(properties.build())
});
