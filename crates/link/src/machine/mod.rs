//! The rules, as state machines without I/O, clock or randomness: time and a seed are inputs.
