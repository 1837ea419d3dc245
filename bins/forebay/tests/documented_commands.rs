//! Every command in the README and the documents does what it says, as it is typed.
//!
//! Each ```sh block runs as one bash script in a folder of its own, with the first failure as its
//! end. `forebay`, and `cargo run --release --`, are this build's binary. Other cargo commands are
//! not run inside a test run; what they name must exist: the test or bench target, the package,
//! the feature.
//!
//! ```console blocks show what needs a cluster, an engine or a device, and so do lines at a prompt
//! in ```text blocks. Of these, and of commands within a sentence, every `forebay` command must be
//! one that this build understands, and every folder and file that is named must be there. No page
//! may have commands in a block of another name, which this test would pass over.
//!
//! Cannot show: that the output reads well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every README and every page of docs/.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md"), root().join("crates/queue/README.md")];
    let mut folders = vec![root().join("docs"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(folder).expect("docs").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|kind| kind == "md") {
                found.push(entry);
            }
        }
    }
    found
}

fn shell_blocks(text: &str) -> Vec<String> {
    blocks(text, "```sh")
}

/// The blocks that begin with this fence.
fn blocks(text: &str, fence: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == fence {
            let block: Vec<_> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// A `cargo` for the scripts: runs what is ours, and checks that the rest exists.
const CARGO: &str = r#"#!/bin/bash
if [ "$1 $2 $3" = "run --release --" ]; then shift 3; exec forebay "$@"; fi
case "$1" in +*) shift ;; esac
case "$1" in
build | test | bench | run | fuzz) ;;
*) echo "the documents name 'cargo $1', which this test does not know" >&2; exit 1 ;;
esac
package=""
while [ $# -gt 0 ]; do
  case "$1" in
  -p | --package)
    shift; package="$1"
    grep -rqsx "name = \"$package\"" "$ROOT"/crates/*/Cargo.toml "$ROOT"/bins/*/Cargo.toml \
      "$ROOT"/benches/Cargo.toml "$ROOT"/examples/Cargo.toml || { echo "no package $package" >&2; exit 1; } ;;
  --bench)
    shift; grep -qx "name = \"$1\"" "$ROOT/benches/Cargo.toml" || { echo "no bench $1" >&2; exit 1; } ;;
  --example)
    shift; grep -qx "name = \"$1\"" "$ROOT/examples/Cargo.toml" || { echo "no example $1" >&2; exit 1; } ;;
  --test)
    # Cargo takes a pattern too.
    shift; compgen -G "$ROOT/*/*/tests/$1.rs" || compgen -G "$ROOT/*/*/tests/$1/main.rs" \
      || compgen -G "$ROOT/*/tests/$1.rs" || { echo "no test $1" >&2; exit 1; } ;;
  --fuzz-dir)
    shift; [ -f "$ROOT/$1/Cargo.toml" ] || { echo "no fuzz folder $1" >&2; exit 1; } ;;
  --) break ;;
  esac
  shift
done
"#;

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

fn run(document: &Path, block: &str) {
    let home = tempfile::tempdir().expect("a folder");
    let tools = home.path().join("tools");
    fs::create_dir(&tools).expect("makes");
    executable(&tools.join("cargo"), CARGO);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_forebay"), tools.join("forebay"))
        .expect("links");
    let work = home.path().join("work");
    fs::create_dir(&work).expect("makes");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").expect("a path"));
    // Job control, so that `kill %1` works as in a terminal; what runs on is waited for, or, if a
    // command fails, ended.
    let script = format!("set -em\ntrap 'kill -9 $(jobs -p) 2>/dev/null' ERR\n{block}\nwait\n");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "bash", "-c", &script]).current_dir(&work);
    command.env("PATH", path).env("ROOT", root());
    // Small rings, so that the tiers are up at once on a busy disk.
    command
        .env("FOREBAY__FRONT__QUEUE__CAPACITY", "4MiB")
        .env("FOREBAY__MIDDLE__QUEUE__CAPACITY", "8MiB");
    let output = command.output().expect("bash");
    assert!(
        output.status.success() || output.status.code() == Some(143),
        "{}: this does not work ({}):\n{block}\n--- stdout\n{}\n--- stderr\n{}",
        document.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_documented_command_works() {
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        for block in shell_blocks(&text) {
            run(&document, &block);
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} blocks: does this test still find them?");
}

/// What is wrong with a line that a block shows after its prompt, if anything.
fn fault(line: &str) -> Option<String> {
    for command in line.split(['|', ';']).flat_map(|piece| piece.split("&&")) {
        let words = command.split_whitespace();
        // Where its output goes is the shell's.
        let words: Vec<&str> = words.take_while(|word| !word.starts_with('>')).collect();
        for (at, pair) in words.windows(2).enumerate() {
            let named = match pair[0] {
                "-k" => Some(format!("{}/kustomization.yml", pair[1])),
                "-f" if pair[1].starts_with("bins/") => Some(pair[1].to_owned()),
                _ => None,
            };
            if let Some(path) = named.filter(|path| at > 0 && !root().join(path).exists()) {
                return Some(format!("there is no {path}"));
            }
        }
        // The binary by its name, or by its path within a container.
        let ours = words.iter().position(|word| *word == "/forebay");
        let ours = ours.or_else(|| (words.first() == Some(&"forebay")).then_some(0));
        let Some(ours) = ours else { continue };
        // Help is given only if everything before it is understood.
        let mut forebay = Command::new(env!("CARGO_BIN_EXE_forebay"));
        let output = forebay.args(&words[ours + 1..]).arg("--help").output().expect("it runs");
        if !output.status.success() {
            return Some(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    None
}

#[test]
fn what_is_shown_at_a_prompt_can_be_typed() {
    let mut faults = Vec::new();
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        let shown = blocks(&text, "```console").into_iter().chain(blocks(&text, "```text"));
        for block in shown {
            for line in block.lines().filter_map(|line| line.trim().strip_prefix("$ ")) {
                count += 1;
                if let Some(fault) = fault(line) {
                    faults.push(format!("{}: {line}: {fault}", document.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 20, "only {count} lines: does this test still find them?");
    let planted = "kubectl exec x -- /forebay queue nonsense";
    assert!(fault(planted).is_some() && fault("kubectl apply -k k8s/nonsense").is_some());
}

/// Commands within sentences: `forebay WORD..` between backticks.
fn inline(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.filter(|code| code.starts_with("forebay ")).map(str::to_owned));
        }
    }
    found
}

/// Without what stands for something else: `[NAME..]`, `a | b`, an ellipsis.
fn is_literal(command: &str) -> bool {
    // `help` takes no `--help`.
    command != "forebay help" && !command.contains(['[', '|', '<', '…']) && !command.contains("...")
}

#[test]
fn every_command_within_a_sentence_is_understood() {
    let mut faults = Vec::new();
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        for command in inline(&text).iter().filter(|command| is_literal(command)) {
            count += 1;
            if let Some(fault) = fault(command) {
                faults.push(format!("{}: {command}: {fault}", document.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 20, "only {count} commands: does this test still find them?");
    assert_eq!(inline("see `forebay nonsense` and\n```sh\n`forebay x`\n```"), ["forebay nonsense"]);
    assert!(fault("forebay nonsense").is_some());
}

#[test]
fn no_block_of_commands_is_passed_over() {
    let mut faults = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        let mut open = false;
        for (number, line) in text.lines().enumerate() {
            let Some(name) = line.trim().strip_prefix("```") else { continue };
            open = !open;
            let commands = ["bash", "shell", "zsh", "shell-session", "sh-session", "terminal"];
            let with_attributes = name.starts_with("sh ") || name.starts_with("console ");
            if open && (commands.contains(&name) || with_attributes) {
                faults.push(format!("{}:{}: {line}", document.display(), number + 1));
            }
        }
        assert!(!open, "{}: a block has no end", document.display());
    }
    assert!(faults.is_empty(), "blocks that no test runs:\n{}", faults.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_noticed() {
    for block in
        ["forebay nonsense", "cargo bench -p forebay-benches --bench nonsense", "cargo fly"]
    {
        let outcome = std::panic::catch_unwind(|| run(Path::new("planted"), block));
        assert!(outcome.is_err(), "{block} passed");
    }
}
