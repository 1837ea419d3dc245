//! The `forebay-middle` binary: a thin main around the library.
fn main() {}
