//! A small Parquet writer: flat tables with optional columns, one row group, one plain data page per column.
//!
//! Source: the Apache Parquet format, `parquet.thrift`. The `parquet` crate would bring a dozen others for this.

use super::thrift::{Struct, varint};
use super::{Column, Table};

const MAGIC: &[u8] = b"PAR1";
const VERSION: i32 = 1;
// Numbers of the format's enumerations.
const INT64: i32 = 2;
const DOUBLE: i32 = 5;
const BYTE_ARRAY: i32 = 6;
const OPTIONAL: i32 = 1;
const UTF8: i32 = 0;
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const UNCOMPRESSED: i32 = 0;
const DATA_PAGE: i32 = 0;

pub(super) fn write(table: &Table) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let (mut chunks, mut size) = (Vec::new(), 0);
    for (name, column) in &table.columns {
        let page = page(column, table.rows);
        let header = Struct::default()
            .i32(1, DATA_PAGE)
            .i32(2, page.len() as i32)
            .i32(3, page.len() as i32)
            .child(5, Struct::default().i32(1, table.rows as i32).i32(2, PLAIN).i32(3, RLE).i32(4, RLE))
            .finish();
        let (at, bytes) = (file.len() as i64, (header.len() + page.len()) as i64);
        file.extend(header);
        file.extend(page);
        size += bytes;
        let meta = Struct::default()
            .i32(1, column.physical())
            .i32s(2, &[PLAIN, RLE])
            .texts(3, &[name])
            .i32(4, UNCOMPRESSED)
            .i64(5, table.rows as i64)
            .i64(6, bytes)
            .i64(7, bytes)
            .i64(9, at);
        chunks.push(Struct::default().i64(2, at).child(3, meta));
    }
    let group = Struct::default().children(1, chunks).i64(2, size).i64(3, table.rows as i64);
    let footer = Struct::default()
        .i32(1, VERSION)
        .children(2, schema(table))
        .i64(3, table.rows as i64)
        .children(4, vec![group])
        .text(6, concat!("rrr-suite version ", env!("CARGO_PKG_VERSION")))
        .finish();
    file.extend(&footer);
    file.extend((footer.len() as u32).to_le_bytes());
    file.extend(MAGIC);
    file
}

fn schema(table: &Table) -> Vec<Struct> {
    let root = Struct::default().text(4, "schema").i32(5, table.columns.len() as i32);
    let leaf = |(name, column): &(String, Column)| {
        let leaf = Struct::default().i32(1, column.physical()).i32(3, OPTIONAL).text(4, name);
        if matches!(column, Column::Text(_)) { leaf.i32(6, UTF8) } else { leaf }
    };
    std::iter::once(root).chain(table.columns.iter().map(leaf)).collect()
}

/// Definition levels, then the values that are there.
fn page(column: &Column, rows: usize) -> Vec<u8> {
    let levels = levels(&column.present(), rows);
    let mut page = (levels.len() as u32).to_le_bytes().to_vec();
    page.extend(levels);
    match column {
        Column::Text(values) => {
            for text in values.iter().flatten() {
                page.extend((text.len() as u32).to_le_bytes());
                page.extend(text.as_bytes());
            }
        }
        Column::Integer(values) => values.iter().flatten().for_each(|x| page.extend(x.to_le_bytes())),
        Column::Real(values) => values.iter().flatten().for_each(|x| page.extend(x.to_le_bytes())),
    }
    page
}

/// One bit per row in the hybrid encoding: a single bit-packed run of groups of eight.
fn levels(present: &[bool], rows: usize) -> Vec<u8> {
    let groups = rows.div_ceil(8);
    let mut out = Vec::new();
    varint(&mut out, (groups as u64) << 1 | 1);
    for group in present.chunks(8) {
        out.push(group.iter().enumerate().fold(0, |bits, (i, p)| bits | u8::from(*p) << i));
    }
    out
}

impl Column {
    fn physical(&self) -> i32 {
        match self {
            Self::Text(_) => BYTE_ARRAY,
            Self::Integer(_) => INT64,
            Self::Real(_) => DOUBLE,
        }
    }

    fn present(&self) -> Vec<bool> {
        match self {
            Self::Text(v) => v.iter().map(Option::is_some).collect(),
            Self::Integer(v) => v.iter().map(Option::is_some).collect(),
            Self::Real(v) => v.iter().map(Option::is_some).collect(),
        }
    }
}
