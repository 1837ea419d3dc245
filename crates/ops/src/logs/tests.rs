//! What lines look like, whatever is in them.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tracing_subscriber::EnvFilter;

use super::{
    filter_of, lines,
    repeats::{BURST, Repeats, WINDOW},
};

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("one thread").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("one thread").clone()).expect("text")
    }
}

/// The lines that `work` logs.
fn logged(json: bool, work: impl FnOnce(&Repeats)) -> String {
    let (buffer, repeats) = (Buffer::default(), Arc::<Repeats>::default());
    let writer = buffer.clone();
    let make = move || writer.clone();
    let subscriber = lines(EnvFilter::new("debug"), json, false, make, &repeats);
    tracing::subscriber::with_default(subscriber, || work(&repeats));
    buffer.text()
}

/// A colour, a cleared screen by the 8-bit escape, a bell, a forged line, text turned around.
const HOSTILE: &str =
    "pump\x1b[31m\x1b]0;owned\x07\u{9b}2J\r\n2026-01-01 ERROR all is lost\u{202e}\x7f\x08";

fn log_hostile() {
    tracing::warn!(device = HOSTILE, reason = %HOSTILE, "closed: {HOSTILE}");
    tracing::error!(error = %io::Error::other(HOSTILE), "a device was refused");
}

#[test]
fn what_a_device_sends_neither_steers_a_terminal_nor_forges_a_line() {
    let text = logged(false, |_| log_hostile());
    assert_eq!(text.lines().count(), 2, "{text:?}");
    assert!(text.contains("\\u{1b}[31m") && text.contains("closed: pump"), "{text:?}");
    let harmful = |one: char| one != '\n' && (one.is_control() || one == '\u{202e}');
    assert!(!text.contains(harmful), "{text:?}");
    let json = logged(true, |_| log_hostile());
    assert_eq!(json.lines().count(), 2, "{json:?}");
    assert!(!json.contains(harmful), "{json:?}");
    let line: serde_json::Value =
        serde_json::from_str(json.lines().next().expect("two")).expect("an object a line");
    // A machine gets back exactly what was sent.
    assert_eq!((&line["device"], &line["reason"]), (&HOSTILE.into(), &HOSTILE.into()));
    assert_eq!(line["level"], "WARN");
}

#[test]
fn lines_that_repeat_are_left_out_and_counted() {
    let text = logged(true, |repeats| {
        let began = Instant::now();
        for number in 0..BURST + 7 {
            tracing::warn!(number, "the store is away");
        }
        for number in 0..BURST + 7 {
            tracing::debug!(number, "asked for");
        }
        tracing::warn!("something else");
        repeats.tell(began, false);
        tracing::warn!("its window has not ended");
        repeats.tell(began + WINDOW + Duration::from_secs(60), false);
        // Told once; a new window begins.
        repeats.tell(began + WINDOW + Duration::from_secs(60), true);
    });
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).count() as u64;
    assert_eq!((of("the store is away"), of("asked for")), (BURST, BURST + 7));
    assert_eq!((of("something else"), of("its window has not ended")), (1, 1));
    let told: Vec<_> =
        lines.iter().filter(|line| line["message"] == "lines that repeat were left out").collect();
    assert_eq!(told.len(), 1, "{text}");
    assert_eq!((&told[0]["count"], &told[0]["like"]), (&7.into(), &"the store is away".into()));
}

#[test]
fn what_was_left_out_is_told_at_the_end() {
    let text = logged(false, |repeats| {
        for _ in 0..=BURST {
            tracing::error!("again");
        }
        repeats.tell(Instant::now(), true);
    });
    assert!(text.lines().last().expect("lines").contains("count=1"), "{text}");
}

#[test]
fn a_wrong_filter_is_refused_with_its_variable() {
    let error = filter_of("FOREBAY_LOG", "forebay=loudest").unwrap_err().to_string();
    assert!(error.starts_with("FOREBAY_LOG=`forebay=loudest` is not a log filter"), "{error}");
    assert!(filter_of("FOREBAY_LOG", "info,forebay_link=debug").is_ok());
}
