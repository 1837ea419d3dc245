//! Runs.
#![allow(dead_code)]
mod flight;
mod pace;
