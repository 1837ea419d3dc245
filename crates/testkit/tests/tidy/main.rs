//! The rules of this workspace that no compiler checks: who imports whom, through which door each
//! external crate comes in, how files look, and that documents, metrics and settings agree.
//!
//! Every rule reads the files of the workspace and reports all that breaks it at once. After a
//! metric or a setting has changed, `UPDATE_DOCS=1 cargo test -p forebay-testkit --test tidy`
//! writes its page anew.

#![forbid(unsafe_code)]

mod doors;
mod files;
mod generated;
mod imports;
mod links;
mod metrics;
mod sends;
mod settings;
mod source;
mod workspace;

/// Fails with all faults, if there are any.
#[track_caller]
fn none(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}
