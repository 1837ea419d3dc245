//! No send of a ZeroMQ socket is dropped halfway.
//!
//! The crate's send writes a message part by part: dropped in between it loses the message, or
//! leaves half of it for the next one to follow. So no `select!`, `timeout` or the like may hold one,
//! nor a function of the same file that awaits one. Which functions these are, and what holds them,
//! is read from the text; it cannot show what the runtime does with a whole thread or task, which
//! takes its socket along when it ends.

use std::{collections::BTreeSet, ops::Range};

use crate::source::{Strings, code, has_word, without_tests};
use crate::{none, workspace};

/// What may drop a future before it is done.
const DROPPERS: [&str; 8] = [
    "select!",
    "select_biased!",
    "timeout(",
    "timeout_at(",
    "now_or_never(",
    "select(",
    "poll_fn(",
    "abortable(",
];

#[test]
fn no_send_of_a_socket_is_dropped_halfway() {
    let (mut faults, mut senders) = (Vec::new(), 0);
    for (path, source) in workspace::sources() {
        let source = without_tests(&path, &source);
        let code = code(source, Strings::Blank);
        if path.starts_with("crates/link/src/adapter/") && code.contains("zeromq::") {
            senders += sends(&code).len();
            faults.extend(dropped(&code).into_iter().map(|line| format!("{path}:{line}")));
        }
    }
    assert!(senders >= 3, "only {senders} sends of sockets are found: the rule is blind");
    none("sends that may be dropped halfway", faults);
}

/// The lines where something that may drop a future holds a send.
fn dropped(code: &str) -> Vec<usize> {
    let functions = functions(code);
    let mut at: Vec<usize> = sends(code);
    let mut known = BTreeSet::new();
    // Who awaits a function that awaits a send awaits it too.
    loop {
        let sending = functions.iter().filter(|(_, body)| at.iter().any(|at| body.contains(at)));
        let names: BTreeSet<&str> = sending.map(|(name, _)| *name).collect();
        let new: Vec<&str> = names.difference(&known).copied().collect();
        if new.is_empty() {
            break;
        }
        at.extend(new.iter().flat_map(|name| calls(code, name)));
        known.extend(new);
    }
    let holders = DROPPERS.iter().flat_map(|name| {
        let starts = code.match_indices(name).map(|(at, _)| at + name.trim_end_matches('(').len());
        starts.filter_map(|start| Some(start..start + enclosed(&code[start..])?))
    });
    let holders: Vec<_> = holders.chain(polled_once(code)).collect();
    at.retain(|at| holders.iter().any(|holder| holder.contains(at)));
    let lines: BTreeSet<_> = at.iter().map(|at| code[..*at].lines().count()).collect();
    lines.into_iter().collect()
}

/// Where a send is awaited, or made into a future: sends without one only fill a queue of ours.
fn sends(code: &str) -> Vec<usize> {
    let found = code.match_indices(".send(").filter(|(at, name)| {
        let start = at + name.len() - 1;
        let behind = enclosed(&code[start..]).map(|length| code[start + length..].trim_start());
        behind.is_some_and(|behind| behind.starts_with(".await") || is_polled(behind))
            || code[..*at].ends_with("socket")
    });
    found.map(|(at, _)| at).collect()
}

/// The futures that are polled once and dropped: the statement before `now_or_never`.
fn polled_once(code: &str) -> impl Iterator<Item = Range<usize>> {
    code.match_indices(".now_or_never(").map(|(at, _)| {
        let start = code[..at].rfind([';', '{', '}']).map_or(0, |start| start + 1);
        start..at
    })
}

fn is_polled(behind: &str) -> bool {
    behind.starts_with(".now_or_never(")
}

/// Names and bodies of the functions.
fn functions(code: &str) -> Vec<(&str, Range<usize>)> {
    let heads = code.match_indices("fn ").filter(|(at, _)| has_word(&code[*at..*at + 3], "fn"));
    let functions = heads.filter_map(|(at, _)| {
        let name = code[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        let body = at + code[at..].find('{')?;
        Some((name, body..body + enclosed(&code[body..])?))
    });
    functions.filter(|(name, _)| !name.is_empty()).collect()
}

/// Where a function is called.
fn calls(code: &str, name: &str) -> Vec<usize> {
    let call = format!("{name}(");
    let places = code.match_indices(&call).filter(|(at, _)| {
        let before = &code[..*at];
        let is_other = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        // Of another type: its own file has its sends.
        let is_elsewhere = before.ends_with("::") && !before.ends_with("Self::");
        !is_other && !is_elsewhere && !before.ends_with("fn ")
    });
    places.map(|(at, _)| at).collect()
}

/// How long the first pair of brackets in `code` and all before it are.
fn enclosed(code: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn a_send_that_may_be_dropped_is_found() {
    let held = |body: &str| dropped(&format!("async fn run() {{\n{body}\n}}\n{PUBLISH}"));
    assert_eq!(held("publish(&mut socket).await;\nselect! { () = stop => {} }"), [0; 0]);
    assert_eq!(held("select! {\n  () = publish(&mut socket) => {}\n}"), [3]);
    assert_eq!(held("timeout(LONG,\n  socket.send(message)).await;"), [3]);
    assert_eq!(held("let sent = timeout(LONG, async {\n  half.send(message).await }).await;"), [3]);
    assert_eq!(held("half.send(message).now_or_never();"), [2]);
    assert_eq!(held("let router = timeout(LONG, Other::publish()).await;"), [0; 0]);
    assert_eq!(held("timeout(LONG, Self::publish()).await;"), [2]);
    assert_eq!(held("timeout(LONG, queue.send_all()).await;\nqueue.send(frame);"), [0; 0]);
    let through =
        "async fn twice() { publish(s).await }\nasync fn run() { select! {\n _ = twice() => {} } }";
    assert_eq!(dropped(&format!("{through}\n{PUBLISH}")), [3]);
}

#[cfg(test)]
const PUBLISH: &str = "async fn publish(socket: &mut PubSocket) { socket.send(message).await }";
