//! The `forebay-front` binary: a thin main around the library.
fn main() {}
