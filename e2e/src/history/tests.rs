//! The checker finds each kind of violation, and nothing in a history that has none.

use proptest::prelude::*;

use super::*;

fn at(offset: i64) -> Place {
    Place {
        epoch: "a".to_owned(),
        offset,
    }
}

/// Three published events, and a reader that stands before them.
fn start() -> (History, Reader) {
    let history = History::default();
    let mut reader = history.reader("ann", "room");
    reader.subscribed(at(0), false);
    for id in ["m1", "m2", "m3"] {
        history.asked("room", id);
        history.acknowledged("room", id);
    }
    (history, reader)
}

fn kinds(history: &History) -> Vec<Violation> {
    let _ = history.verdict();
    lock(&history.0.findings).counts.keys().copied().collect()
}

fn feed(reader: &mut Reader, events: &[(i64, &str)]) {
    for (offset, id) in events {
        reader.delivered(at(*offset), id);
    }
}

#[test]
fn a_history_without_faults_passes() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (2, "m2"), (3, "m3")]);
    reader.settled();
    let summary = history.verdict().unwrap();
    assert_eq!(
        (summary.delivered, summary.acknowledged, summary.unrecovered),
        (3, 3, 0)
    );
}

#[test]
fn a_gap_is_found() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (3, "m3")]);
    assert_eq!(kinds(&history), [Violation::Gap]);
}

#[test]
fn an_offset_that_comes_again_is_found() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (1, "m1")]);
    assert_eq!(kinds(&history), [Violation::Duplicate]);
}

#[test]
fn an_event_with_two_offsets_is_found() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (2, "m1")]);
    assert_eq!(kinds(&history), [Violation::Duplicate]);
}

#[test]
fn a_step_back_is_found() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (2, "m2"), (1, "m1")]);
    assert_eq!(kinds(&history), [Violation::Disorder]);
}

#[test]
fn readers_that_were_told_different_things_are_found() {
    let (history, mut reader) = start();
    let mut other = history.reader("bob", "room");
    other.subscribed(at(0), false);
    feed(&mut reader, &[(1, "m1")]);
    feed(&mut other, &[(1, "m2")]);
    assert_eq!(kinds(&history), [Violation::Disagreement]);
}

#[test]
fn a_silent_change_of_epoch_is_found() {
    let (history, mut reader) = start();
    let place = Place {
        epoch: "b".to_owned(),
        offset: 1,
    };
    reader.delivered(place, "m1");
    assert_eq!(kinds(&history), [Violation::Epoch]);
}

#[test]
fn a_claim_to_have_recovered_into_another_epoch_is_found() {
    let (history, mut reader) = start();
    let head = Place {
        epoch: "b".to_owned(),
        offset: 1,
    };
    reader.subscribed(head, true);
    assert_eq!(kinds(&history), [Violation::Epoch]);
}

#[test]
fn what_was_refused_or_never_published_must_not_arrive() {
    let (history, mut reader) = start();
    history.asked("room", "no");
    history.refused("room", "no");
    feed(&mut reader, &[(1, "no"), (2, "m2"), (3, "stranger")]);
    let outcome = history.verdict().unwrap_err().to_string();
    assert!(outcome.starts_with("phantom 2:"), "{outcome}");
}

#[test]
fn an_acknowledged_event_that_never_came_is_found() {
    let (history, mut reader) = start();
    feed(&mut reader, &[(1, "m1"), (2, "m2")]);
    reader.settled();
    assert_eq!(kinds(&history), [Violation::Loss]);
}

#[test]
fn a_reader_that_stopped_early_is_found() {
    let (history, mut reader) = start();
    let mut other = history.reader("bob", "room");
    other.subscribed(at(0), false);
    feed(&mut reader, &[(1, "m1"), (2, "m2"), (3, "m3")]);
    feed(&mut other, &[(1, "m1")]);
    reader.settled();
    other.settled();
    assert_eq!(kinds(&history), [Violation::Behind]);
}

#[test]
fn who_is_told_that_it_cannot_recover_starts_anew() {
    let (history, mut reader) = start();
    reader.subscribed(at(2), false);
    feed(&mut reader, &[(3, "m3")]);
    reader.settled();
    let summary = history.verdict().unwrap();
    assert_eq!(summary.unrecovered, 1);
}

#[test]
fn who_left_before_the_end_owes_nothing() {
    let (history, reader) = start();
    drop(reader);
    history.verdict().unwrap();
}

proptest! {
    /// Whatever the moments at which connections break and resume, a faithful server passes.
    #[test]
    fn faithful_deliveries_pass(breaks in prop::collection::vec(prop::collection::vec(any::<bool>(), 30), 1..5)) {
        let history = History::default();
        let mut readers: Vec<_> = (0..breaks.len())
            .map(|number| history.reader(&number.to_string(), "room"))
            .collect();
        for reader in &mut readers {
            reader.subscribed(at(0), false);
        }
        for offset in 1..=30_i64 {
            let id = format!("m{offset}");
            history.asked("room", &id);
            history.acknowledged("room", &id);
        }
        for (reader, breaks) in readers.iter_mut().zip(&breaks) {
            for (offset, broken) in (1..=30_i64).zip(breaks) {
                if *broken {
                    reader.subscribed(at(30), true);
                }
                reader.delivered(at(offset), &format!("m{offset}"));
            }
        }
        let count = u64::try_from(readers.len()).unwrap();
        readers.into_iter().for_each(Reader::settled);
        prop_assert_eq!(history.verdict().unwrap().delivered, 30 * count);
    }

    /// One delivery left out is always found.
    #[test]
    fn a_hole_anywhere_is_found(hole in 1..=30_i64) {
        let history = History::default();
        let mut reader = history.reader("ann", "room");
        reader.subscribed(at(0), false);
        for offset in 1..=30_i64 {
            let id = format!("m{offset}");
            history.asked("room", &id);
            history.acknowledged("room", &id);
            if offset != hole {
                reader.delivered(at(offset), &id);
            }
        }
        reader.settled();
        prop_assert!(history.verdict().is_err());
    }
}
