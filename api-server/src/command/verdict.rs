//! Judgements about figures. Pure.

use std::fmt;

use crate::store::inspect::{BufferUse, IndexUse, Sessions};

/// Rows from which on an index that nobody uses, or that is missing, matters.
const MANY_ROWS: i64 = 1_000;

/// What the figures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Somebody should look.
    Watch,
    /// Something has to be done.
    Bad,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Watch => "watch",
            Self::Bad => "bad",
        })
    }
}

/// A share in percent; nothing of nothing is 0.
#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage is shown with one decimal"
)]
pub fn percent(part: i64, whole: i64) -> f64 {
    if whole <= 0 {
        0.0
    } else {
        part as f64 / whole as f64 * 100.0
    }
}

/// Use of connections: of the API's own, and of what the server allows. 80 % is where others begin to be refused.
pub fn sessions(sessions: &Sessions) -> (Verdict, &'static str) {
    let (busy, full) = (
        percent(sessions.api_busy + sessions.api_waiting, sessions.api),
        percent(sessions.all, sessions.max),
    );
    if full >= 90.0 {
        (
            Verdict::Bad,
            "the server is about to refuse connections: lower poolSize or raise max_connections",
        )
    } else if sessions.api_waiting > 0 && busy >= 80.0 {
        (
            Verdict::Bad,
            "connections are held by transactions that do nothing: look for a client that hangs",
        )
    } else if full >= 80.0 {
        (Verdict::Watch, "four fifths of max_connections are in use")
    } else if busy >= 80.0 {
        (
            Verdict::Watch,
            "four fifths of the API's connections are busy: look at `db slow`, or raise poolSize",
        )
    } else {
        (Verdict::Good, "there is room")
    }
}

/// Share of blocks that were in memory.
pub fn buffers(blocks: &BufferUse) -> (Verdict, f64, &'static str) {
    let rate = percent(blocks.hits, blocks.hits + blocks.reads);
    if blocks.hits + blocks.reads < 10_000 {
        (Verdict::Good, rate, "too little was read to tell")
    } else if rate >= 99.0 {
        (Verdict::Good, rate, "what is used is in memory")
    } else if rate >= 95.0 {
        (
            Verdict::Watch,
            rate,
            "what is used hardly fits into shared_buffers",
        )
    } else {
        (
            Verdict::Bad,
            rate,
            "what is used does not fit into memory: raise shared_buffers and memory, or look at `db indexes`",
        )
    }
}

/// What is wrong with an index, if anything.
pub fn index(index: &IndexUse) -> Option<(Verdict, &'static str)> {
    if !index.is_valid {
        Some((
            Verdict::Bad,
            "invalid: the next migration drops it and makes it anew",
        ))
    } else if index.scans == 0 && !index.is_unique && index.rows >= MANY_ROWS {
        Some((
            Verdict::Watch,
            "never used on this instance; reads may use it on the others",
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Sessions = Sessions {
        api: 10,
        api_busy: 2,
        api_waiting: 0,
        all: 20,
        max: 100,
    };

    #[test]
    fn connections_are_judged_by_what_is_short() {
        assert_eq!(sessions(&CALM).0, Verdict::Good);
        assert_eq!(sessions(&Sessions { api_busy: 9, ..CALM }).0, Verdict::Watch);
        assert_eq!(
            sessions(&Sessions {
                api_waiting: 8,
                ..CALM
            })
            .0,
            Verdict::Bad
        );
        assert_eq!(sessions(&Sessions { all: 85, ..CALM }).0, Verdict::Watch);
        assert_eq!(sessions(&Sessions { all: 95, ..CALM }).0, Verdict::Bad);
        assert_eq!(sessions(&Sessions { api: 0, ..CALM }).0, Verdict::Good);
    }

    #[test]
    fn memory_is_judged_by_hits() {
        let of = |hits, reads| buffers(&BufferUse { hits, reads }).0;
        assert_eq!(of(10, 90), Verdict::Good, "nothing to judge");
        assert_eq!(of(999_000, 1_000), Verdict::Good);
        assert_eq!(of(970_000, 30_000), Verdict::Watch);
        assert_eq!(of(500_000, 500_000), Verdict::Bad);
    }

    #[test]
    fn indexes_are_judged_by_validity_and_use() {
        let used = IndexUse {
            table: "t".to_owned(),
            name: "i".to_owned(),
            scans: 1,
            bytes: 1,
            rows: MANY_ROWS,
            is_valid: true,
            is_unique: false,
        };
        assert_eq!(index(&used), None);
        let of = |changed: &IndexUse| index(changed).map(|(verdict, _)| verdict);
        assert_eq!(
            of(&IndexUse {
                scans: 0,
                ..used.clone()
            }),
            Some(Verdict::Watch)
        );
        assert_eq!(
            of(&IndexUse {
                scans: 0,
                rows: 3,
                ..used.clone()
            }),
            None
        );
        assert_eq!(
            of(&IndexUse {
                is_valid: false,
                ..used
            }),
            Some(Verdict::Bad)
        );
    }
}
