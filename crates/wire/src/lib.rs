//! The bytes that cross a socket.
#![forbid(unsafe_code)]
