//! What to do with a write that failed: try it again, only where it is certain that nothing was committed.

/// How far the write had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but statements of an open transaction was sent.
    Open,
    /// COMMIT was sent, its answer did not come.
    Committing,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection broke or could not be made.
    Connection,
    /// The instance does not accept writes: it is a replica now, or it is stopping or starting.
    NotPrimary,
    /// The database ended the transaction in favour of another one.
    Contention,
    /// No connection became free in time.
    Busy,
    /// Anything else; trying again would not help.
    Final,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Again, when a primary is known.
    Retry,
    /// Whether it was committed is unknown, and it must not happen twice.
    Unknown,
    /// Give up.
    Fail,
}

/// Decides. `repeatable`: doing it twice has the effect of doing it once, because of an idempotency key.
pub const fn after(phase: Phase, fault: Fault, repeatable: bool) -> Next {
    match (phase, fault) {
        (_, Fault::Busy | Fault::Final) => Next::Fail,
        (Phase::Open, Fault::Connection | Fault::NotPrimary | Fault::Contention)
        | (Phase::Committing, Fault::Contention) => Next::Retry,
        (Phase::Committing, Fault::Connection | Fault::NotPrimary) => {
            if repeatable {
                Next::Retry
            } else {
                Next::Unknown
            }
        }
    }
}

/// Classifies an error of the driver.
pub fn classify(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Fault::Connection,
        sqlx::Error::PoolTimedOut => Fault::Busy,
        sqlx::Error::Database(error) => error.code().map_or(Fault::Final, |code| classify_state(&code)),
        _ => Fault::Final,
    }
}

/// Classifies an SQLSTATE.
fn classify_state(code: &str) -> Fault {
    match code {
        // read_only_sql_transaction, admin_shutdown, crash_shutdown, cannot_connect_now, recovery conflicts
        "25006" | "57P01" | "57P02" | "57P03" | "72000" => Fault::NotPrimary,
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Fault::Contention,
        // too_many_connections
        "53300" => Fault::Busy,
        code if code.starts_with("08") => Fault::Connection,
        _ => Fault::Final,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Phase::Open, Fault::Connection, false, Next::Retry)]
    #[case(Phase::Open, Fault::NotPrimary, false, Next::Retry)]
    #[case(Phase::Open, Fault::Contention, false, Next::Retry)]
    #[case(Phase::Open, Fault::Busy, true, Next::Fail)]
    #[case(Phase::Open, Fault::Final, true, Next::Fail)]
    #[case(Phase::Committing, Fault::Connection, false, Next::Unknown)]
    #[case(Phase::Committing, Fault::Connection, true, Next::Retry)]
    #[case(Phase::Committing, Fault::NotPrimary, false, Next::Unknown)]
    #[case(Phase::Committing, Fault::Final, true, Next::Fail)]
    fn a_write_is_repeated_only_where_it_cannot_happen_twice(
        #[case] phase: Phase,
        #[case] fault: Fault,
        #[case] repeatable: bool,
        #[case] next: Next,
    ) {
        assert_eq!(after(phase, fault, repeatable), next);
    }

    #[rstest]
    #[case("25006", Fault::NotPrimary)]
    #[case("57P01", Fault::NotPrimary)]
    #[case("40P01", Fault::Contention)]
    #[case("08006", Fault::Connection)]
    #[case("23505", Fault::Final)]
    fn states_are_classified(#[case] code: &str, #[case] fault: Fault) {
        assert_eq!(classify_state(code), fault);
    }

    #[test]
    fn a_broken_connection_is_told_from_a_busy_pool() {
        let broken = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(classify(&broken), Fault::Connection);
        assert_eq!(classify(&sqlx::Error::PoolTimedOut), Fault::Busy);
    }
}
