//! A crash-safe memory-mapped ring queue.
