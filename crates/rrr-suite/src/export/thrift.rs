//! The part of Thrift's compact protocol that a Parquet footer needs.
//!
//! Source: the Apache Thrift specification, "Thrift Compact protocol encoding".

/// Types of fields.
#[derive(Clone, Copy)]
enum Kind {
    I32 = 5,
    I64 = 6,
    Binary = 8,
    List = 9,
    Struct = 12,
}

/// A structure being written; fields in rising order of their numbers.
#[derive(Default)]
pub(super) struct Struct {
    bytes: Vec<u8>,
    last: i16,
}

impl Struct {
    pub(super) fn i32(mut self, field: i16, value: i32) -> Self {
        self.header(field, Kind::I32);
        varint(&mut self.bytes, zigzag(i64::from(value)));
        self
    }

    pub(super) fn i64(mut self, field: i16, value: i64) -> Self {
        self.header(field, Kind::I64);
        varint(&mut self.bytes, zigzag(value));
        self
    }

    pub(super) fn text(mut self, field: i16, value: &str) -> Self {
        self.header(field, Kind::Binary);
        string(&mut self.bytes, value);
        self
    }

    pub(super) fn child(mut self, field: i16, value: Struct) -> Self {
        self.header(field, Kind::Struct);
        self.bytes.extend(value.finish());
        self
    }

    pub(super) fn children(mut self, field: i16, values: Vec<Struct>) -> Self {
        self.list(field, Kind::Struct, values.len());
        values.into_iter().for_each(|v| self.bytes.extend(v.finish()));
        self
    }

    pub(super) fn i32s(mut self, field: i16, values: &[i32]) -> Self {
        self.list(field, Kind::I32, values.len());
        values.iter().for_each(|v| varint(&mut self.bytes, zigzag(i64::from(*v))));
        self
    }

    pub(super) fn texts(mut self, field: i16, values: &[&str]) -> Self {
        self.list(field, Kind::Binary, values.len());
        values.iter().for_each(|v| string(&mut self.bytes, v));
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }

    fn list(&mut self, field: i16, kind: Kind, len: usize) {
        self.header(field, Kind::List);
        if len < 15 {
            self.bytes.push((len as u8) << 4 | kind as u8);
        } else {
            self.bytes.push(0xf0 | kind as u8);
            varint(&mut self.bytes, len as u64);
        }
    }

    fn header(&mut self, field: i16, kind: Kind) {
        let step = field - self.last;
        debug_assert!((1..=15).contains(&step), "fields rise by at most 15");
        self.bytes.push((step as u8) << 4 | kind as u8);
        self.last = field;
    }
}

/// Seven bits a byte, lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn string(out: &mut Vec<u8>, value: &str) {
    varint(out, value.len() as u64);
    out.extend(value.as_bytes());
}
