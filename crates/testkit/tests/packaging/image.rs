//! The Dockerfile: what a linter sees, and that it builds from what it is given.

use crate::{none, read, root, run, tools};

const DOCKERFILE: &str = "bins/Dockerfile";

#[test]
fn the_dockerfile_has_no_fault_for_hadolint() {
    let Some(tools) = tools() else { return };
    let mut hadolint = tools.program("hadolint");
    hadolint.args(["--failure-threshold", "style"]).arg(root().join(DOCKERFILE));
    run(&mut hadolint, "").unwrap_or_else(|said| panic!("{said}"));
    // That it would see one.
    let planted = "FROM debian\nRUN cd /tmp && apt-get install curl\n";
    let found = run(tools.program("hadolint").arg("-"), planted).expect_err("faults");
    assert!(found.contains("DL3006") && found.contains("DL3008"), "{found}");
}

#[test]
fn the_dockerfile_needs_no_buildkit_and_runs_from_scratch_as_nobody() {
    let text = read(DOCKERFILE);
    let mut faults = Vec::new();
    for feature in ["--mount", "--chmod", "--link", "<<", "# syntax", "--parents", "--exclude"] {
        if text.contains(feature) {
            faults.push(format!("{feature} is of BuildKit"));
        }
    }
    for line in ["FROM scratch", "USER 65532:65532", "ENTRYPOINT [\"/forebay\"]", "VOLUME /data"] {
        if !text.lines().any(|found| found == line) {
            faults.push(format!("there is no {line}"));
        }
    }
    if !text.contains("CMD [\"/forebay\", \"health\"]") {
        faults.push("no health check by `forebay health`".to_owned());
    }
    none(DOCKERFILE, &faults);
}

#[test]
fn the_build_gets_every_part_of_the_workspace() {
    let ignored = read(".dockerignore");
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let members = manifest["workspace"]["members"].as_array().expect("a list");
    let mut faults = Vec::new();
    for member in members.iter().filter_map(|member| member.as_str()) {
        let folder = member.trim_end_matches("/*");
        if !ignored.lines().any(|line| line == format!("!{folder}")) {
            faults.push(format!("{folder} is not in the context"));
        }
    }
    none(".dockerignore", &faults);
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_workspace() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let version = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert!(read(DOCKERFILE).contains(&format!("FROM rust:{version}-")), "not Rust {version}");
}
