//! Feeds the comparison from the files of a Parquet lake.
//!
//! Only the columns that the comparison needs are read, a batch of rows at a time. Words come as
//! dictionaries, so that a device is looked up once a batch and not once a row. Files are read in
//! the order of their names, which begin with the queue and the range of entries they hold.
//!
//! The column names are repeated here on purpose: the checker is a reader of the public format, not
//! a part of the writer whose faults it is to find.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use forebay_model::{Reading, Timestamp, Value};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
};

use super::{Checker, Owner, StoredRow};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
/// How often a lake is listed anew because an hour was compacted while it was read.
const LISTINGS_MAX: usize = 1000;

/// Columns that are read.
const COLUMNS: [&str; 12] = [
    "device",
    "key",
    "time_us",
    "value_float",
    "value_int",
    "value_bool",
    "value_text",
    "unit",
    "session",
    "seq",
    "index",
    "entry",
];
/// Of these, the ones that repeat few words.
const WORDS: [&str; 3] = ["device", "key", "unit"];

/// Why a lake cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what a lake consists of.
    #[error("{path} is not a lake file: {source}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// In the words of the library.
        source: ParquetError,
    },
    /// A file has a column of another type, or lacks one.
    #[error("{path}: column {column} is not as expected")]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
}

/// The finished files of a lake, in the order of arrival of what they hold.
///
/// A lake that does not exist yet has none.
///
/// # Errors
/// [`LakeError::Io`] if a folder cannot be listed.
pub fn files(root: &Path) -> Result<Vec<PathBuf>, LakeError> {
    let mut found = Vec::new();
    if root.exists() {
        collect(root, &mut found)?;
    }
    // The same range lies in two folders where an hour ended within it: the folder breaks the tie.
    found.sort_by(|one: &PathBuf, two| {
        (one.file_name(), one.parent()).cmp(&(two.file_name(), two.parent()))
    });
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), LakeError> {
    let fault = |source| LakeError::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let path = entry.path();
        // Unfinished files and folders about to be swapped begin with a dot.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(fault)?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads every file of a lake into a comparison and returns how many files that were.
///
/// An hour may be compacted meanwhile: files that were listed are then gone, and their rows are in
/// a file with a longer range. The rest of it is read, without the ranges that were read before.
///
/// # Errors
/// [`LakeError`] names the file; the comparison is then worth nothing.
pub fn read(root: &Path, checker: &mut Checker<'_>) -> Result<usize, LakeError> {
    let mut listed = files(root)?.into_iter();
    let mut read: Vec<PathBuf> = Vec::new();
    // Of these, the ones before the listing that is read now.
    let mut before = 0;
    for _ in 0..LISTINGS_MAX {
        let mut gone = None;
        for path in listed.by_ref() {
            if read[..before].contains(&path) {
                continue;
            }
            let known: Vec<Range> =
                read[..before].iter().filter_map(|other| within(other, &path)).collect();
            match read_file(&path, &known, checker) {
                Err(LakeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    gone = Some(path);
                    break;
                }
                done => done?,
            }
            checker.end_part();
            read.push(path);
        }
        let Some(path) = gone else { return Ok(read.len()) };
        before = read.len();
        listed = files(root)?.into_iter();
        if !path.exists() && !listed.as_slice().iter().any(|other| covers(other, &path)) {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(LakeError::Io { path, source });
        }
    }
    let source = io::Error::other("its hours change faster than they can be read");
    Err(LakeError::Io { path: root.to_owned(), source })
}

/// First and last entry of a range.
type Range = (u64, u64);

/// A file's hour, queue and range of entries, by its name.
fn place(path: &Path) -> Option<(&Path, &str, Range)> {
    let name = path.file_stem()?.to_str()?;
    let mut parts = name.rsplitn(3, '-');
    let (last, first) = (parts.next()?, parts.next()?);
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((path.parent()?, parts.next()?, (number(first)?, number(last)?)))
}

/// The range of `file`, if it is of the same hour and queue as `other`.
fn within(file: &Path, other: &Path) -> Option<Range> {
    let ((hour, queue, range), (of_hour, of_queue, _)) = (place(file)?, place(other)?);
    (hour == of_hour && queue == of_queue).then_some(range)
}

/// Whether a file holds all that another one of its hour did.
fn covers(file: &Path, other: &Path) -> bool {
    let (Some((first, last)), Some((_, _, of_other))) = (within(file, other), place(other)) else {
        return false;
    };
    first <= of_other.0 && of_other.1 <= last
}

fn read_file(path: &Path, known: &[Range], checker: &mut Checker<'_>) -> Result<(), LakeError> {
    let parquet = |source| LakeError::Parquet { path: path.to_owned(), source };
    let io = |source| LakeError::Io { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io)?;
    let plain = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(parquet)?;
    let options = ArrowReaderOptions::new().with_schema(with_words(plain.schema()));
    let metadata =
        ArrowReaderMetadata::try_new(plain.metadata().clone(), options).map_err(parquet)?;
    let mask = ProjectionMask::columns(metadata.parquet_schema(), COLUMNS);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(parquet)?;
    for batch in reader {
        let batch = batch.map_err(|error| parquet(error.into()))?;
        let columns = Columns::of(&batch)
            .map_err(|column| LakeError::Column { path: path.to_owned(), column })?;
        columns.compare(known, checker);
    }
    Ok(())
}

/// The file's schema with its words as dictionaries.
fn with_words(schema: &SchemaRef) -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields: Vec<Arc<Field>> = schema
        .fields()
        .iter()
        .map(|field| {
            if WORDS.contains(&field.name().as_str()) {
                Arc::new(field.as_ref().clone().with_data_type(dictionary.clone()))
            } else {
                Arc::clone(field)
            }
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Words of one column: the dictionary and each row's place in it.
struct Words<'b> {
    places: &'b DictionaryArray<Int32Type>,
    words: &'b StringArray,
}

impl<'b> Words<'b> {
    fn of(batch: &'b RecordBatch, name: &'static str) -> Result<Self, &'static str> {
        let places = column(batch, name)?.as_dictionary_opt::<Int32Type>().ok_or(name)?;
        Ok(Self { places, words: places.values().as_string_opt().ok_or(name)? })
    }

    fn get(&self, row: usize) -> Option<&'b str> {
        self.places.key(row).map(|place| self.words.value(place))
    }
}

/// The columns of one batch of rows.
struct Columns<'b> {
    device: Words<'b>,
    key: Words<'b>,
    unit: Words<'b>,
    time: &'b TimestampMicrosecondArray,
    float: &'b Float64Array,
    int: &'b Int64Array,
    bool: &'b BooleanArray,
    text: &'b StringArray,
    session: &'b Int64Array,
    seq: &'b Int64Array,
    index: &'b Int32Array,
    entry: &'b UInt64Array,
}

fn column<'b>(batch: &'b RecordBatch, name: &'static str) -> Result<&'b ArrayRef, &'static str> {
    batch.column_by_name(name).ok_or(name)
}

impl<'b> Columns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, &'static str> {
        let long = |name| column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or(name);
        Ok(Self {
            device: Words::of(batch, "device")?,
            key: Words::of(batch, "key")?,
            unit: Words::of(batch, "unit")?,
            time: column(batch, "time_us")?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or("time_us")?,
            float: column(batch, "value_float")?
                .as_primitive_opt::<Float64Type>()
                .ok_or("value_float")?,
            int: long("value_int")?,
            bool: column(batch, "value_bool")?.as_boolean_opt().ok_or("value_bool")?,
            text: column(batch, "value_text")?.as_string_opt().ok_or("value_text")?,
            session: long("session")?,
            seq: long("seq")?,
            index: column(batch, "index")?.as_primitive_opt::<Int32Type>().ok_or("index")?,
            entry: column(batch, "entry")?.as_primitive_opt::<UInt64Type>().ok_or("entry")?,
        })
    }

    /// Compares the rows, but for those of entries that were compared before.
    fn compare(&self, known: &[Range], checker: &mut Checker<'_>) {
        // Rows lie by device: most share the owner of the row before.
        let mut last: Option<(Option<usize>, i64, Owner)> = None;
        for row in 0..self.seq.len() {
            let entry = self.entry.value(row);
            if known.iter().any(|(first, last)| (*first..=*last).contains(&entry)) {
                continue;
            }
            let (place, session) = (self.device.places.key(row), self.session.value(row));
            let owner = match last {
                Some((device, of, owner)) if device == place && of == session => owner,
                _ => {
                    let device = self.device.get(row).unwrap_or_default();
                    let owner = checker.owner(device, session.cast_unsigned());
                    last = Some((place, session, owner));
                    owner
                }
            };
            checker.row(owner, &self.stored(row));
        }
    }

    fn stored(&self, row: usize) -> StoredRow<'b> {
        let value = if !self.float.is_null(row) {
            Value::Float(self.float.value(row))
        } else if !self.text.is_null(row) {
            Value::Text(self.text.value(row).into())
        } else if !self.int.is_null(row) {
            Value::Int(self.int.value(row))
        } else if !self.bool.is_null(row) {
            Value::Bool(self.bool.value(row))
        } else {
            // An opaque payload, which no device of a fleet sends: it compares as wrong.
            Value::Text("".into())
        };
        let time = (!self.time.is_null(row))
            .then(|| Timestamp::from_micros(self.time.value(row)).ok())
            .flatten();
        StoredRow {
            seq: self.seq.value(row).cast_unsigned(),
            index: u16::try_from(self.index.value(row)).unwrap_or(u16::MAX),
            entry: self.entry.value(row),
            reading: Reading {
                key: self.key.get(row).unwrap_or_default().into(),
                value,
                unit: self.unit.get(row).map(Into::into),
                time,
            },
        }
    }
}
