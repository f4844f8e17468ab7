//! An inert pickle interpreter: it builds plain values and runs nothing.
//!
//! Python's pickle is a small stack machine that may import and call anything. This one knows only the opcodes that a
//! state dict needs (protocols 2 to 5) and only the imports listed in [`global`]; those build values of this module.
//! Everything else is refused by name. Values live in an arena and refer to each other by index, so that deeply
//! nested or cyclic ones need no recursion, and memory stays proportional to the length of the input.

mod call;
mod reader;
mod value;

use std::collections::BTreeMap;

pub(crate) use value::{Arena, Object, TensorRef, Value};

use reader::Reader;

/// A state dict of 100 000 tensors has a pickle of some 20 MB, and costs some 3 million.
const MAX_PICKLE: usize = 64 << 20;
const MAX_OBJECTS: usize = 1 << 23;

/// Why a pickle was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PickleError {
    /// Cut off or inconsistent.
    Damaged(String),
    /// Well-formed, as far as read, but asks for something that is not allowed.
    Refused(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, PickleError> {
    Err(PickleError::Damaged(what.into()))
}

fn refused<T>(what: impl Into<String>) -> Result<T, PickleError> {
    Err(PickleError::Refused(what.into()))
}

/// Interprets `pickle` and returns its value with the arena that it lives in.
pub(crate) fn interpret(pickle: &[u8]) -> Result<(Arena, Value), PickleError> {
    if pickle.len() > MAX_PICKLE {
        return refused(format!("its pickle is larger than {} MiB", MAX_PICKLE >> 20));
    }
    Machine { arena: Arena::default(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() }
        .run(pickle)
}

struct Machine {
    arena: Arena,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Value>,
}

impl Machine {
    fn run(mut self, pickle: &[u8]) -> Result<(Arena, Value), PickleError> {
        let mut input = Reader::new(pickle);
        loop {
            let at = input.position();
            let opcode = input.u8()?;
            if opcode == b'.' {
                let value = self.pop()?;
                return Ok((self.arena, value));
            }
            self.step(opcode, at, &mut input)?;
            if self.cost() > MAX_OBJECTS {
                return refused(format!("its pickle builds more than {MAX_OBJECTS} objects"));
            }
        }
    }

    /// All that an opcode of a byte or two can add to.
    fn cost(&self) -> usize {
        self.arena.cost() + self.stack.len() + self.marks.len() + self.memo.len()
    }

    fn step(&mut self, opcode: u8, at: usize, input: &mut Reader<'_>) -> Result<(), PickleError> {
        match opcode {
            0x80 => match input.u8()? {
                2..=5 => {}
                other => return refused(format!("pickle protocol {other} is not supported (2 to 5 are)")),
            },
            0x95 => drop(input.array::<8>()?), // FRAME: only a hint for buffering
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(*self.stack.last().ok_or_else(underflow)?),

            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => self.stack.push(Value::Int(i32::from_le_bytes(input.array()?).into())),
            b'K' => self.stack.push(Value::Int(input.u8()?.into())),
            b'M' => self.stack.push(Value::Int(u16::from_le_bytes(input.array()?).into())),
            0x8a => {
                let length = usize::from(input.u8()?);
                let value = integer(input.bytes(length)?);
                self.stack.push(value);
            }
            0x8b => {
                let length = input.length_i32()?;
                let value = integer(input.bytes(length)?);
                self.stack.push(value);
            }
            b'G' => self.stack.push(Value::Float(f64::from_be_bytes(input.array()?))),

            0x8c => {
                let length = usize::from(input.u8()?);
                self.text(input, length)?;
            }
            b'X' => {
                let length = input.length_u32()?;
                self.text(input, length)?;
            }
            0x8d => {
                let length = input.length_u64()?;
                self.text(input, length)?;
            }
            // Byte strings matter to nobody here (numpy scalars and random states in training checkpoints).
            b'U' | b'C' => {
                let length = usize::from(input.u8()?);
                self.opaque(input, length)?;
            }
            b'T' => {
                let length = input.length_i32()?;
                self.opaque(input, length)?;
            }
            b'B' => {
                let length = input.length_u32()?;
                self.opaque(input, length)?;
            }
            0x8e | 0x96 => {
                let length = input.length_u64()?;
                self.opaque(input, length)?;
            }

            b']' | 0x8f => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b')' => self.push(Object::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Object::Tuple(items));
            }
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Object::List(items));
            }
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = pairs(&items)?;
                self.push(Object::Dict(pairs));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }

            b'q' => {
                let slot = input.u8()?.into();
                self.memoize(slot)?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(input.array()?).into();
                self.memoize(slot)?;
            }
            0x94 => self.memoize(self.memo.len() as u64)?,
            b'h' => {
                let slot = input.u8()?.into();
                self.recall(slot)?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(input.array()?).into();
                self.recall(slot)?;
            }

            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.import(module, name)?;
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let text = |v: Value| self.arena.text(v).map(str::to_owned);
                match (text(names[0]), text(names[1])) {
                    (Some(module), Some(name)) => self.import(&module, &name)?,
                    _ => return damaged("the pickle imports something that is not a name"),
                }
            }
            b'R' | 0x81 => {
                let operands = self.pop_many(2)?;
                let value = call::call(&mut self.arena, operands[0], operands[1])?;
                self.stack.push(value);
            }
            0x92 => {
                let operands = self.pop_many(3)?;
                let value = call::call(&mut self.arena, operands[0], operands[1])?;
                self.stack.push(value);
            }
            // The state of an object (`_metadata` of a state dict): nothing that we need.
            b'b' => {
                self.pop()?;
                self.stack.last().ok_or_else(underflow)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let value = call::persistent(&mut self.arena, id)?;
                self.stack.push(value);
            }
            other => {
                return refused(format!(
                    "pickle opcode {} at byte {at} is not part of a state dict",
                    name(other)
                ));
            }
        }
        Ok(())
    }

    fn push(&mut self, object: Object) {
        let value = self.arena.add(object);
        self.stack.push(value);
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        // Values below a mark belong to an enclosing collection.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return damaged("the pickle takes a value across a mark");
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|&from| from >= floor).ok_or_else(underflow)?;
        Ok(self.stack.split_off(from))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn memoize(&mut self, slot: u64) -> Result<(), PickleError> {
        let value = *self.stack.last().ok_or_else(underflow)?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u64) -> Result<(), PickleError> {
        match self.memo.get(&slot) {
            Some(&value) => self.stack.push(value),
            None => return damaged(format!("the pickle refers to memo entry {slot}, which was never made")),
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let global = call::global(module, name)?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn text(&mut self, input: &mut Reader<'_>, length: usize) -> Result<(), PickleError> {
        // Lone surrogates, which Python can write and UTF-8 cannot hold, never occur in a tensor's name.
        let text = String::from_utf8_lossy(input.bytes(length)?).into_owned();
        self.push(Object::Text(text));
        Ok(())
    }

    fn opaque(&mut self, input: &mut Reader<'_>, length: usize) -> Result<(), PickleError> {
        input.bytes(length)?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), PickleError> {
        match self.stack.last().map(|&v| self.arena.get_mut(v)) {
            Some(Some(Object::List(list))) => list.extend(items),
            Some(_) if self.stack.last() == Some(&Value::Opaque) => {}
            _ => return damaged("the pickle appends to something that is not a list"),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value]) -> Result<(), PickleError> {
        let pairs = pairs(items)?;
        match self.stack.last().map(|&v| self.arena.get_mut(v)) {
            Some(Some(Object::Dict(dict))) => dict.extend(pairs),
            Some(_) if self.stack.last() == Some(&Value::Opaque) => {}
            _ => return damaged("the pickle sets an item of something that is not a dict"),
        }
        Ok(())
    }
}

fn underflow() -> PickleError {
    PickleError::Damaged("the pickle takes a value from an empty stack".into())
}

fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, PickleError> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return damaged("the pickle has a dict key without a value");
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

/// Two's complement, little-endian, any length; what does not fit an `i64` is kept as something opaque.
fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|&b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// The names that Python's `pickletools` gives to the opcodes that we refuse.
fn name(opcode: u8) -> String {
    let known = match opcode {
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'p' => "PUT",
        b'g' => "GET",
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("0x{opcode:02x}"),
    };
    format!("{known} (0x{opcode:02x})")
}
