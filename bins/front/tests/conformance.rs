//! The front speaks RFC 6455 as the Autobahn test suite understands it.
//!
//! `cargo test -p forebay-front --features echo --test conformance -- --ignored --nocapture`
//!
//! Method: a real front whose raw connections get back what they send, and the suite's fuzzing
//! client (PyPI `autobahntestsuite`, which needs Python 2.7). The suite exits 0 whatever it finds:
//! its report is what counts. Not run: groups 12 and 13, compression, which is not offered.

use std::collections::BTreeMap;

use forebay_front::Config;
use forebay_ops::{ByteSize, Shutdown};
use forebay_testkit::{or_skip, python::venv_of_python_2};
use prometheus::Registry;
use serde_json::{Value, json};

const SUITE: &str = "autobahntestsuite==25.10.1";
const AGENT: &str = "forebay";
/// Cases outside of the groups that are not run.
const CASES_MIN: usize = 290;

#[test]
#[ignore = "on demand: takes a minute, and needs Python 2.7"]
fn the_autobahn_suite_finds_no_fault() {
    let Some(suite) = or_skip(venv_of_python_2(&[SUITE])) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::default();
    config.listen.address = "127.0.0.1:0".parse().expect("an address");
    config.admin.address = "127.0.0.1:0".parse().expect("an address");
    config.queue.dir = folder.path().join("front");
    config.queue.capacity = ByteSize::mib(4);
    config.queue.any_filesystem = true;
    let front = forebay_front::start(config, &Registry::new(), &Shutdown::new()).expect("a front");
    let spec = json!({
        "outdir": folder.path().join("report"),
        "servers": [{
            "agent": AGENT,
            "url": format!("ws://{}/v1/ingest/autobahn", front.addresses().ingest),
        }],
        "cases": ["*"],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let path = folder.path().join("spec.json");
    std::fs::write(&path, spec.to_string()).expect("a file");
    let mut command = suite.program("wstest");
    command.args(["-m", "fuzzingclient", "-s"]).arg(&path).current_dir(folder.path());
    let ran = command.output().expect("the suite runs");
    front.stop();
    let report = std::fs::read_to_string(folder.path().join("report/index.json"));
    let report = report.unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let cases = report[AGENT].as_object().expect("our cases");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    for (case, result) in cases {
        let behaviour = result["behavior"].as_str().expect("a word");
        let close = result["behaviorClose"].as_str().expect("a word");
        *counts.entry(behaviour).or_default() += 1;
        let good = |word| matches!(word, "OK" | "NON-STRICT" | "INFORMATIONAL");
        if !good(behaviour) || !good(close) {
            faults.push(format!("{case}: {behaviour}, close {close}"));
        }
        if behaviour == "NON-STRICT" {
            eprintln!("{case}: not strict");
        }
    }
    eprintln!("{} cases: {counts:?}", cases.len());
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(cases.len() >= CASES_MIN, "only {} cases were run", cases.len());
}
