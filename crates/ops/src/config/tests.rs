//! The whole of loading: defaults, file, environment, and every kind of fault at once.
