//! The WebSocket protocol (RFC 6455) of the server's side, without extensions. Own code for two reasons, which
//! `docs/decisions/0016-websocket-frames.md` weighs: a frame is made once and shared by all sockets that it goes to, and an idle
//! socket holds no buffer.

pub mod decoder;
pub mod transport;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// A whole message from the server, as it goes over the wire. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    head: u8,
}

const LAST: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// Bytes of a control frame, at most.
const MOST_CONTROL: usize = 125;

impl Frame {
    /// A text.
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text.as_bytes())
    }

    /// Bytes. The API sends none; what tests the protocol does.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::new(BINARY, bytes)
    }

    /// Asks whether the client is there.
    pub fn ping() -> Self {
        Self::new(PING, &[])
    }

    /// Answers a ping with what it carried.
    pub fn pong(carried: &[u8]) -> Self {
        Self::new(PONG, &carried[..carried.len().min(MOST_CONTROL)])
    }

    /// Ends the connection. A reason that is too long is cut.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MOST_CONTROL - 2)]);
        Self::new(CLOSE, &payload)
    }

    fn new(opcode: u8, payload: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(payload.len() + 10);
        bytes.put_u8(LAST | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ 0..=125), _) => bytes.put_u8(length),
            (_, Ok(length)) => {
                bytes.put_u8(126);
                bytes.put_u16(length);
            }
            _ => {
                bytes.put_u8(127);
                bytes.put_u64(payload.len() as u64);
            }
        }
        let head = u8::try_from(bytes.len()).unwrap_or(0);
        bytes.put_slice(payload);
        Self {
            bytes: bytes.freeze(),
            head,
        }
    }

    /// What goes over the wire.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The text of a text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[usize::from(self.head)..]).unwrap_or_default()
    }

    /// Bytes that it takes on the wire.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Frame").field(&self.as_str()).finish()
    }
}

impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::text(&text)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, &[0x81, 0])]
    #[case(125, &[0x81, 125])]
    #[case(126, &[0x81, 126, 0, 126])]
    #[case(65_535, &[0x81, 126, 0xFF, 0xFF])]
    #[case(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
    fn lengths_take_the_fewest_bytes(#[case] length: usize, #[case] head: &[u8]) {
        let text = "x".repeat(length);
        let frame = Frame::text(&text);
        assert_eq!(&frame.bytes()[..head.len()], head);
        assert_eq!(frame.as_str(), text);
        assert_eq!(frame.len(), head.len() + length);
    }

    #[test]
    fn a_close_fits_a_control_frame_whatever_its_reason() {
        let frame = Frame::close(1001, &"é".repeat(100));
        assert_eq!(&frame.bytes()[..4], &[0x88, 124, 0x03, 0xE9]);
        assert_eq!(Frame::pong(&[1, 2]).bytes().as_ref(), &[0x8A, 2, 1, 2]);
        assert_eq!(Frame::ping().bytes().as_ref(), &[0x89, 0]);
    }
}
