//! What an error of PostgreSQL means to the sink: wait, set rows aside, or call a human.

use tokio_postgres::{Error, error::SqlState};

use super::dial::tls_refusal;
use crate::sink::Outcome;

/// A block that was not stored, and why.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The connection broke; a new one may do.
    Connection,
    Transient,
    Poison,
    Misconfigured,
}

impl Failure {
    pub(super) fn transient(reason: String) -> Self {
        Self { kind: Kind::Transient, reason: format!("PostgreSQL: {reason}") }
    }

    pub(super) fn misconfigured(reason: String) -> Self {
        Self { kind: Kind::Misconfigured, reason: format!("PostgreSQL: {reason}") }
    }

    /// Whether the connection is what failed, rather than the work.
    pub(super) fn is_connection(&self) -> bool {
        self.kind == Kind::Connection
    }

    pub(super) fn into_outcome(self) -> Outcome {
        match self.kind {
            Kind::Connection | Kind::Transient => Outcome::Transient(self.reason),
            Kind::Poison => Outcome::Poison(self.reason),
            Kind::Misconfigured => Outcome::Misconfigured(self.reason),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(reason) = tls_refusal(&error) {
            return Self::misconfigured(reason);
        }
        let Some(said) = error.as_db_error() else {
            // Errors of ours hold no value of a row; their causes say what the system said.
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let reason = format!("PostgreSQL: {error}{}", cause.unwrap_or_default());
            return Self { kind: Kind::Connection, reason };
        };
        let (code, message) = (said.code(), said.message());
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let reason = format!("PostgreSQL: {message}{detail} [{}]", code.code());
        Self { kind: kind(code), reason }
    }
}

fn kind(code: &SqlState) -> Kind {
    let (class, code) = (&code.code()[..2], code.code());
    match (class, code) {
        // Shutting down, starting up, the connection itself.
        ("08", _) | (_, "57P01" | "57P02" | "57P03" | "57P05" | "25P03") => Kind::Connection,
        // The disk is full: it will not mend itself.
        (_, "53100") => Kind::Misconfigured,
        // The form of our block does not fit the table: a column was changed.
        (_, "22P04" | "22P03") => Kind::Misconfigured,
        // Values or rows that the server or a constraint somebody added does not take.
        ("22" | "23", _) => Kind::Poison,
        // Password, database, schema, table, column, privilege, damage on disk.
        ("28" | "3D" | "3F" | "42" | "0A" | "XX", _) => Kind::Misconfigured,
        // Locks, deadlocks, too many connections, a standby that is read-only, a limit of time.
        _ => Kind::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_human_can_mend_is_told_from_what_waiting_mends() {
        let kind = |code| kind(&SqlState::from_code(code));
        for code in ["28P01", "28000", "3D000", "42P01", "42501", "53100", "22P04"] {
            assert_eq!(kind(code), Kind::Misconfigured, "{code}");
        }
        for code in ["40P01", "55P03", "53300", "57014", "25006"] {
            assert_eq!(kind(code), Kind::Transient, "{code}");
        }
        for code in ["08006", "57P01", "57P03"] {
            assert_eq!(kind(code), Kind::Connection, "{code}");
        }
        for code in ["22021", "22003", "23514", "23502"] {
            assert_eq!(kind(code), Kind::Poison, "{code}");
        }
    }
}
