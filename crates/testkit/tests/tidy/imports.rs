//! Imports point down: which of our packages each may build on. Dev-dependencies are free.

use crate::none;
use crate::workspace::{self, Package};

const ALL: &str = "*";

/// Folder, and what it may import of ours.
const MAY_IMPORT: [(&str, &[&str]); 15] = [
    ("crates/model", &[]),
    ("crates/queue", &[]),
    ("crates/wire", &["forebay-model"]),
    ("crates/link", &["forebay-wire"]),
    ("crates/ops", &[]),
    ("crates/access", &["forebay-model", "forebay-ops"]),
    ("crates/client", &["forebay-model", "forebay-wire", "forebay-queue"]),
    ("crates/fleet", &["forebay-model", "forebay-wire", "forebay-client"]),
    ("crates/testkit", &[ALL]),
    ("bins/front", TIER),
    ("bins/middle", TIER),
    ("bins/storage", TIER),
    ("bins/forebay", &[ALL]),
    ("examples", &[ALL]),
    ("benches", &[ALL]),
];

const TIER: &[&str] = &[
    "forebay-model",
    "forebay-wire",
    "forebay-queue",
    "forebay-link",
    "forebay-ops",
    "forebay-access",
];

/// Names that say nothing, of packages and of files.
const VAGUE: [&str; 9] =
    ["common", "util", "utils", "core", "types", "helper", "helpers", "manager", "misc"];

#[test]
fn packages_import_only_what_lies_below_them() {
    let faults = workspace::packages().iter().flat_map(faults_of).collect();
    none("imports point down", faults);
}

fn faults_of(package: &Package) -> Vec<String> {
    let Some((_, may)) = MAY_IMPORT.iter().find(|(folder, _)| *folder == package.folder) else {
        return vec![format!("{} has no place in the table of imports", package.folder)];
    };
    let mut faults = Vec::new();
    for import in dependencies(&package.manifest) {
        let allowed = may.contains(&import.as_str()) || may.contains(&ALL);
        if import.starts_with("forebay") && !allowed {
            faults.push(format!("{} imports {import}", package.folder));
        }
        if import == "forebay-testkit" {
            faults.push(format!("{} imports the testkit outside of tests", package.folder));
        }
    }
    faults
}

#[test]
fn an_import_that_points_up_is_found_in_every_table_and_under_every_name() {
    let package = |folder: &str, manifest: &str| Package {
        folder: folder.to_owned(),
        name: String::new(),
        manifest: manifest.parse().expect("a manifest is TOML"),
    };
    for manifest in [
        "[dependencies]\nforebay-link = { path = \"x\" }",
        "[dependencies]\nlink = { package = \"forebay-link\", path = \"x\" }",
        "[build-dependencies]\nforebay-link.workspace = true",
        "[target.'cfg(unix)'.dependencies]\nforebay-link.workspace = true",
    ] {
        assert_eq!(
            faults_of(&package("crates/queue", manifest)),
            ["crates/queue imports forebay-link"]
        );
    }
    let testing = "[dev-dependencies]\nforebay-link.workspace = true";
    assert!(faults_of(&package("crates/queue", testing)).is_empty());
    let tier = "[dependencies]\nforebay-front.workspace = true";
    assert_eq!(faults_of(&package("bins/middle", tier)).len(), 1);
    assert_eq!(faults_of(&package("crates/else", "")).len(), 1);
}

#[test]
fn every_place_in_the_table_is_a_package() {
    let packages = workspace::packages();
    let missing = MAY_IMPORT
        .iter()
        .filter(|(folder, _)| !packages.iter().any(|package| package.folder == *folder))
        .map(|(folder, _)| (*folder).to_owned());
    none("packages of the table that do not exist", missing.collect());
}

#[test]
fn packages_are_named_by_what_they_are_and_keep_the_workspace_lints() {
    let mut faults = Vec::new();
    for package in workspace::packages() {
        if package.name.split('-').any(|word| VAGUE.contains(&word)) {
            faults.push(format!("{} says nothing", package.name));
        }
        let lints = package.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            faults.push(format!("{} does not take the workspace's lints", package.folder));
        }
        let licence = package.manifest["package"].get("license");
        let ours = licence.and_then(|licence| licence.get("workspace")).is_some();
        if !ours && licence.and_then(toml::Value::as_str) != Some("Apache-2.0") {
            faults.push(format!("{} has another licence than the workspace", package.folder));
        }
    }
    for (path, _) in workspace::sources() {
        let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        // The front's per-core loop is about a processor's core, which is a thing.
        let is_thing = path == "bins/front/src/core.rs";
        if VAGUE.contains(&stem) && !is_thing {
            faults.push(format!("{path} says nothing"));
        }
    }
    none("names", faults);
}

/// Features of ours that only tests turn on: planted faults, and doors for looking inside.
const FOR_TESTS: [&str; 3] = ["echo", "planted-faults", "testing"];

#[test]
fn what_is_there_for_tests_is_in_no_normal_build() {
    let faults = workspace::packages().iter().flat_map(test_features_of).collect();
    none("features for tests", faults);
}

/// Where a package turns such a feature on for whoever builds it.
fn test_features_of(package: &Package) -> Vec<String> {
    let names = |list: Option<&toml::Value>| -> Vec<String> {
        let list = list.and_then(toml::Value::as_array).into_iter().flatten();
        list.filter_map(toml::Value::as_str).map(str::to_owned).collect()
    };
    let for_tests =
        |name: &String| FOR_TESTS.contains(&name.rsplit('/').next().unwrap_or_default());
    let mut faults = Vec::new();
    let dependencies = package.manifest.get("dependencies").and_then(toml::Value::as_table);
    for (import, with) in dependencies.into_iter().flatten() {
        let on = names(with.get("features")).into_iter().filter(for_tests);
        faults.extend(on.map(|feature| format!("{} has {import} with {feature}", package.folder)));
    }
    let default = package.manifest.get("features").and_then(|features| features.get("default"));
    let on = names(default).into_iter().filter(for_tests);
    faults.extend(on.map(|feature| format!("{} has {feature} by default", package.folder)));
    faults
}

#[test]
fn a_feature_for_tests_is_found_where_it_is_on() {
    let found = |manifest: &str| {
        let manifest = manifest.parse().expect("a manifest is TOML");
        test_features_of(&Package { folder: String::new(), name: String::new(), manifest }).len()
    };
    assert_eq!(
        found("[dependencies]\nx = { workspace = true, features = [\"planted-faults\"] }"),
        1
    );
    assert_eq!(found("[features]\ndefault = [\"testing\"]\ntesting = []"), 1);
    assert_eq!(found("[features]\ntesting = [\"forebay-queue/testing\"]"), 0);
    assert_eq!(found("[dev-dependencies]\nx = { version = \"1\", features = [\"testing\"] }"), 0);
}

/// What a package is built with: its dependencies, those of its build, and those of one platform.
pub(crate) fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let names = |table: Option<&toml::Value>| -> Vec<String> {
        let table = table.and_then(toml::Value::as_table);
        let name = |(key, value): (&String, &toml::Value)| {
            value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned()
        };
        table.into_iter().flatten().map(name).collect()
    };
    let mut found = names(manifest.get("dependencies"));
    found.extend(names(manifest.get("build-dependencies")));
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    for (_, target) in targets.into_iter().flatten() {
        found.extend(names(target.get("dependencies")));
    }
    found
}
