//! VictoriaMetrics: every number is there, once in effect, and none is lost within the hold-back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use forebay_storage::{
    config,
    remote_write::RemoteWriteSink,
    sink::{Outcome, SinkTask},
};
use forebay_testkit::{Victoria, or_skip};

use crate::{
    common::{
        Log, Served, eventually,
        rows::{OwnedCell, OwnedRow, all_rows, messages, simple},
    },
    fixture::{misconfigured, poison, rows, runtime, send_on, start, transient},
    process::storage,
};

/// What the documentation tells to set.
pub(crate) const FLAGS: [&str; 2] = ["-dedup.minScrapeInterval=1ms", "-retentionPeriod=100y"];

pub(crate) fn settings(server: &Victoria) -> config::RemoteWrite {
    config::RemoteWrite {
        enabled: true,
        url: format!("http://{}/api/v1/write", server.address()),
        timeout: forebay_ops::Duration::from_secs(1),
        ..config::RemoteWrite::default()
    }
}

/// A series, and its samples by millisecond.
type Samples = BTreeMap<(String, i64), f64>;

/// Everything the server shows. `duplicates` are those of one series and millisecond.
fn held(server: &Victoria) -> (Samples, usize) {
    let (mut samples, mut duplicates) = (Samples::new(), 0);
    let body = server.get("/api/v1/export?match[]=%7B__name__!=%22%22%7D").unwrap();
    for line in body.lines() {
        let series: serde_json::Value = serde_json::from_str(line).unwrap();
        let label = |name: &str| series["metric"][name].as_str().unwrap_or("-").to_owned();
        let name = ["__name__", "tenant", "device", "key", "location", "unit"].map(label).join(" ");
        let values = series["values"].as_array().unwrap();
        for (time, value) in series["timestamps"].as_array().unwrap().iter().zip(values) {
            let place = (name.clone(), time.as_i64().unwrap());
            duplicates += usize::from(samples.insert(place, value.as_f64().unwrap()).is_some());
        }
    }
    (samples, duplicates)
}

/// What it must show; of one series and millisecond the sample that came last.
fn expected<'a>(all: impl IntoIterator<Item = &'a OwnedRow>) -> Samples {
    let mut samples = Samples::new();
    for row in all {
        let value = match row.value {
            OwnedCell::Float(number) => number,
            OwnedCell::Int(number) => number as f64,
            OwnedCell::Bool(on) => f64::from(u8::from(on)),
            _ => continue,
        };
        let key = row.key.as_deref().unwrap();
        let metric = key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let unit = row.unit.as_deref().unwrap_or("-");
        let location = if row.device == "device-0" { "cellar" } else { "-" };
        let name = format!("{metric} {} {} {key} {location} {unit}", row.tenant, row.device);
        samples.insert((name, row.at_us().div_euclid(1000)), value);
    }
    samples
}

#[test]
fn victoria_shows_every_number_once_however_often_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Victoria::start(folder.path(), &FLAGS)) else { return };
    let (sent, runtime) = (messages(7, 2000), runtime());
    let config = config::RemoteWrite { samples: 300, ..settings(&server) };
    let mut sink = RemoteWriteSink::new(&config).unwrap();
    let left_out = sink.left_out();
    for range in [0..900, 0..900, 500..2000, 0..2000] {
        assert_eq!(send_on(&runtime, &mut sink, &rows(&sent, range)), Outcome::Ack);
    }
    let all = all_rows(&sent);
    let wanted = expected(&all);
    eventually("all samples can be queried", || held(&server).0.len() >= wanted.len());
    assert_eq!(held(&server), (wanted, 0));
    let texts = all.iter().filter(|row| matches!(row.value, OwnedCell::Text(_))).count();
    let opaque = all.iter().filter(|row| row.key.is_none()).count();
    let not_applicable = left_out.not_applicable.load(Ordering::Relaxed);
    assert!(not_applicable >= (texts + opaque) as u64, "{not_applicable}");
}

#[test]
fn samples_that_victoria_forgets_when_killed_come_again_within_the_hold_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Victoria::start(folder.path(), &FLAGS)) else { return };
    let log = Log::new(3);
    let served = Served::start(&log);
    let sent: Vec<_> = (1..=3000).map(|seq| simple("d", seq, seq as f64)).collect();
    let section = format!(
        "[remote_write]\nenabled = true\nurl = \"http://{}/api/v1/write\"\nhold_back = \"11s\"\n\
         flush = {{ rows = 500, age = \"50ms\" }}\n",
        server.address()
    );
    let mut writer = storage("storage", &folder.path().join("a"), &served, &section);
    log.append_all(&sent[..2000]);
    eventually("the samples are acked", || {
        held(&server).0.len() == 2000 && log.state("remote-write").committed.get() == 0
    });
    // Both at once, as a node goes: what was acked is gone from the server.
    server.kill().unwrap();
    writer.kill().unwrap();
    server.restart().unwrap();
    let survived = held(&server).0.len();
    log.append_all(&sent[2000..]);
    let mut writer = storage("storage", &folder.path().join("b"), &served, &section);
    eventually("all is acked", || held(&server).0.len() == 3000);
    server.kill().unwrap();
    server.restart().unwrap();
    let again = held(&server).0.len();
    println!("after the kills the server had {survived} of 2000 and {again} of 3000");
    assert!(survived < 2000 || again < 3000, "this server's answer was durable: no hold-back");
    // The storage process lives, has nothing to send, and finds the connection broken when it looks
    // whether it may commit.
    assert_eq!(log.state("remote-write").committed.get(), 0, "committed, and lost");
    eventually("all is acked again", || held(&server).0.len() == 3000);
    assert_eq!(log.state("remote-write").committed.get(), 0, "it waits anew");
    // Without a further range: the cursor moves when the hold-back ends.
    eventually("it is committed", || log.state("remote-write").committed == log.head());
    writer.terminate(Duration::from_secs(25)).unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    eventually("all is there", || held(&server).0.len() == 3000);
    assert_eq!(held(&server), (expected(&all_rows(&sent)), 0));
}

/// What becomes of a connection after an answer.
enum Then {
    Keep,
    /// It is closed, as the answer says.
    Announce,
    /// It is closed, and the answer does not say so.
    Close,
    /// As announced, and nothing is answered any more.
    End,
}

/// An endpoint that says what it is told to for each body; one connection at a time.
fn answering(
    mut say: impl FnMut(&[u8]) -> (&'static str, Then) + Send + 'static,
) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            while let Some(body) = received(&mut stream) {
                let (head, then) = say(&body);
                let close = match then {
                    Then::Keep | Then::Close => "",
                    Then::Announce | Then::End => "connection: close\r\n",
                };
                let length = if head.starts_with("204") { "" } else { "content-length: 3\r\n" };
                let body = if length.is_empty() { "" } else { "why" };
                let answer = format!("HTTP/1.1 {head}\r\n{close}{length}\r\n{body}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
                match then {
                    Then::Keep => {}
                    Then::Announce | Then::Close => break,
                    Then::End => return,
                }
            }
        }
    });
    (url, thread)
}

/// The body of the next request; `None` if the connection ends before.
fn received(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let start = loop {
        if let Some(start) = ended(&request) {
            break start;
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.extend_from_slice(&piece[..count]),
        }
    };
    let head = String::from_utf8_lossy(&request[..start]).to_ascii_lowercase();
    for header in ["content-encoding: snappy", "x-prometheus-remote-write-version: 0.1.0"] {
        assert!(head.contains(header), "{head}");
    }
    Some(request.split_off(start))
}

/// Where the body of a whole request begins.
fn ended(request: &[u8]) -> Option<usize> {
    let start = request.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&request[..start]).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    (request.len() >= start + length.parse::<usize>().unwrap()).then_some(start)
}

#[test]
fn answers_of_an_endpoint_are_told_apart_and_its_wish_to_rest_is_kept() {
    let mut heads = [
        ("503 Busy\r\nretry-after: 1", Then::Announce),
        ("401 No", Then::Announce),
        ("400 Bad", Then::Announce),
        ("429 Slow\r\nretry-after: 0", Then::Announce),
        ("204 Done", Then::End),
    ]
    .into_iter();
    let (url, server) = answering(move |_| heads.next().unwrap());
    let runtime = runtime();
    let config = config::RemoteWrite {
        url,
        timeout: forebay_ops::Duration::from_secs(5),
        ..config::RemoteWrite::default()
    };
    let mut sink = RemoteWriteSink::new(&config).unwrap();
    let block = rows(&[simple("d", 1, 1.0)], 0..1);
    transient(send_on(&runtime, &mut sink, &block));
    // Asked to rest for a second: these are not sent.
    let mut rested = BTreeSet::new();
    let answer = loop {
        match send_on(&runtime, &mut sink, &block) {
            Outcome::Transient(reason) => drop(rested.insert(reason)),
            other => break other,
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(rested.iter().all(|reason| reason.contains("asked to wait")), "{rested:?}");
    assert!(!rested.is_empty());
    misconfigured(answer);
    poison(send_on(&runtime, &mut sink, &block));
    transient(send_on(&runtime, &mut sink, &block));
    assert_eq!(send_on(&runtime, &mut sink, &block), Outcome::Ack);
    server.join().unwrap();
    transient(send_on(&runtime, &mut sink, &block));
}

#[test]
fn what_is_wrong_with_victoria_is_told_apart_and_mends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Victoria::start(folder.path(), &FLAGS)) else { return };
    let (runtime, block) = (runtime(), rows(&[simple("d", 1, 1.0)], 0..1));
    let elsewhere = config::RemoteWrite {
        url: format!("http://{}/nowhere", server.address()),
        ..settings(&server)
    };
    let mut lost = RemoteWriteSink::new(&elsewhere).unwrap();
    misconfigured(send_on(&runtime, &mut lost, &block));
    let mut sink = RemoteWriteSink::new(&settings(&server)).unwrap();
    assert_eq!(send_on(&runtime, &mut sink, &block), Outcome::Ack);
    server.set_paused(true).unwrap();
    transient(send_on(&runtime, &mut sink, &block));
    server.set_paused(false).unwrap();
    assert_eq!(send_on(&runtime, &mut sink, &block), Outcome::Ack);
    server.stop().unwrap();
    transient(send_on(&runtime, &mut sink, &block));
    server.restart().unwrap();
    assert_eq!(send_on(&runtime, &mut sink, &block), Outcome::Ack);
}

/// A task that writes to an endpoint of ours, and holds back for so many seconds.
fn writing(log: &Log, folder: &Path, url: String, seconds: u64) -> SinkTask {
    let config = config::RemoteWrite {
        url,
        timeout: forebay_ops::Duration::from_secs(5),
        hold_back: forebay_ops::Duration::from_secs(seconds),
        ..config::RemoteWrite::default()
    };
    start(log, "remote-write", &folder.join("dead"), RemoteWriteSink::new(&config).unwrap())
}

/// Ends a task at once, and says how many entries it leaves to the next.
#[track_caller]
fn stopped(task: SinkTask) -> u64 {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(task.drain(Instant::now())));
    told.recv_timeout(Duration::from_secs(20)).expect("a stop ends it")
}

/// Each close was taken for a death, for which all was sent again, at which the next was closed:
/// an endless loop that never committed and did not hear of a stop.
#[test]
fn an_endpoint_that_says_that_it_closes_a_connection_is_not_taken_to_have_died() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let (url, _server) = answering(move |body| {
        // Besides those of the range, the writes of nothing that look whether it is there.
        counted.fetch_add(u64::from(body.len() > 1), Ordering::Relaxed);
        ("204 Done", Then::Announce)
    });
    log.append_all(&[simple("d", 1, 1.0)]);
    let task = writing(&log, folder.path(), url, 5);
    eventually("it is committed", || log.state("remote-write").committed == log.head());
    assert_eq!(stopped(task), 0);
    assert_eq!(count.load(Ordering::Relaxed), 1, "sent once");
}

#[test]
fn a_sink_whose_endpoint_seems_to_die_all_the_time_hears_of_a_stop_and_says_what_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(1);
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let (url, _server) = answering(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ("204 Done", Then::Close)
    });
    let sent: Vec<_> = (1..=100).map(|seq| simple("d", seq, seq as f64)).collect();
    log.append_all(&sent);
    let task = writing(&log, folder.path(), url, 3600);
    let status = task.status();
    eventually("both ranges are acked", || status.held() == 100);
    let before = count.load(Ordering::Relaxed);
    eventually("it is sent again", || count.load(Ordering::Relaxed) > before);
    assert_eq!(stopped(task), 100, "what is held back is still at the middle");
    assert_eq!(log.state("remote-write").committed.get(), 0);
}

/// A proxy keeps our connection open while the store behind it is away, and the store has forgotten
/// what it acked when it is back.
#[test]
fn a_store_that_dies_behind_a_proxy_gets_again_what_it_had_acked() {
    for refused_is_empty in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(1);
        let bodies = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let (kept, mut is_away) = (bodies.clone(), true);
        let (url, _server) = answering(move |body| {
            let mut kept = kept.lock().unwrap();
            let is_next = !kept.is_empty() && (body.len() == 1) == refused_is_empty;
            if is_next && std::mem::take(&mut is_away) {
                return ("502 Bad Gateway", Then::Keep);
            }
            if body.len() > 1 {
                kept.push(body.to_vec());
            }
            ("204 Done", Then::Keep)
        });
        log.append_all(&[simple("d", 1, 1.0)]);
        let task = writing(&log, folder.path(), url, 5);
        eventually("the first is acked", || bodies.lock().unwrap().len() == 1);
        if !refused_is_empty {
            log.append_all(&[simple("d", 2, 2.0)]);
        }
        eventually("all is committed", || log.state("remote-write").committed == log.head());
        assert_eq!(stopped(task), 0);
        let bodies = bodies.lock().unwrap();
        let again = bodies.iter().filter(|body| **body == bodies[0]).count();
        assert_eq!(again, 2, "the first range was sent again");
    }
}
