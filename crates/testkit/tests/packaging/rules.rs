//! The alerts: right for promtool, each with a unit test and a runbook, all of metrics that exist.

use std::collections::BTreeSet;
use std::fs;

use forebay_testkit::{debian, or_skip};
use serde_json::Value;

use crate::{none, read, root, run, tools, yaml};

pub(crate) const FOLDER: &str = "k8s/components/monitoring";
const RULES: &str = "k8s/components/monitoring/rules.yml";
const RESOURCE: &str = "k8s/components/monitoring/prometheus-rule.yml";

/// Names of metrics that others give: Prometheus itself, the kubelet, kube-state-metrics.
const OF_OTHERS: [&str; 5] = [
    "up",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "kube_persistentvolumeclaim_info",
    "kube_pod_spec_volumes_persistentvolumeclaims_info",
];

/// All alerts of the rules.
fn alerts() -> Option<Vec<Value>> {
    let tools = tools()?;
    let groups = yaml(&tools, &read(RULES)).remove(0)["groups"].take();
    let groups = groups.as_array().expect("groups").clone();
    Some(
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect(),
    )
}

#[test]
fn promtool_finds_no_fault_and_every_unit_test_of_an_alert_passes() {
    let Some(prometheus) = or_skip(debian::package("prometheus")) else { return };
    for (deed, file) in [("check", "rules.yml"), ("test", "rules_test.yml")] {
        let mut promtool = prometheus.command("promtool").expect("it is in the package");
        promtool.args([deed, "rules", file]).current_dir(root().join(FOLDER));
        run(&mut promtool, "").unwrap_or_else(|said| panic!("{said}"));
    }
}

#[test]
fn every_alert_has_a_unit_test_a_severity_and_a_runbook() {
    let Some(alerts) = alerts() else { return };
    assert!(alerts.len() >= 15, "only {} alerts", alerts.len());
    let tests = read("k8s/components/monitoring/rules_test.yml");
    let mut faults = Vec::new();
    for alert in &alerts {
        let name = alert["alert"].as_str().expect("a name");
        let fires = format!("alertname=\"{name}\"");
        // At least once that it fires and once that it does not.
        if tests.matches(&fires).count() + tests.matches(&format!("alertname: {name}")).count() < 2
        {
            faults.push(format!("{name} has no unit test"));
        }
        let page = format!("docs/runbooks/{name}.md");
        if alert["annotations"]["runbook_url"] != page.as_str() || !root().join(&page).exists() {
            faults.push(format!("{name} has no {page}"));
        }
        if !["critical", "warning", "info"].map(Value::from).contains(&alert["labels"]["severity"])
        {
            faults.push(format!("{name} has no severity"));
        }
        for text in ["summary", "description"] {
            if alert["annotations"][text].as_str().is_none_or(str::is_empty) {
                faults.push(format!("{name} has no {text}"));
            }
        }
    }
    none(RULES, &faults);
}

#[test]
fn every_runbook_belongs_to_an_alert_and_says_what_to_do() {
    let Some(alerts) = alerts() else { return };
    let names: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert["alert"].as_str()).collect();
    let mut faults = Vec::new();
    for page in fs::read_dir(root().join("docs/runbooks")).expect("runbooks").flatten() {
        let file = page.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(page.path()).expect("a text");
        let name = file.trim_end_matches(".md");
        if name != "README" && !names.contains(name) {
            faults.push(format!("{file} is of no alert"));
        }
        for part in ["## What it means", "## Look", "## Mend"] {
            if name != "README" && !text.contains(part) {
                faults.push(format!("{file} has no `{part}`"));
            }
        }
    }
    none("docs/runbooks", &faults);
}

/// Whoever greps a log at night for a word that no line has takes it that all is well.
#[test]
fn what_a_runbook_looks_for_in_a_log_is_said_by_a_tier() {
    let lines = log_lines();
    assert!(lines.len() > 100, "only {} calls found", lines.len());
    let (mut faults, mut asked) = (Vec::new(), 0);
    for page in fs::read_dir(root().join("docs/runbooks")).expect("runbooks").flatten() {
        let text = fs::read_to_string(page.path()).expect("a text");
        for line in text.lines().filter(|line| line.contains("kubectl logs")) {
            for word in searched(line) {
                asked += 1;
                if !lines.iter().any(|said| said.contains(&word)) {
                    faults.push(format!("{}: nothing says `{word}`", page.path().display()));
                }
            }
        }
    }
    assert!(asked >= 10, "only {asked} words found");
    none("docs/runbooks", &faults);
    let words = searched("$ kubectl logs x | grep -i -e 'set aside' -e loss");
    assert_eq!(words, ["set aside", "loss"]);
    assert!(!lines.iter().any(|said| said.contains("nothing says this")));
}

/// What a line of a runbook gives to grep, in lower case.
fn searched(line: &str) -> Vec<String> {
    let Some((_, arguments)) = line.split_once("| grep ") else { return Vec::new() };
    // Odd pieces stand between quotes.
    let pieces = arguments.split('\'').enumerate().flat_map(|(number, piece)| {
        let quoted = number % 2 == 1;
        if quoted { vec![piece] } else { piece.split_whitespace().collect() }
    });
    pieces.filter(|word| !word.starts_with('-')).map(str::to_lowercase).collect()
}

/// All calls of the tiers that write a log line, each as its source and the file it is in (which a
/// line of JSON has as its target), in lower case.
fn log_lines() -> Vec<String> {
    let mut lines = Vec::new();
    let parts = ["bins", "crates/link/src", "crates/ops/src"];
    let mut folders: Vec<_> = parts.map(|part| root().join(part)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let file = path.strip_prefix(root()).expect("below it").display();
                for call in text.split("tracing::").skip(1) {
                    let call = call.split(";\n").next().unwrap_or_default();
                    lines.push(format!("{file} {call}").to_lowercase());
                }
            }
        }
    }
    lines
}

#[test]
fn every_metric_of_an_alert_exists() {
    let Some(alerts) = alerts() else { return };
    let mut faults = Vec::new();
    for alert in alerts {
        for name in unknown_metrics(alert["expr"].as_str().expect("an expression")) {
            faults.push(format!("{} asks for {name}", alert["alert"]));
        }
    }
    none("metrics", &faults);
}

/// Words of an expression that look like metrics of ours or of others, and are none.
pub(crate) fn unknown_metrics(expression: &str) -> Vec<String> {
    let known = read("docs/metrics.md");
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words = expression
        .split(word)
        .filter(|word| word.starts_with("forebay_") || word.starts_with("kube") || *word == "up");
    words
        .filter(|word| {
            let name = word.trim_end_matches("_bucket").trim_end_matches("_count");
            !known.contains(&format!("`{name}`")) && !OF_OTHERS.contains(word)
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_metric_that_does_not_exist_is_noticed() {
    let found = unknown_metrics("rate(forebay_front_acks_total[1m]) / forebay_front_nonsense");
    assert_eq!(found, ["forebay_front_nonsense"]);
}

#[test]
fn the_kubernetes_resource_holds_the_same_rules() {
    let rules: Vec<String> = read(RULES)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| if line.is_empty() { String::new() } else { format!("  {line}") })
        .collect();
    let wanted = format!(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: \
         forebay\nspec:\n{}\n",
        rules.join("\n")
    );
    if std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1") {
        fs::write(root().join(RESOURCE), &wanted).expect("writes");
    }
    assert!(
        read(RESOURCE) == wanted,
        "{RESOURCE} is not what {RULES} says: UPDATE_DOCS=1 cargo test -p forebay-testkit --test \
         packaging writes it anew"
    );
}
