//! The rows of one lake file that a filter wants, read with as few pages as its index allows.
//!
//! Rows of a file lie by (tenant, device, key, time): the minima and maxima of each page name the
//! pages that can hold a device, a key or a time; only those are decoded. Then each row is checked,
//! so that a wrong guess of the index costs time and never a wrong answer.

use std::{fs, path::Path};

use arrow_array::{
    Array, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array, types::Int32Type,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
            RowSelector,
        },
    },
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, RowGroupMetaData},
        page_index::column_index::ColumnIndexMetaData,
        statistics::Statistics,
    },
};

use super::{Filter, ReadError};
use crate::{
    lake::schema::{SCHEMA, batch_rows, column, row_bytes, schema_of},
    rows::{Cell, Kind, RowView},
};

/// Which columns a query looks at; a column that is left out reads as empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Everything.
    All,
    /// Everything but opaque payloads: what a history shows.
    Readings,
    /// Series, time and numbers: what a trend adds up.
    Numbers,
}

impl Columns {
    /// The same with the numbers of entries, which tell where in the log a row was.
    #[must_use]
    pub fn with_entries(self) -> Self {
        if self == Self::Numbers { Self::Readings } else { self }
    }

    fn mask(self, metadata: &ParquetMetaData) -> ProjectionMask {
        let schema = metadata.file_metadata().schema_descr();
        let numbers = [
            column::TENANT,
            column::DEVICE,
            column::KEY,
            column::TIME,
            column::RECEIVED,
            column::TYPE,
            column::FLOAT,
            column::INT,
            column::BOOL,
        ];
        let readings = [
            column::TEXT,
            column::UNIT,
            column::SESSION,
            column::SEQ,
            column::INDEX,
            column::CONTENT_TYPE,
            column::ENTRY,
            column::NAME,
            column::DEVICE_TYPE,
            column::LOCATION,
            column::KNOWN,
            column::SUSPECT,
        ];
        // An older file ends before the columns that came later.
        let columns = schema.num_columns();
        let readings = readings.into_iter().filter(|&place| place < columns);
        match self {
            Self::All => ProjectionMask::all(),
            Self::Readings => ProjectionMask::leaves(schema, numbers.into_iter().chain(readings)),
            Self::Numbers => ProjectionMask::leaves(schema, numbers),
        }
    }
}

/// Opens a file's footer and page index.
///
/// # Errors
/// [`ReadError`]: the file is gone, or it is not a file of this lake.
pub fn open(path: &Path) -> Result<(fs::File, ArrowReaderMetadata), ReadError> {
    let file = fs::File::open(path).map_err(|error| ReadError::io(path, error))?;
    let failed = |error| ReadError::parquet(path, error);
    let options = || ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let found = ArrowReaderMetadata::load(&file, options()).map_err(failed)?;
    let parquet = found.metadata().clone();
    let columns = parquet.file_metadata().schema_descr().num_columns();
    let options = options().with_schema(schema_of(columns));
    let metadata = ArrowReaderMetadata::try_new(parquet, options).map_err(failed)?;
    Ok((file, metadata))
}

/// The earliest and latest time a file's rows can have; `None` for a file without rows.
#[must_use]
pub fn time_bounds(metadata: &ParquetMetaData) -> Option<(i64, i64)> {
    let mut bounds: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        for place in [column::TIME, column::RECEIVED] {
            let Some(Statistics::Int64(statistics)) = group.column(place).statistics() else {
                continue;
            };
            if let (Some(&low), Some(&high)) = (statistics.min_opt(), statistics.max_opt()) {
                let (lowest, highest) = bounds.unwrap_or((low, high));
                bounds = Some((lowest.min(low), highest.max(high)));
            }
        }
    }
    bounds
}

/// Calls `each` for every row of a file that the filter wants, in the file's order.
///
/// # Errors
/// [`ReadError`] names the file; rows before the fault have been handed out.
pub fn scan(
    path: &Path,
    filter: &Filter,
    columns: Columns,
    each: &mut dyn FnMut(RowView<'_>),
) -> Result<(), ReadError> {
    let (file, metadata) = open(path)?;
    let parquet = metadata.metadata().clone();
    let mut groups = Vec::new();
    let mut selectors = Vec::new();
    for (place, group) in parquet.row_groups().iter().enumerate() {
        let pages = wanted_pages(&parquet, place, group, filter);
        if pages.iter().any(|selector| !selector.skip) {
            groups.push(place);
            selectors.extend(pages);
        }
    }
    if groups.is_empty() {
        return Ok(());
    }
    let mask = columns.mask(&parquet);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_batch_size(batch_rows(row_bytes(&parquet, &mask)))
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(RowSelection::from(selectors))
        .build()
        .map_err(|error| ReadError::parquet(path, error))?;
    for batch in reader {
        let batch = batch.map_err(|error| ReadError::arrow(path, error))?;
        let batch = Batch::new(&batch);
        batch.visit(filter, each);
    }
    Ok(())
}

/// Which rows of a row group lie in pages that can hold a wanted row.
fn wanted_pages(
    parquet: &ParquetMetaData,
    place: usize,
    group: &RowGroupMetaData,
    filter: &Filter,
) -> Vec<RowSelector> {
    let rows = group.num_rows() as usize;
    let mut wanted = RowSelection::from(vec![RowSelector::select(rows)]);
    let index = parquet.page_index_for_row_group(place);
    let mut narrow = |column: usize, can_hold: &dyn Fn(&ColumnIndexMetaData, usize) -> bool| {
        let (Some(index), Some(pages)) = (index.column_index(column), index.page_locations(column))
        else {
            return;
        };
        if index.num_pages() as usize != pages.len() {
            return;
        }
        let mut selectors = Vec::with_capacity(pages.len());
        for (number, page) in pages.iter().enumerate() {
            let end = pages.get(number + 1).map_or(rows as i64, |next| next.first_row_index);
            let length = (end - page.first_row_index) as usize;
            selectors.push(if can_hold(index, number) {
                RowSelector::select(length)
            } else {
                RowSelector::skip(length)
            });
        }
        wanted = wanted.intersection(&RowSelection::from(selectors));
    };
    for (place, text) in [(column::DEVICE, &filter.device), (column::KEY, &filter.key)] {
        if let Some(text) = text {
            narrow(place, &|index, page| can_hold_text(index, page, text.as_bytes()));
        }
    }
    // A row's time is `time_us`, or `received_us` where that is null: only a page without nulls
    // says enough. A filter on the received time alone has no such doubt, but no caller needs it.
    if let Some((from_us, to_us)) = filter.bounds() {
        narrow(column::TIME, &|index, page| can_hold_time(index, page, from_us, to_us));
    }
    wanted.into()
}

fn can_hold_text(index: &ColumnIndexMetaData, page: usize, text: &[u8]) -> bool {
    let ColumnIndexMetaData::BYTE_ARRAY(index) = index else { return true };
    if index.is_null_page(page) {
        return false;
    }
    let above = index.min_value(page).is_none_or(|low| low <= text);
    // A maximum cut to its first bytes is rounded up by the writer, so it still bounds from above.
    above && index.max_value(page).is_none_or(|high| text <= high)
}

fn can_hold_time(index: &ColumnIndexMetaData, page: usize, from_us: i64, to_us: i64) -> bool {
    let ColumnIndexMetaData::INT64(index) = index else { return true };
    if index.is_null_page(page) || index.null_count(page) != Some(0) {
        return true;
    }
    let above = index.max_value(page).is_none_or(|&high| high >= from_us);
    above && index.min_value(page).is_none_or(|&low| low < to_us)
}

/// One batch of decoded columns; a column that was not read is `None`.
struct Batch<'a> {
    rows: usize,
    tenant: Words<'a>,
    device: Words<'a>,
    key: Words<'a>,
    kind: Words<'a>,
    unit: Words<'a>,
    content_type: Words<'a>,
    time: Option<&'a TimestampMicrosecondArray>,
    received: Option<&'a TimestampMicrosecondArray>,
    float: Option<&'a Float64Array>,
    int: Option<&'a Int64Array>,
    bool: Option<&'a BooleanArray>,
    text: Option<&'a StringArray>,
    payload: Option<&'a BinaryArray>,
    session: Option<&'a Int64Array>,
    seq: Option<&'a Int64Array>,
    index: Option<&'a Int32Array>,
    entry: Option<&'a UInt64Array>,
    name: Words<'a>,
    device_type: Words<'a>,
    location: Words<'a>,
    known: Option<&'a BooleanArray>,
    suspect: Option<&'a BooleanArray>,
}

fn typed<A: Array + 'static>(batch: &RecordBatch, place: usize) -> Option<&A> {
    batch.column_by_name(SCHEMA.field(place).name())?.as_any().downcast_ref::<A>()
}

impl<'a> Batch<'a> {
    fn new(batch: &'a RecordBatch) -> Self {
        let words = |place| Words::new(typed(batch, place));
        Self {
            rows: batch.num_rows(),
            tenant: words(column::TENANT),
            device: words(column::DEVICE),
            key: words(column::KEY),
            kind: words(column::TYPE),
            unit: words(column::UNIT),
            content_type: words(column::CONTENT_TYPE),
            time: typed(batch, column::TIME),
            received: typed(batch, column::RECEIVED),
            float: typed(batch, column::FLOAT),
            int: typed(batch, column::INT),
            bool: typed(batch, column::BOOL),
            text: typed(batch, column::TEXT),
            payload: typed(batch, column::PAYLOAD),
            session: typed(batch, column::SESSION),
            seq: typed(batch, column::SEQ),
            index: typed(batch, column::INDEX),
            entry: typed(batch, column::ENTRY),
            name: words(column::NAME),
            device_type: words(column::DEVICE_TYPE),
            location: words(column::LOCATION),
            known: typed(batch, column::KNOWN),
            suspect: typed(batch, column::SUSPECT),
        }
    }

    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(RowView<'_>)) {
        for row in 0..self.rows {
            let view = self.view(row);
            if filter.wants(&view) {
                each(view);
            }
        }
    }

    fn view(&self, row: usize) -> RowView<'_> {
        let unsigned =
            |array: Option<&Int64Array>| array.map_or(0, |array| array.value(row).cast_unsigned());
        let flag = |array: Option<&BooleanArray>| {
            array.is_some_and(|array| array.is_valid(row) && array.value(row))
        };
        RowView {
            tenant: self.tenant.get(row).unwrap_or_default(),
            device: self.device.get(row).unwrap_or_default(),
            session: unsigned(self.session),
            seq: unsigned(self.seq),
            index: self.index.map_or(0, |array| array.value(row) as u16),
            key: self.key.get(row),
            value: self.cell(row),
            unit: self.unit.get(row),
            time_us: self.time.filter(|array| array.is_valid(row)).map(|array| array.value(row)),
            received_us: self.received.map_or(0, |array| array.value(row)),
            entry: forebay_wire::Seq::new(self.entry.map_or(0, |array| array.value(row))),
            name: self.name.get(row),
            device_type: self.device_type.get(row),
            location: self.location.get(row),
            known: flag(self.known),
            suspect: flag(self.suspect),
        }
    }

    fn cell(&self, row: usize) -> Cell<'_> {
        let kind = self.kind.get(row).and_then(Kind::from_word).unwrap_or(Kind::Opaque);
        match kind {
            Kind::Float => Cell::Float(self.float.map_or(f64::NAN, |array| array.value(row))),
            Kind::Int => Cell::Int(self.int.map_or(0, |array| array.value(row))),
            Kind::Bool => Cell::Bool(self.bool.is_some_and(|array| array.value(row))),
            Kind::Text => Cell::Text(self.text.map_or("", |array| array.value(row))),
            Kind::Opaque => Cell::Opaque {
                content_type: self.content_type.get(row).unwrap_or_default(),
                payload: self.payload.map_or(&[], |array| array.value(row)),
            },
        }
    }
}

/// A column of repeated words.
struct Words<'a>(Option<(&'a DictionaryArray<Int32Type>, &'a StringArray)>);

impl<'a> Words<'a> {
    fn new(array: Option<&'a DictionaryArray<Int32Type>>) -> Self {
        Self(array.and_then(|array| {
            Some((array, array.values().as_any().downcast_ref::<StringArray>()?))
        }))
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        let (array, values) = self.0?;
        array.is_valid(row).then(|| values.value(array.keys().value(row) as usize))
    }
}
