//! What comes from outside cannot steer a terminal or forge a line.
//!
//! Device ids, close reasons and what a store answers end up in lines. Control characters, among
//! them newlines and the escape that begins a terminal's commands, and characters that change the
//! direction of text, are written as escapes in every field and message.

use std::{
    fmt::{self, Write as _},
    io,
};

use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{
        MakeWriter,
        format::{FormatFields, Writer, debug_fn},
    },
};

/// Whether a terminal may take a character for more than itself.
fn is_harmful(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(one, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Fields as text: the message as it is, others as `name=value`, both without harmful characters.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|out: &mut Writer<'_>, field, value: &dyn fmt::Debug| {
        if field.name() != "message" {
            write!(out, "{field}=")?;
        }
        write!(Escaping(out), "{value:?}")
    })
    .delimited(" ")
}

struct Escaping<'a, 'writer>(&'a mut Writer<'writer>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|one| match one {
            _ if !is_harmful(one) => self.0.write_char(one),
            _ => write!(self.0, "{}", one.escape_default()),
        })
    }
}

/// Lines of JSON: the encoder escapes what JSON demands, this the rest of what does harm.
#[derive(Debug, Clone)]
pub(super) struct JsonLines<M>(pub(super) M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for JsonLines<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

/// One line, which is written at once.
#[derive(Debug)]
pub(super) struct JsonLine<W>(W);

impl<W: io::Write> io::Write for JsonLine<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_plain = |text: &str| !text.chars().any(|one| one != '\n' && is_harmful(one));
        match std::str::from_utf8(bytes) {
            Ok(text) if !is_plain(text) => {
                let mut out = String::with_capacity(text.len() + 64);
                for one in text.chars() {
                    // The encoder leaves no newline within a string: this one ends the line. All
                    // others that do harm stand in a string, and lie below U+10000.
                    if one == '\n' || !is_harmful(one) {
                        out.push(one);
                    } else {
                        let _ = write!(out, "\\u{:04x}", u32::from(one));
                    }
                }
                self.0.write_all(out.as_bytes())?;
            }
            _ => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
