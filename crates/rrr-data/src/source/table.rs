//! CSV and TSV files of image paths and labels.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::{ClassMap, OpenOptions, Source, SourceKind, display_name, is_image_name};
use crate::dataset::Sample;
use crate::error::{DataError, Result};

/// Header names that mean the image path, in order of preference.
const IMAGE_COLUMNS: [&str; 8] =
    ["path", "file", "filename", "file_name", "image", "image_path", "filepath", "image_name"];
/// Header names that mean the label, in order of preference.
const LABEL_COLUMNS: [&str; 6] = ["label", "class", "category", "class_name", "target", "y"];

/// The delimiter that a file's extension stands for.
pub(super) fn delimiter(path: &Path) -> Option<u8> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(b','),
        "tsv" | "tab" => Some(b'\t'),
        _ => None,
    }
}

/// The line, image and label of a row.
pub(super) type Pair<'a> = (u64, &'a str, &'a str);

/// A table in memory: rows with their line numbers.
pub(super) struct Table {
    pub rows: Vec<(u64, csv::StringRecord)>,
    delimiter: u8,
}

impl Table {
    /// Reads a table, dropping a byte order mark, spaces around cells and empty lines. Where the first line has no comma
    /// but semicolons, as spreadsheets write it in many languages, these are the delimiter of a `.csv` file.
    pub fn read(path: &Path, delimiter: u8) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| DataError::io(path, e))?;
        let mut table = Self { rows: parse(path, &bytes, delimiter)?, delimiter };
        let Some((_, first)) = table.rows.first() else {
            return Err(DataError::NoRows { path: path.to_owned() });
        };
        if delimiter == b',' && first.len() == 1 && first[0].contains(';') {
            table = Self { rows: parse(path, &bytes, b';')?, delimiter: b';' };
        }
        if let Some(line) = unclosed_quote(&bytes, table.delimiter) {
            let reason = "a cell begins with a quote that is not closed; close it or remove it".into();
            return Err(DataError::InvalidRow { path: path.to_owned(), line, reason });
        }
        Ok(table)
    }

    /// Takes the first row as the header.
    pub fn header(&mut self) -> Vec<String> {
        self.rows.remove(0).1.iter().map(str::to_owned).collect()
    }

    /// The two cells of each row as `(line, image, label)`.
    pub fn pairs<'a>(&'a self, path: &Path, image: usize, label: usize) -> Result<Vec<Pair<'a>>> {
        let cell = |line: u64, row: &'a csv::StringRecord, i: usize| {
            let invalid = |reason| DataError::InvalidRow { path: path.to_owned(), line, reason };
            match row.get(i) {
                Some("") => Err(invalid(format!("cell {} is empty", i + 1))),
                Some(text) if text.contains(['\n', '\r']) => Err(invalid(format!(
                    "cell {} goes on to the next line; close its quote or remove it",
                    i + 1
                ))),
                Some(text) => Ok(text),
                None => {
                    let (n, s) = (row.len(), if row.len() == 1 { "" } else { "s" });
                    let separator = match self.delimiter {
                        b'\t' => "tabs",
                        b';' => "semicolons",
                        _ => "commas",
                    };
                    Err(invalid(format!(
                        "has {n} cell{s}, cell {} is needed; separate them by {separator}",
                        i + 1
                    )))
                }
            }
        };
        let pair = |(line, row): &'a (u64, csv::StringRecord)| {
            Ok((*line, cell(*line, row, image)?, cell(*line, row, label)?))
        };
        self.rows.iter().map(pair).collect()
    }
}

fn parse(path: &Path, bytes: &[u8], delimiter: u8) -> Result<Vec<(u64, csv::StringRecord)>> {
    let reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut rows = Vec::new();
    for record in reader.into_records() {
        let record = record.map_err(|e| match e.position().map(csv::Position::line) {
            Some(line) => DataError::InvalidRow { path: path.to_owned(), line, reason: cause(&e) },
            None => DataError::Io { path: path.to_owned(), source: e.into() },
        })?;
        rows.push((record.position().map_or(0, csv::Position::line), record));
    }
    Ok(rows)
}

/// The line, from 1, of a quote at the start of a cell that no quote at the end of a cell closes: none up to the end of the
/// file, which the parser takes for the end of the cell, or, on a later line, one that is followed by text and so begins
/// another cell.
fn unclosed_quote(bytes: &[u8], delimiter: u8) -> Option<u64> {
    let mut bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).iter().copied().peekable();
    let ends_cell = |byte: u8| byte == delimiter || byte == b'\n' || byte == b'\r';
    let (mut line, mut starts) = (1, true);
    while let Some(byte) = bytes.next() {
        if byte != b'"' || !starts {
            line += u64::from(byte == b'\n');
            starts = ends_cell(byte);
            continue;
        }
        let opened = line;
        loop {
            match bytes.next() {
                None => return Some(opened),
                // Two quotes stand for one.
                Some(b'"') if bytes.next_if_eq(&b'"').is_none() => break,
                Some(byte) => line += u64::from(byte == b'\n'),
            }
        }
        starts = false;
        if line > opened && bytes.peek().is_some_and(|&next| !ends_cell(next) && next != b' ') {
            return Some(opened);
        }
    }
    None
}

fn cause(e: &csv::Error) -> String {
    match e.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".into(),
        _ => e.to_string(),
    }
}

/// The index of a column.
pub(super) fn column(path: &Path, header: &[String], name: &str) -> Result<usize> {
    header.iter().position(|h| h == name).ok_or_else(|| DataError::MissingColumn {
        path: path.to_owned(),
        column: name.to_owned(),
        present: header.to_vec(),
    })
}

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Source> {
    let mut table = Table::read(path, delimiter(path).unwrap_or(b','))?;
    let named = options.image_column.is_some() || options.label_column.is_some();
    // Without named columns, a first row that names an image file is data.
    let has_header = named
        || table.rows.first().is_some_and(|(_, row)| !row.iter().any(|cell| is_image_name(Path::new(cell))));
    let header = if has_header { table.header() } else { Vec::new() };
    let find = |wanted: &Option<String>, known: &[&str], fallback: usize| match wanted {
        Some(name) => column(path, &header, name),
        None => Ok(known
            .iter()
            .find_map(|k| header.iter().position(|h| h.eq_ignore_ascii_case(k)))
            .unwrap_or(fallback)),
    };
    let image = find(&options.image_column, &IMAGE_COLUMNS, 0)?;
    let label = find(&options.label_column, &LABEL_COLUMNS, 1)?;
    let pairs = table.pairs(path, image, label)?;
    let names = options.classes.clone().unwrap_or_else(|| sorted_classes(&pairs));
    let base = path.parent().unwrap_or(Path::new(""));
    let samples = samples(path, base, &pairs, &ClassMap::new(path, names.clone()), options.skip_bad)?;
    Ok(Source {
        kind: SourceKind::Table,
        name: display_name(path),
        root: path.to_owned(),
        classes: names,
        train: samples,
        valid: None,
        test: None,
        ignored: 0,
        notes: Vec::new(),
    })
}

/// Labels in byte order, or by value if all are whole numbers.
fn sorted_classes(pairs: &[Pair<'_>]) -> Vec<String> {
    let mut names: Vec<&str> = pairs.iter().map(|p| p.2).collect();
    names.sort_unstable();
    names.dedup();
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Labelled images of a table's rows; every file must be named once and, without `skip_bad`, exist.
pub(super) fn samples(
    path: &Path,
    base: &Path,
    pairs: &[Pair<'_>],
    classes: &ClassMap<'_>,
    skip_bad: bool,
) -> Result<Vec<Sample>> {
    if pairs.is_empty() {
        return Err(DataError::NoRows { path: path.to_owned() });
    }
    let mut lines = HashMap::with_capacity(pairs.len());
    let mut samples = Vec::with_capacity(pairs.len());
    let mut first_missing = None;
    let mut missing = 0;
    for &(line, image, class) in pairs {
        if let Some(first_line) = lines.insert(image, line) {
            let (path, image) = (path.to_owned(), image.to_owned());
            return Err(DataError::DuplicateImage { path, image, line, first_line });
        }
        let file = base.join(image);
        match fs::metadata(&file) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => {
                let reason = format!("names '{image}', which is not a regular file; remove the line");
                return Err(DataError::InvalidRow { path: path.to_owned(), line, reason });
            }
            Err(_) => {
                missing += 1;
                first_missing.get_or_insert((line, image));
            }
        }
        samples.push(Sample { path: file, id: image.replace('\\', "/"), label: classes.label(class)? });
    }
    match first_missing {
        Some((line, image)) if !skip_bad => Err(DataError::MissingImages {
            path: path.to_owned(),
            line,
            image: image.to_owned(),
            missing,
            total: pairs.len(),
        }),
        _ => Ok(samples),
    }
}
