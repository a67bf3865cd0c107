//! Whatever bytes a client sends, and however they are cut, the server reads the same messages from them or refuses them. The first byte
//! says where to cut. The property tests of `realtime/wire/decoder` and `realtime/protocol` run the same on stable.
#![no_main]

use std::collections::VecDeque;

use api_server::realtime::protocol::Request;
use api_server::realtime::wire::decoder::{Decoder, Incoming, Violation};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 16 << 10;

fn read(pieces: &[&[u8]]) -> (VecDeque<Incoming>, Option<Violation>) {
    let (mut decoder, mut out) = (Decoder::new(LIMIT), VecDeque::new());
    for piece in pieces {
        if let Err(violation) = decoder.feed(piece, &mut out) {
            return (out, Some(violation));
        }
    }
    (out, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = read(&[bytes]);
    let (begin, end) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[begin, end]), whole);
    for message in whole.0 {
        if let Incoming::Text(text) = message {
            let _ = serde_json::from_str::<Request>(&text);
        }
    }
});
