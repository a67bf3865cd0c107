//! How a process sends its clients away: one after the other, no faster than the others can take them. Pure.

use std::time::Duration;

/// Clients that the other processes take up in a second without their own suffering: connecting costs each of them a query or two.
const TAKEN_UP: u32 = 500;
/// What is left of a drain for closing and for what still runs.
const REST: Duration = Duration::from_secs(1);
/// A client that was closed comes back after at most this time, which spreads clients of processes that end at the same moment.
const HINT: Duration = Duration::from_secs(1);

/// When one client is closed, and when it is to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// From the moment at which connections begin to be closed.
    pub close_after: Duration,
    /// From its close.
    pub reconnect_after: Duration,
}

/// The turn of a client that drew two numbers between 0 and 1, among so many clients, in a drain that has so much time left.
pub fn turn(clients: u32, left: Duration, drawn: (f64, f64)) -> Turn {
    let wanted = Duration::from_secs(1) * clients / TAKEN_UP;
    let window = left.saturating_sub(REST) / 2;
    let closed_within = wanted.min(window);
    // What does not fit into the drain is left to the clients' patience.
    let spread = wanted.saturating_sub(closed_within) + HINT;
    Turn {
        close_after: closed_within.mul_f64(drawn.0.clamp(0.0, 1.0)),
        reconnect_after: spread.mul_f64(drawn.1.clamp(0.0, 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// F10: the latest possible turn, in milliseconds.
    #[rstest]
    #[case(1, 25_000, (2, 1_000))]
    #[case(5_000, 25_000, (10_000, 1_000))]
    // 50,000 clients need 100 s; 12 s of them are waited here and the rest by the clients.
    #[case(50_000, 25_000, (12_000, 89_000))]
    #[case(50_000, 500, (0, 101_000))]
    fn clients_are_spread_over_what_the_others_can_take(
        #[case] clients: u32,
        #[case] left: u64,
        #[case] latest: (u128, u128),
    ) {
        let turn = turn(clients, Duration::from_millis(left), (1.0, 1.0));
        assert_eq!(
            (turn.close_after.as_millis(), turn.reconnect_after.as_millis()),
            latest
        );
    }
}
