//! `forebay check`: is everything that was accepted stored, set aside, or still on its way?
//!
//! Each tier keeps its own books: a front numbers what it accepts, a middle's log tells what it
//! holds and what it dropped as known, a sink counts what its store took. Here they are laid side by
//! side. A front is asked before the middles: what it has let go of, they must have had by then.

use std::{
    fmt,
    process::ExitCode,
    str::FromStr as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use forebay_wire::Seq;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    EXIT_LATE,
    admin::{self, Port, Which},
};

/// Longest time a tier may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked again, while something is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Checks that everything accepted is stored, set aside, or still on its way.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// Wait so long at most until nothing is on its way any more: only then is every message seen.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    wait: forebay_ops::Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A front's ring.
#[derive(Debug, Clone, Deserialize)]
struct Ring {
    partition: String,
    queue: String,
    committed: String,
    pending_entries: u64,
}

/// What `/v1/status` of a front, or `/v1/balance` of a middle says.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "tier", rename_all = "lowercase")]
enum Told {
    Front { rings: Vec<Ring> },
    Middle(Middle),
}

/// A middle's books.
#[derive(Debug, Clone, Default, Deserialize)]
struct Middle {
    received: u64,
    appended: u64,
    duplicates: u64,
    lost: u64,
    consumers: Vec<Consumer>,
    sources: Vec<Source>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Consumer {
    consumer: String,
    counted: bool,
    #[serde(default)]
    unreadable: u64,
    #[serde(default)]
    rows: u64,
    #[serde(default)]
    stored: u64,
    #[serde(default)]
    dead: u64,
    #[serde(default)]
    left_out: u64,
    #[serde(default)]
    messages: u64,
    #[serde(default)]
    held: u64,
    #[serde(default)]
    given_up: u64,
    #[serde(default)]
    missing_messages: i64,
    #[serde(default)]
    missing_rows: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Source {
    queue: String,
    position: String,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fault {
    /// Which tier, and which part of it.
    place: String,
    /// How many; below 0, too many.
    missing: Option<i64>,
    what: String,
}

/// What one sink's books come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Sink {
    middle: String,
    consumer: String,
    /// Whether it keeps books that can be compared.
    counted: bool,
    /// Messages that it has dealt with, and of these the ones set aside unread.
    messages: u64,
    unreadable: u64,
    /// Messages that wait for it in the middle.
    held: u64,
    /// Messages that it will never get: it was detached, and its gaps name them.
    given_up: u64,
    rows: u64,
    stored: u64,
    dead: u64,
    left_out: u64,
}

/// All of it, side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Balance {
    balanced: bool,
    /// Messages accepted by the fronts: those that the middles have had, and those that wait.
    accepted: u64,
    held_by_fronts: u64,
    appended: u64,
    duplicates: u64,
    lost: u64,
    sinks: Vec<Sink>,
    faults: Vec<Fault>,
}

/// Exit 1 if something is missing or a tier does not answer, 75 if something was still on its way
/// when the time was up.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let ports = options.which.ports()?;
    ensure!(!ports.is_empty(), "no tier is named");
    let (wait, began) = (options.wait.get(), Instant::now());
    let balance = loop {
        let balance = weigh(&ask(&ports)?);
        if !balance.faults.is_empty() || balance.is_settled() || began.elapsed() >= wait {
            break balance;
        }
        std::thread::sleep(LOOK_EVERY.min(wait.saturating_sub(began.elapsed())));
    };
    if options.json {
        println!("{}", serde_json::to_string(&balance)?);
    } else {
        print!("{balance}");
    }
    Ok(match (balance.balanced, balance.is_settled() || wait.is_zero()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_LATE),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// What the tiers say; fronts first.
fn ask(ports: &[Port]) -> Result<Vec<(String, Told)>> {
    let mut told = Vec::new();
    let mut middles = Vec::new();
    for port in ports {
        // A storage tier's books are with the middles: it has no place of its own for them.
        let Some(status) = get(port, "/v1/status")? else { continue };
        match status["tier"].as_str() {
            Some("front") => told.push((port.to_string(), read(port, status)?)),
            Some("middle") => middles.push(port),
            _ => {}
        }
    }
    for port in middles {
        let balance = get(port, "/v1/balance")?;
        let balance = balance.with_context(|| format!("{port} is of a release without balance"))?;
        told.push((port.to_string(), read(port, balance)?));
    }
    Ok(told)
}

/// `None`: the tier has no such page.
fn get(port: &Port, path: &str) -> Result<Option<Value>> {
    let answer = admin::get(&port.address, path, ANSWER_WITHIN)
        .with_context(|| format!("{port} does not answer: a balance needs every tier"))?;
    if answer.code == 404 {
        return Ok(None);
    }
    ensure!(answer.code == 200, "{port}: {path} says {}", answer.code);
    serde_json::from_str(&answer.body).with_context(|| format!("{port}: {path} is no JSON"))
}

fn read(port: &Port, answer: Value) -> Result<Told> {
    serde_json::from_value(answer).with_context(|| format!("{port} is of another release"))
}

/// Lays the books side by side.
fn weigh(told: &[(String, Told)]) -> Balance {
    let mut balance = Balance::default();
    let mut middles = 0;
    for (name, one) in told {
        match one {
            Told::Front { rings } => {
                balance.held_by_fronts +=
                    rings.iter().map(|ring| ring.pending_entries).sum::<u64>();
            }
            Told::Middle(middle) => {
                middles += 1;
                balance.middle(name, middle);
            }
        }
    }
    if middles > 0 {
        for (name, one) in told {
            let Told::Front { rings } = one else { continue };
            for ring in rings {
                balance.faults.extend(let_go(name, ring, told));
            }
        }
    }
    balance.accepted += balance.held_by_fronts;
    balance.balanced = balance.faults.is_empty();
    balance
}

/// What a front has let go of and no middle has had.
fn let_go(front: &str, ring: &Ring, told: &[(String, Told)]) -> Option<Fault> {
    let committed = Seq::from_str(&ring.committed).ok()?;
    let positions = told.iter().filter_map(|(_, one)| match one {
        Told::Middle(middle) => middle.sources.iter().find(|source| source.queue == ring.queue),
        _ => None,
    });
    let position = positions.filter_map(|source| Seq::from_str(&source.position).ok()).max();
    if committed == Seq::ZERO || position.is_some_and(|position| position >= committed) {
        return None;
    }
    let place = format!("{front}, ring {}", ring.partition);
    let Some(position) = position else {
        let what = format!(
            "it has let go of all up to {committed}, and no middle asked knows its queue {}: a \
             middle was not asked, has lost its disk, or has not heard of the ring for longer than \
             dedup.source_retention",
            ring.queue
        );
        return Some(Fault { place, missing: None, what });
    };
    let same = position.epoch() == committed.epoch();
    let missing = same.then(|| (committed.counter() - position.counter()).cast_signed());
    let what = format!("it has let go of all up to {committed}, the middle has had {position}");
    Some(Fault { place, missing, what })
}

impl Balance {
    fn middle(&mut self, name: &str, middle: &Middle) {
        self.accepted += middle.received;
        self.appended += middle.appended;
        self.duplicates += middle.duplicates;
        self.lost += middle.lost;
        if middle.lost > 0 {
            self.faults.push(Fault {
                place: name.to_owned(),
                missing: Some(middle.lost.cast_signed()),
                what: "messages that fronts have numbered never reached its log".to_owned(),
            });
        }
        for one in &middle.consumers {
            let place = format!("{name}, consumer {}", one.consumer);
            let mut fault = |missing: i64, what: &str| {
                if missing != 0 {
                    let (missing, what) = (Some(missing), what.to_owned());
                    self.faults.push(Fault { place: place.clone(), missing, what });
                }
            };
            fault(one.missing_messages, "messages of the log that it has passed and not counted");
            fault(one.missing_rows, "rows that it made and its store never acknowledged");
            self.sinks.push(Sink {
                middle: name.to_owned(),
                consumer: one.consumer.clone(),
                counted: one.counted,
                messages: one.messages,
                unreadable: one.unreadable,
                held: one.held,
                given_up: one.given_up,
                rows: one.rows,
                stored: one.stored,
                dead: one.dead,
                left_out: one.left_out,
            });
        }
    }

    /// Whether nothing is on its way.
    fn is_settled(&self) -> bool {
        self.held_by_fronts == 0 && self.sinks.iter().all(|sink| sink.counted && sink.held == 0)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, held_by_fronts, appended, duplicates, lost, .. } = self;
        writeln!(
            f,
            "accepted {accepted} = in the log {appended} + duplicates {duplicates} + lost {lost} \
             + held by fronts {held_by_fronts}"
        )?;
        for sink in &self.sinks {
            let Sink { consumer, messages, unreadable, held, rows, stored, dead, left_out, .. } =
                sink;
            if !sink.counted {
                writeln!(f, "{consumer}: not counted yet: it has not caught up since it joined")?;
                continue;
            }
            writeln!(
                f,
                "{consumer}: {messages} messages ({unreadable} unreadable), {held} held; \
                 rows {rows} = stored {stored} + dead-lettered {dead} + left out {left_out}"
            )?;
            if sink.given_up > 0 {
                writeln!(
                    f,
                    "{consumer}: {} messages given up while it was detached",
                    sink.given_up
                )?;
            }
        }
        for Fault { place, missing, what } in &self.faults {
            match missing {
                Some(missing @ 0..) => writeln!(f, "MISSING {missing} at {place}: {what}")?,
                Some(missing) => writeln!(f, "{} TOO MANY at {place}: {what}", -missing)?,
                None => writeln!(f, "UNKNOWN at {place}: {what}")?,
            }
        }
        writeln!(f, "{}", if self.balanced { "balanced" } else { "NOT BALANCED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(committed: &str, position: &str, change: impl FnOnce(&mut Middle)) -> Balance {
        let ring = Ring {
            partition: "main".to_owned(),
            queue: "ab".to_owned(),
            committed: committed.to_owned(),
            pending_entries: 3,
        };
        let consumer = Consumer {
            consumer: "lake".to_owned(),
            counted: true,
            messages: 8,
            ..Consumer::default()
        };
        let mut middle = Middle {
            received: 10,
            appended: 8,
            duplicates: 2,
            consumers: vec![consumer],
            sources: vec![Source { queue: "ab".to_owned(), position: position.to_owned() }],
            ..Middle::default()
        };
        change(&mut middle);
        weigh(&[
            ("front".to_owned(), Told::Front { rings: vec![ring] }),
            ("middle".to_owned(), Told::Middle(middle)),
        ])
    }

    #[test]
    fn books_that_agree_balance_and_each_that_does_not_is_named() {
        let good = told("1:10", "1:10", |_| ());
        assert!(good.balanced && good.accepted == 13 && !good.is_settled(), "{good}");
        let places = |balance: Balance| {
            assert!(!balance.balanced);
            let fault = |fault: &Fault| (fault.place.clone(), fault.missing);
            balance.faults.iter().map(fault).collect::<Vec<_>>()
        };
        let lost = places(told("1:10", "1:10", |middle| middle.lost = 2));
        assert_eq!(lost, [("middle".to_owned(), Some(2))]);
        let gone = places(told("1:10", "1:7", |_| ()));
        assert_eq!(gone, [("front, ring main".to_owned(), Some(3))]);
        let other = places(told("2:10", "1:7", |_| ()));
        assert_eq!(other, [("front, ring main".to_owned(), None)]);
        let never = places(told("1:10", "1:10", |middle| middle.sources.clear()));
        assert_eq!(never, [("front, ring main".to_owned(), None)]);
        let dropped = places(told("1:10", "1:10", |middle| {
            middle.consumers[0].missing_messages = 1;
            middle.consumers[0].missing_rows = -2;
        }));
        let lake = "middle, consumer lake".to_owned();
        assert_eq!(dropped, [(lake.clone(), Some(1)), (lake, Some(-2))]);
    }
}
