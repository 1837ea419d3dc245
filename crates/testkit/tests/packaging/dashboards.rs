//! The dashboards: every query is PromQL over metrics that exist, every panel has a name and a place.

use std::fs;

use forebay_testkit::{debian, or_skip};
use serde_json::Value;

use crate::rules::{FOLDER, unknown_metrics};
use crate::{none, root, run};

/// All dashboards: file name and content.
pub(crate) fn dashboards() -> Vec<(String, Value)> {
    let folder = root().join(FOLDER).join("dashboards");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("dashboards")
        .flatten()
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(file.path()).expect("a text");
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// Every query: where it stands, and its expression with the variables filled in.
pub(crate) fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{file}, {}", panel["title"]);
                let expression = target["expr"].as_str().expect("an expression");
                found.push((place, fill(expression, &dashboard["templating"]["list"])));
            }
        }
    }
    found
}

/// Every variable as Grafana fills it in while nothing is chosen.
fn fill(expression: &str, variables: &Value) -> String {
    let mut filled = expression.replace("$__rate_interval", "1m").replace("$__range", "1h");
    for variable in variables.as_array().into_iter().flatten() {
        let name = variable["name"].as_str().expect("a name");
        filled = filled.replace(&format!("${name}"), variable["allValue"].as_str().unwrap_or(".*"));
    }
    filled
}

#[test]
fn there_are_five_dashboards_with_all_their_panels_in_place() {
    let all = dashboards();
    let mut faults = Vec::new();
    assert_eq!(all.len(), 5);
    for (file, dashboard) in &all {
        if file.trim_end_matches(".json") != dashboard["uid"].as_str().unwrap_or_default() {
            faults.push(format!("{file} has another uid"));
        }
        let panels = dashboard["panels"].as_array().expect("panels");
        let place = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap_or(u64::MAX);
        for (at, panel) in panels.iter().enumerate() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place(panel, key));
            if panel["title"].as_str().is_none_or(str::is_empty) || x.saturating_add(w) > 24 {
                faults.push(format!("{file}: panel {} has no title or place", panel["id"]));
            }
            for other in &panels[..at] {
                let [ox, oy, ow, oh] = ["x", "y", "w", "h"].map(|key| place(other, key));
                if x < ox + ow && ox < x + w && y < oy + oh && oy < y + h {
                    faults.push(format!("{file}: {} lies on {}", panel["title"], other["title"]));
                }
                if panel["id"] == other["id"] {
                    faults.push(format!("{file}: id {} is there twice", panel["id"]));
                }
            }
        }
    }
    none("dashboards", &faults);
}

#[test]
fn every_query_is_promql_over_metrics_that_exist() {
    let Some(prometheus) = or_skip(debian::package("prometheus")) else { return };
    let queries = queries();
    assert!(queries.len() >= 50, "only {} queries", queries.len());
    let mut faults = Vec::new();
    let mut rules = "groups:\n  - name: queries\n    rules:\n".to_owned();
    for (number, (place, expression)) in queries.iter().enumerate() {
        for name in unknown_metrics(expression) {
            faults.push(format!("{place} asks for {name}"));
        }
        // A rule for each, as promtool checks rules only.
        let expression = Value::from(expression.as_str());
        rules.push_str(&format!("      - record: query:{number}\n        expr: {expression}\n"));
    }
    none("metrics", &faults);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queries.yml");
    fs::write(&file, rules).expect("writes");
    let mut promtool = prometheus.command("promtool").expect("it is in the package");
    run(promtool.args(["check", "rules"]).arg(file), "").unwrap_or_else(|said| panic!("{said}"));
}
