//! The files and packages of the workspace, as they lie on disk.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", "node_modules", "artifacts", "corpus"];

/// A package of the workspace.
pub(crate) struct Package {
    /// Its folder, relative to the workspace, such as `crates/queue`.
    pub folder: String,
    /// Its name, such as `forebay-queue`.
    pub name: String,
    /// Its manifest.
    pub manifest: toml::Table,
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this package lies two folders deep").to_owned()
}

/// All files below `folder` whose names end in one of `ends`: path from the root, and text.
pub(crate) fn texts(folder: &str, ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ends.iter().any(|end| name.ends_with(end)) {
            // A file that vanishes while we look, or that is not text, is nobody's fault.
            if let Ok(text) = fs::read_to_string(path) {
                found.push((relative(path), text));
            }
        }
    });
    found.sort();
    found
}

/// All Rust files of the workspace.
pub(crate) fn sources() -> Vec<(String, String)> {
    ["crates", "bins", "examples", "benches"]
        .into_iter()
        .flat_map(|folder| texts(folder, &[".rs"]))
        .collect()
}

/// All packages of the workspace.
pub(crate) fn packages() -> Vec<Package> {
    let manifests = ["crates", "bins", "examples", "benches"]
        .into_iter()
        .flat_map(|folder| texts(folder, &["Cargo.toml"]))
        .filter(|(path, _)| !path.contains("/fuzz/"));
    manifests
        .map(|(path, text)| {
            let manifest: toml::Table =
                text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
            let name = manifest["package"]["name"].as_str().expect("a name is a string").to_owned();
            let folder = path.trim_end_matches("/Cargo.toml").to_owned();
            Package { folder, name, manifest }
        })
        .collect()
}

/// The path from the workspace's folder.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn walk(folder: &Path, seen: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && (name.starts_with('.') || FOREIGN.contains(&&*name)) => {}
            Ok(kind) if kind.is_dir() => walk(&path, seen),
            Ok(kind) if kind.is_file() => seen(&path),
            _ => {}
        }
    }
}
