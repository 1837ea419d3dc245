//! The `forebay-storage` binary: a thin main around the library.
fn main() {}
