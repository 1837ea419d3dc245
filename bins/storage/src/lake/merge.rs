//! Many files of one hour and one queue as one: their rows merged, in the order of the lake.
//!
//! Each file is sorted already, so merging takes a batch of rows of each at a time and no sort.
//! Memory is bounded in bytes, whatever rows hold: [`FILES_MAX`] files at a time, a batch and a page
//! of each, and one row group of the new file; more files are merged in rounds. A row that two files
//! hold (ranges that overlap, after a cursor was lost) is kept once: entry and index name it.
//!
//! Not here: which files, and how the result takes their place (`compact`).

use std::{
    cmp::Ordering,
    fs, io,
    path::{Path, PathBuf},
};

use arrow_array::{
    Array, DictionaryArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array, new_null_array, types::Int32Type,
};
use arrow_schema::ArrowError;
use arrow_select::interleave::interleave_record_batch;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
        arrow_writer::{ArrowWriter, ArrowWriterOptions},
    },
    errors::ParquetError,
};

use super::schema::{
    BATCH_BYTES, CHUNK_ROWS, PROPERTIES, SCHEMA, batch_rows, column, row_bytes, schema_of,
};

/// Files open at a time: each takes about [`BATCH_BYTES`] of rows, and a page of each column, which
/// are up to a MiB for texts and for payloads.
pub const FILES_MAX: usize = 16;

/// Why files were not merged; they are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what was written, or the merged one cannot be encoded.
    #[error("{path}: {error}")]
    Parquet {
        /// Which.
        path: PathBuf,
        /// In the words of the library.
        error: ParquetError,
    },
    /// The process ends.
    #[error("told to stop")]
    Stopped,
}

/// What a merge came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows of the new file.
    pub rows: u64,
    /// Rows that were there more than once, left out.
    pub repeated: u64,
}

/// Merges files into a new one at `output`, on the medium on return.
///
/// Beside it, files of rounds in between come and go; their names begin with a dot. `stop` is asked
/// now and then.
///
/// # Errors
/// [`MergeError`]: remove what is there of the output.
pub fn merge(
    inputs: &[PathBuf],
    output: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Merged, MergeError> {
    let mut inputs: Vec<PathBuf> = inputs.to_vec();
    let mut between = Vec::new();
    let mut repeated = 0;
    while inputs.len() > FILES_MAX {
        let mut round = Vec::new();
        for group in inputs.chunks(FILES_MAX) {
            let name = format!(".round-{}.tmp", between.len());
            let path = output.with_file_name(name);
            between.push(path.clone());
            repeated += merge_few(group, &path, stop)?.repeated;
            round.push(path);
        }
        inputs = round;
    }
    let merged = merge_few(&inputs, output, stop)?;
    for path in between {
        fs::remove_file(&path).map_err(|error| MergeError::Io { path, error })?;
    }
    Ok(Merged { repeated: repeated + merged.repeated, ..merged })
}

fn merge_few(
    inputs: &[PathBuf],
    output: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Merged, MergeError> {
    let mut inputs = inputs.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut writer = Writer::create(output)?;
    let mut merged = Merged::default();
    // Rows taken and not yet written: the input and the row in its batch.
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(CHUNK_ROWS);
    let mut taken_bytes = 0;
    let mut last = None;
    while let Some((first, next)) = two_least(&inputs) {
        let bound = next.map(|next| inputs[next].row());
        let input = &inputs[first];
        let mut at = input.at;
        // A run: what comes before the next input's first row.
        while at < input.rows.len() && taken.len() < CHUNK_ROWS && taken_bytes < BATCH_BYTES {
            let row = input.rows.row(at);
            if bound.as_ref().is_some_and(|bound| row.cmp(bound) == Ordering::Greater) {
                break;
            }
            let name = Some((row.entry, row.index));
            if name == last {
                merged.repeated += 1;
            } else {
                taken.push((first, at));
                taken_bytes += input.row_bytes;
                merged.rows += 1;
                last = name;
            }
            at += 1;
        }
        inputs[first].at = at;
        let exhausted = at == inputs[first].rows.len();
        // Taken rows lie in the batches of now.
        if exhausted || taken.len() >= CHUNK_ROWS || taken_bytes >= BATCH_BYTES {
            if stop() {
                return Err(MergeError::Stopped);
            }
            writer.write(&inputs, &taken)?;
            taken.clear();
            taken_bytes = 0;
        }
        if exhausted && !inputs[first].advance()? {
            inputs.swap_remove(first);
        }
    }
    writer.close()?;
    Ok(merged)
}

/// The inputs with the least row and the one after it.
fn two_least(inputs: &[Input]) -> Option<(usize, Option<usize>)> {
    let (mut first, mut second) = (None::<usize>, None::<usize>);
    for (place, input) in inputs.iter().enumerate() {
        let row = input.row();
        let before = |other: Option<usize>| {
            other.is_none_or(|other| row.cmp(&inputs[other].row()) == Ordering::Less)
        };
        if before(first) {
            (first, second) = (Some(place), first);
        } else if before(second) {
            second = Some(place);
        }
    }
    first.map(|first| (first, second))
}

/// Where a row lies: the order of the lake, then that of arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row<'a> {
    tenant: &'a str,
    device: &'a str,
    key: Option<&'a str>,
    at_us: i64,
    entry: u64,
    index: i32,
}

/// A batch of rows with the columns that order it.
struct Rows {
    batch: RecordBatch,
    tenant: Words,
    device: Words,
    key: Words,
    time: TimestampMicrosecondArray,
    received: TimestampMicrosecondArray,
    entry: UInt64Array,
    index: Int32Array,
}

/// A column of repeated words.
struct Words {
    places: DictionaryArray<Int32Type>,
    words: StringArray,
}

impl Words {
    fn get(&self, row: usize) -> Option<&str> {
        self.places.key(row).map(|place| self.words.value(place))
    }
}

impl Rows {
    fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        fn typed<A: Array + Clone + 'static>(
            batch: &RecordBatch,
            place: usize,
        ) -> Result<A, ArrowError> {
            let found = batch.columns().get(place).and_then(|found| found.as_any().downcast_ref());
            let name = SCHEMA.field(place).name();
            found.cloned().ok_or_else(|| ArrowError::SchemaError(format!("column {name}")))
        }
        let words = |place| -> Result<Words, ArrowError> {
            let places: DictionaryArray<Int32Type> = typed(batch, place)?;
            let words = places.values().as_any().downcast_ref::<StringArray>();
            let words = words.ok_or_else(|| ArrowError::SchemaError("a dictionary".to_owned()))?;
            Ok(Words { words: words.clone(), places })
        };
        Ok(Self {
            batch: widened(batch)?,
            tenant: words(column::TENANT)?,
            device: words(column::DEVICE)?,
            key: words(column::KEY)?,
            time: typed(batch, column::TIME)?,
            received: typed(batch, column::RECEIVED)?,
            entry: typed(batch, column::ENTRY)?,
            index: typed(batch, column::INDEX)?,
        })
    }

    fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn row(&self, row: usize) -> Row<'_> {
        let time = self.time.is_valid(row).then(|| self.time.value(row));
        Row {
            tenant: self.tenant.get(row).unwrap_or_default(),
            device: self.device.get(row).unwrap_or_default(),
            key: self.key.get(row),
            at_us: time.unwrap_or_else(|| self.received.value(row)),
            entry: self.entry.value(row),
            index: self.index.value(row),
        }
    }
}

/// The batch with the columns of now: a file of an earlier release ends before the later ones.
fn widened(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    for field in SCHEMA.fields().iter().skip(columns.len()) {
        columns.push(new_null_array(field.data_type(), batch.num_rows()));
    }
    RecordBatch::try_new(SCHEMA.clone(), columns)
}

/// A file being read, at a row of a batch.
struct Input {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// Bytes of a row, about.
    row_bytes: usize,
    rows: Rows,
    at: usize,
}

impl Input {
    fn open(path: &Path) -> Result<Self, MergeError> {
        let failed = |error| MergeError::Parquet { path: path.to_owned(), error };
        let file = fs::File::open(path);
        let file = file.map_err(|error| MergeError::Io { path: path.to_owned(), error })?;
        let plain = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(failed)?;
        let parquet = plain.metadata().clone();
        let columns = parquet.file_metadata().schema_descr().num_columns();
        let row_bytes = row_bytes(&parquet, &ProjectionMask::all());
        let options = ArrowReaderOptions::new().with_schema(schema_of(columns));
        let metadata = ArrowReaderMetadata::try_new(parquet, options).map_err(failed)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_batch_size(batch_rows(row_bytes))
            .build()
            .map_err(failed)?;
        let empty = RecordBatch::new_empty(SCHEMA.clone());
        let rows = Rows::of(&empty).map_err(|error| failed(error.into()))?;
        let mut input = Self { path: path.to_owned(), reader, row_bytes, rows, at: 0 };
        if !input.advance()? {
            let reason = "a lake file without rows".to_owned();
            return Err(failed(ParquetError::General(reason)));
        }
        Ok(input)
    }

    /// Reads the next batch; `false` if there is none.
    fn advance(&mut self) -> Result<bool, MergeError> {
        let failed = |error: ArrowError| MergeError::Parquet {
            path: self.path.clone(),
            error: error.into(),
        };
        self.at = 0;
        for batch in self.reader.by_ref() {
            let batch = batch.map_err(failed)?;
            if batch.num_rows() > 0 {
                self.rows = Rows::of(&batch).map_err(failed)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn row(&self) -> Row<'_> {
        self.rows.row(self.at)
    }
}

/// The merged file.
struct Writer {
    path: PathBuf,
    writer: ArrowWriter<fs::File>,
}

impl Writer {
    fn create(path: &Path) -> Result<Self, MergeError> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| MergeError::Io { path: path.to_owned(), error })?;
        let options = ArrowWriterOptions::new()
            .with_properties(PROPERTIES.as_ref().clone())
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, SCHEMA.clone(), options);
        let failed = |error| MergeError::Parquet { path: path.to_owned(), error };
        Ok(Self { path: path.to_owned(), writer: writer.map_err(failed)? })
    }

    fn write(&mut self, inputs: &[Input], taken: &[(usize, usize)]) -> Result<(), MergeError> {
        if taken.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = inputs.iter().map(|input| &input.rows.batch).collect();
        let batch = interleave_record_batch(&batches, taken).map_err(ParquetError::from);
        let written = batch.and_then(|batch| self.writer.write(&batch));
        written.map_err(|error| MergeError::Parquet { path: self.path.clone(), error })
    }

    fn close(self) -> Result<(), MergeError> {
        let Self { path, writer } = self;
        let file = writer.into_inner();
        let file = file.map_err(|error| MergeError::Parquet { path: path.clone(), error })?;
        file.sync_all().map_err(|error| MergeError::Io { path, error })
    }
}
