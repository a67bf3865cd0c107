use proptest::prelude::*;
use rstest::rstest;

use super::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame as clients send it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(MASKED | u8::try_from(length).unwrap()),
        length @ 126..=65_535 => {
            bytes.push(MASKED | 0x7e);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(MASKED | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn read(limit: usize, pieces: &[&[u8]]) -> (Vec<Incoming>, Option<Violation>) {
    let mut decoder = Decoder::new(limit);
    let mut out = VecDeque::new();
    for piece in pieces {
        if let Err(violation) = decoder.feed(piece, &mut out) {
            return (out.into(), Some(violation));
        }
    }
    (out.into(), None)
}

fn text(text: &str) -> Incoming {
    Incoming::Text(text.to_owned())
}

#[test]
fn fragments_make_one_message_and_control_frames_come_between_them() {
    let bytes = [
        frame(TEXT, b"one "),
        frame(LAST | PING, b"?"),
        frame(CONTINUATION, "tw\u{f6}".as_bytes()),
        frame(LAST | PONG, b""),
        frame(LAST | CONTINUATION, b""),
        frame(LAST | BINARY, &[0xFF; 300]),
        frame(LAST | TEXT, b""),
    ]
    .concat();
    let wanted = vec![
        Incoming::Ping(b"?".to_vec()),
        Incoming::Pong,
        text("one tw\u{f6}"),
        Incoming::Binary(vec![0xFF; 300]),
        text(""),
    ];
    assert_eq!(read(1_000, &[&bytes]), (wanted, None));
}

#[rstest]
#[case(&[LAST | 0x40 | TEXT, MASKED])]
#[case(&[LAST | 0x20 | TEXT, MASKED])]
#[case(&[LAST | 0x10 | PING, MASKED])]
#[case(&[LAST | 0x3, MASKED])]
#[case(&[LAST | 0x7, MASKED])]
#[case(&[LAST | 0xB, MASKED])]
#[case(&[LAST | 0xF, MASKED])]
#[case(&[LAST | TEXT, 0])]
#[case(&[PING, MASKED])]
#[case(&[LAST | PING, MASKED | 0x7e])]
#[case(&[LAST | CLOSE, MASKED | 127])]
#[case(&[LAST | CONTINUATION, MASKED])]
#[case(&[CONTINUATION, MASKED])]
fn a_wrong_header_is_refused_at_its_second_byte(#[case] bytes: &[u8]) {
    assert_eq!(read(1_000, &[&bytes[..1]]), (vec![], None));
    assert_eq!(read(1_000, &[bytes]), (vec![], Some(Violation::Protocol)));
}

#[test]
fn a_message_cannot_begin_within_another() {
    let bytes = [frame(TEXT, b"one"), frame(LAST | TEXT, b"two")].concat();
    assert_eq!(read(1_000, &[&bytes]), (vec![], Some(Violation::Protocol)));
}

#[test]
fn what_is_too_big_is_refused_before_it_comes() {
    let whole = frame(LAST | TEXT, &[b'x'; 1_001]);
    assert_eq!(read(1_000, &[&whole[..8]]), (vec![], Some(Violation::TooBig)));
    let parts = [
        frame(TEXT, &[b'x'; 600]),
        frame(LAST | CONTINUATION, &[b'x'; 401]),
    ]
    .concat();
    assert_eq!(read(1_000, &[&parts]), (vec![], Some(Violation::TooBig)));
    let fits = [
        frame(TEXT, &[b'x'; 600]),
        frame(LAST | CONTINUATION, &[b'x'; 400]),
    ]
    .concat();
    assert_eq!(read(1_000, &[&fits]).1, None);
    let endless = [LAST | BINARY, MASKED | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(read(1_000, &[&endless]), (vec![], Some(Violation::Protocol)));
}

#[rstest]
#[case(&[0xCE, 0xBA, 0xED, 0xA0, 0x80], 4)]
#[case(&[0xF4, 0x90], 2)]
#[case(&[b'a', 0xFF], 2)]
#[case(&[0xC0, 0xAF], 1)]
fn a_text_is_refused_at_the_first_wrong_byte(#[case] payload: &[u8], #[case] bad: usize) {
    // The message would go on: nothing but the byte itself is the reason.
    let mut bytes = frame(LAST | TEXT, &[payload, b"more"].concat());
    bytes.truncate(6 + bad);
    assert_eq!(read(1_000, &[&bytes[..5 + bad]]), (vec![], None));
    assert_eq!(read(1_000, &[&bytes]), (vec![], Some(Violation::NotText)));
}

#[test]
fn a_text_may_not_end_within_a_character() {
    let bytes = [frame(TEXT, &[0xF0, 0x9F]), frame(LAST | CONTINUATION, &[0x98])].concat();
    assert_eq!(read(1_000, &[&bytes]), (vec![], Some(Violation::NotText)));
    let bytes = [
        frame(TEXT, &[0xF0, 0x9F]),
        frame(LAST | CONTINUATION, &[0x98, 0x80]),
    ]
    .concat();
    assert_eq!(read(1_000, &[&bytes]), (vec![text("\u{1F600}")], None));
}

#[rstest]
#[case(&[], Ok(None))]
#[case(&[3], Err(Violation::Protocol))]
#[case(&[0x03, 0xE8], Ok(Some(1000)))]
#[case(&[0x0F, 0xA0, b'?'], Ok(Some(4000)))]
#[case(&[0x03, 0xE8, 0xFF], Err(Violation::NotText))]
#[case(&[0x03, 0xED], Err(Violation::Protocol))]
#[case(&[0x03, 0xE7], Err(Violation::Protocol))]
#[case(&[0x13, 0x88], Err(Violation::Protocol))]
fn a_close_is_read(#[case] payload: &[u8], #[case] wanted: Result<Option<u16>, Violation>) {
    let bytes = [frame(LAST | CLOSE, payload), frame(LAST | TEXT, b"never")].concat();
    let expected = match wanted {
        Ok(code) => (vec![Incoming::Close(code)], None),
        Err(violation) => (vec![], Some(violation)),
    };
    assert_eq!(read(1_000, &[&bytes]), expected);
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_makes_no_difference(
        messages in proptest::collection::vec((0_usize..4, ".{0,200}"), 1..8),
        cuts in proptest::collection::vec(1_usize..40, 0..200),
        damage in proptest::option::of((0_usize..400, any::<u8>())),
    ) {
        let mut bytes = Vec::new();
        for (kind, text) in &messages {
            let payload = text.as_bytes();
            let half = payload.len() / 2;
            match kind {
                0 => bytes.extend(frame(LAST | TEXT, payload)),
                1 => bytes.extend(frame(LAST | PING, &payload[..payload.len().min(125)])),
                2 => bytes.extend(frame(LAST | BINARY, payload)),
                _ => {
                    bytes.extend(frame(TEXT, &payload[..half]));
                    bytes.extend(frame(LAST | CONTINUATION, &payload[half..]));
                }
            }
        }
        if let Some((at, with)) = damage && at < bytes.len() {
            bytes[at] = with;
        }
        let whole = read(4_000, &[&bytes]);
        let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces.push(rest);
        prop_assert_eq!(read(4_000, &pieces), whole);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(100, &[&bytes]);
    }
}
