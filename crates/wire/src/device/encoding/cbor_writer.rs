//! Writing CBOR frames: definite lengths, shortest heads.

use super::Writer;
use crate::cbor::{
    put_array, put_bool, put_bytes, put_float, put_int, put_map, put_null, put_text, put_uint,
};

pub(in crate::device) struct CborWriter<'o>(pub(in crate::device) &'o mut Vec<u8>);

impl Writer for CborWriter<'_> {
    fn map(&mut self, pairs: usize) {
        put_map(self.0, pairs);
    }

    fn end_map(&mut self) {}

    fn array(&mut self, items: usize) {
        put_array(self.0, items);
    }

    fn end_array(&mut self) {}

    fn key(&mut self, key: &'static str) {
        put_text(self.0, key);
    }

    fn uint(&mut self, number: u64) {
        put_uint(self.0, number);
    }

    fn int(&mut self, number: i64) {
        put_int(self.0, number);
    }

    fn float(&mut self, number: f64) {
        put_float(self.0, number);
    }

    fn bool(&mut self, on: bool) {
        put_bool(self.0, on);
    }

    fn null(&mut self) {
        put_null(self.0);
    }

    fn text(&mut self, text: &str) {
        put_text(self.0, text);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        put_bytes(self.0, bytes);
    }
}
