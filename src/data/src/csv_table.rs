//! CSV tables of typed rows: read with errors that name file, line and column; written whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use crate::atomic_file;
use crate::error::{DataError, Result, excerpt};
use crate::study::StudyUid;

/// What a table holds on each line.
pub trait Row: Sized {
    /// The columns, in the order in which they are written. When reading, others may stand among them.
    fn columns() -> Vec<String>;

    /// Columns that a table may lack; those of them that are in [`Row::columns`] are written all the same.
    fn optional_columns() -> Vec<String> {
        Vec::new()
    }

    /// Takes a row from its cells.
    ///
    /// # Errors
    /// [`DataError::TableValue`] for a cell that does not hold what it should.
    fn read(cells: &Cells<'_>) -> Result<Self>;

    /// The cells, in the order of [`Row::columns`]. Numbers in their shortest form that reads back as the same.
    fn write(&self) -> Vec<String>;

    /// What only one row of a table may speak of; `None` where rows may repeat.
    fn key(&self) -> Option<String> {
        None
    }
}

/// One line of a table that is being read.
#[derive(Debug)]
pub struct Cells<'a> {
    path: &'a Path,
    line: u64,
    /// Where each column of the row type stands.
    places: &'a BTreeMap<String, usize>,
    record: &'a csv::StringRecord,
}

impl Cells<'_> {
    /// The cell of `column`, parsed and accepted by `is_right`; `expected` says what that is, for the error.
    ///
    /// # Errors
    /// [`DataError::TableValue`].
    pub fn parse<T: FromStr>(
        &self,
        column: &str,
        expected: &'static str,
        is_right: impl Fn(&T) -> bool,
    ) -> Result<T> {
        self.cell(column)
            .parse()
            .ok()
            .filter(is_right)
            .ok_or_else(|| self.unusable(column, expected))
    }

    /// The text in an optional column; `None` where the table lacks it or the cell is empty.
    pub fn optional(&self, column: &str) -> Option<&str> {
        Some(self.cell(column)).filter(|text| !text.is_empty())
    }

    /// A study UID.
    ///
    /// # Errors
    /// [`DataError::TableValue`].
    pub fn study(&self, column: &str) -> Result<StudyUid> {
        let expected = "a study's name (a UID, or letters, digits and . _ -, at most 64)";
        self.parse(column, expected, |_| true)
    }

    /// A number of 0 to 1.
    ///
    /// # Errors
    /// [`DataError::TableValue`].
    pub fn fraction<T>(&self, column: &str, expected: &'static str) -> Result<T>
    where
        T: FromStr + PartialOrd + From<u8>,
    {
        self.parse(column, expected, |v| (T::from(0)..=T::from(1)).contains(v))
    }

    /// The error for a cell that is not `expected`.
    pub fn unusable(&self, column: &str, expected: &'static str) -> DataError {
        DataError::TableValue {
            path: self.path.to_path_buf(),
            line: self.line,
            column: column.to_owned(),
            found: excerpt(self.cell(column)),
            expected,
        }
    }

    fn cell(&self, column: &str) -> &str {
        self.places
            .get(column)
            .and_then(|&place| self.record.get(place))
            .unwrap_or_default()
    }
}

/// Reads the table at `path`, in the order of its lines.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::TableColumn`], [`DataError::TableValue`], [`DataError::TableDuplicate`] and
/// [`DataError::TableSyntax`] for what the file holds.
pub fn read_table<R: Row>(path: &Path) -> Result<Vec<R>> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(file);
    let header = reader.headers().map_err(|error| csv_error(path, error))?;
    let mut places = BTreeMap::new();
    let optional = R::optional_columns();
    for column in R::columns().into_iter().chain(optional.clone()) {
        match header.iter().position(|name| name == column) {
            Some(place) => drop(places.insert(column, place)),
            None if optional.contains(&column) => {}
            None => {
                return Err(DataError::TableColumn {
                    path: path.to_path_buf(),
                    column,
                    header: excerpt(&header.iter().collect::<Vec<_>>().join(",")),
                });
            }
        }
    }

    let mut rows = Vec::new();
    let mut first_lines = BTreeMap::new();
    let mut record = csv::StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| csv_error(path, error))?
    {
        let line = record.position().map_or(0, csv::Position::line);
        let row = R::read(&Cells {
            path,
            line,
            places: &places,
            record: &record,
        })?;
        if let Some(key) = row.key()
            && let Some(first_line) = first_lines.insert(key.clone(), line)
        {
            return Err(DataError::TableDuplicate {
                path: path.to_path_buf(),
                line,
                first_line,
                key,
            });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Writes `rows` to `path` in their order, replacing what was there. The same rows give the same bytes.
///
/// # Errors
/// [`DataError::Io`]; what was at `path` then still is.
pub fn write_table<R: Row>(path: &Path, rows: &[R]) -> Result<()> {
    atomic_file::replace(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(R::columns())?;
        for row in rows {
            writer.write_record(row.write())?;
        }
        writer.flush()
    })
}

fn csv_error(path: &Path, error: csv::Error) -> DataError {
    let problem = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::io("read", path)(source),
        _ => DataError::TableSyntax {
            path: path.to_path_buf(),
            problem,
        },
    }
}
