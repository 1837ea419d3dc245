//! docs/metrics.md lists exactly the metrics that the code registers.
//!
//! Read off the source: a metric's name is a literal, and its help text the literal after it. Not
//! off a running tier, because a metric by label shows nothing there until it has a value.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::source::{Strings, code, without_tests};
use crate::{generated, none, workspace};

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    kind: &'static str,
    labels: Vec<String>,
    help: String,
    path: String,
}

/// Methods of `forebay_ops::Metrics` and `Scrape` that register a name, and what they make.
const METHODS: [(&str, &str); 10] = [
    ("counter", "counter"),
    ("counters", "counter"),
    ("total", "counter"),
    ("total_float", "counter"),
    ("gauge", "gauge"),
    ("gauges", "gauge"),
    ("gauge_float", "gauge"),
    ("histogram", "histogram"),
    ("histograms", "histogram"),
    ("latency", "histogram"),
];

const TIERS: [(&str, &str, &str); 4] = [
    ("Front", "forebay_front_", "bins/front/"),
    ("Middle", "forebay_middle_", "bins/middle/"),
    ("Storage", "forebay_storage_", "bins/storage/"),
    ("Others", "forebay_", ""),
];

const HEAD: &str = "# Metrics

What each tier shows under `/metrics` of its admin port, in the text format of Prometheus. Base
units, `_total` for counters; a histogram of seconds has 18 buckets from 10 µs on, each twice the
one before. No metric has a device as a label.

This page is written from the code: `UPDATE_DOCS=1 cargo test -p forebay-testkit --test tidy`.
";

#[test]
fn the_page_of_metrics_lists_what_is_registered_and_nothing_else() {
    let registered = registered();
    let mut page = HEAD.to_owned();
    let mut shown = std::collections::BTreeSet::new();
    for (title, prefix, _) in TIERS {
        let ours: Vec<_> = registered
            .iter()
            .filter(|(name, _)| name.starts_with(prefix) && !shown.contains(*name))
            .collect();
        if ours.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "\n## {title}\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n"
        );
        for (name, metric) in &ours {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let (labels, help) = (labels.join(" "), generated::cell(&metric.help));
            let _ = writeln!(page, "| `{name}` | {} | {labels} | {help} |", metric.kind);
        }
        shown.extend(ours.into_iter().map(|(name, _)| name));
    }
    generated::compare("docs/metrics.md", &page);
}

#[test]
fn a_tier_registers_under_its_own_name() {
    let mut faults = Vec::new();
    for (name, metric) in registered() {
        for (_, prefix, folder) in TIERS {
            if !folder.is_empty() && metric.path.starts_with(folder) && !name.starts_with(prefix) {
                faults.push(format!("{name} in {} does not begin with {prefix}", metric.path));
            }
        }
        if !metric.help.ends_with('.') {
            faults.push(format!("the help of {name} is not a sentence: {}", metric.help));
        }
    }
    none("metrics", faults);
}

/// `forebay top` once asked for a metric that had been renamed, and showed nothing.
#[test]
fn what_the_command_reads_off_a_tier_is_registered() {
    let registered = registered();
    let (mut faults, mut asked) = (Vec::new(), 0);
    for (path, source) in workspace::sources() {
        if !path.starts_with("bins/forebay/src/") {
            continue;
        }
        let code = code(without_tests(&path, &source), Strings::Keep);
        for (at, _) in code.match_indices("\"forebay_") {
            let name = code[at + 1..].split('"').next().unwrap_or_default();
            let of_tier = TIERS[..3].iter().any(|(_, prefix, _)| name.starts_with(prefix));
            asked += usize::from(of_tier);
            if of_tier && !registered.contains_key(name) {
                faults.push(format!("{path} reads {name}, which nobody registers"));
            }
        }
    }
    assert!(asked > 15, "only {asked} names found");
    none("metrics that are read", faults);
}

fn registered() -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    for (path, source) in workspace::sources() {
        if path.starts_with("crates/testkit/") || path.starts_with("crates/ops/src/metrics/") {
            continue;
        }
        let code = code(without_tests(&path, &source), Strings::Keep);
        for (name, metric) in metrics_of(&path, &code) {
            match found.get_mut(&name) {
                None => drop(found.insert(name, metric)),
                Some(first) => {
                    // Registered once for each value of a label.
                    for label in metric.labels {
                        if !first.labels.contains(&label) {
                            first.labels.push(label);
                        }
                    }
                }
            }
        }
    }
    found
}

fn metrics_of(path: &str, code: &str) -> Vec<(String, Metric)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("\"forebay_") {
        let Some((name, after)) = literal(&code[at..]) else { continue };
        let Some(after) = after.trim_start().strip_prefix(',') else { continue };
        let Some((help, after)) = literal(after.trim_start()) else { continue };
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            continue;
        }
        let before = code[..at].trim_end();
        let method = before.strip_suffix('(').unwrap_or(before);
        let method = method.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
        let kind = METHODS
            .iter()
            .find(|(known, _)| Some(*known) == method)
            .map_or(if name.ends_with("_total") { "counter" } else { "gauge" }, |(_, kind)| *kind);
        let start = before.rfind([';', '?']).map_or(0, |at| at + 1);
        let mut labels = fixed_labels(&code[..start], &code[start..at], RECEIVERS_MAX);
        labels.extend(label_list(after));
        found.push((name, Metric { kind, labels, help, path: path.to_owned() }));
    }
    found
}

/// How many variables are followed back to where labels were put on.
const RECEIVERS_MAX: usize = 4;

/// The labels that `expression` puts on by `with_label`, and those of the variable it begins with,
/// which was bound in the code `before`.
fn fixed_labels(before: &str, expression: &str, depth: usize) -> Vec<String> {
    let own = expression
        .match_indices("with_label(")
        .filter_map(|(at, call)| literal(expression[at + call.len()..].trim_start()))
        .map(|(label, _)| label);
    let bound = receiver(expression).filter(|_| depth > 0).and_then(|name| {
        let binding = ["let ", "let mut "].iter().filter_map(|word| {
            let binding = format!("{word}{name} = ");
            before.rfind(&binding).map(|at| (at, at + binding.len()))
        });
        let (start, value) = binding.max()?;
        // A variable of another function is another variable.
        (!before[start..].contains("\nfn ") && !before[start..].contains("\n}")).then_some(())?;
        let value = before[value..].split([';', '?']).next().unwrap_or_default();
        Some(fixed_labels(&before[..start], value, depth - 1))
    });
    let mut labels: Vec<String> = bound.unwrap_or_default();
    labels.extend(own);
    labels
}

/// The variable whose method is called in `expression`: what stands before its first dot.
fn receiver(expression: &str) -> Option<&str> {
    let (before, _) = expression.split_once('.')?;
    let name = before.trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (!name.is_empty()).then_some(name)
}

/// The labels of `, &["a", "b"])` at the end of a call.
fn label_list(after: &str) -> Vec<String> {
    let call = after.split([';', '?']).next().unwrap_or_default();
    let Some((_, list)) = call.split_once("&[") else { return Vec::new() };
    let list = list.split(']').next().unwrap_or_default();
    list.split(',').filter_map(|item| literal(item.trim())).map(|(label, _)| label).collect()
}

/// The string literal that `code` begins with, and what follows it.
fn literal(code: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = code.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((text, &code[at + 2..])),
            '\\' => match characters.next()?.1 {
                // A line that goes on: nothing of the break and the indent is meant.
                '\n' => {
                    let rest = characters.as_str();
                    let indent = rest.len() - rest.trim_start().len();
                    for _ in rest[..indent].chars() {
                        characters.next();
                    }
                }
                'n' => text.push(' '),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

#[test]
fn metrics_are_read_off_their_registration() {
    let code = r#"
        let a = metrics.counter("forebay_a_total", "Many \
            a's.")?;
        let b = metrics.with_label("queue", "log").latency(
            "forebay_b_seconds",
            "Time of b.",
        )?;
        let c = metrics.gauges("forebay_c", "C.", &["x", "y"])?;
        let labelled = metrics.with_label("queue", "log");
        let mut scrape = labelled.scrape();
        let d = scrape
            .total_float("forebay_d_seconds_total", "D.")?;
        assert!(text.contains("forebay_d 1"));
    "#;
    let found: Vec<_> = metrics_of("x.rs", code)
        .into_iter()
        .map(|(name, metric)| (name, metric.kind, metric.labels.join(" "), metric.help))
        .collect();
    let expected = [
        ("forebay_a_total", "counter", "", "Many a's."),
        ("forebay_b_seconds", "histogram", "queue", "Time of b."),
        ("forebay_c", "gauge", "x y", "C."),
        ("forebay_d_seconds_total", "counter", "queue", "D."),
    ];
    let expected = expected.map(|(n, k, l, h)| (n.to_owned(), k, l.to_owned(), h.to_owned()));
    assert_eq!(found, expected);
}
