//! Reads what clients send. Pure: bytes go in, in pieces of whatever size, and messages come out. What is wrong is refused at the first
//! byte that shows it; a text that is not UTF-8, in the middle of a character.

use std::collections::VecDeque;

use super::{BINARY, CLOSE, LAST, MOST_CONTROL, PING, PONG, TEXT};

const CONTINUATION: u8 = 0x0;
/// Bytes of the longest header.
const MOST_HEADER: usize = 14;
const MASKED: u8 = 0x80;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text, put together from its fragments.
    Text(String),
    /// Bytes, of which the API has no use.
    Binary(Vec<u8>),
    /// To be answered with what it carries.
    Ping(Vec<u8>),
    /// Answers a ping.
    Pong,
    /// The client ends the connection, with this code.
    Close(Option<u16>),
}

/// What a client may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Not of the protocol.
    Protocol,
    /// A text that is not UTF-8.
    NotText,
    /// A message above the limit.
    TooBig,
}

impl Violation {
    /// Close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotText => 1007,
            Self::TooBig => 1009,
        }
    }
}

#[derive(Debug)]
struct Header {
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    /// Bytes of the payload that have not come yet.
    left: usize,
    /// Place in the mask.
    turn: usize,
}

/// A message whose fragments come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

/// The state between two pieces. Between two messages it holds nothing on the heap.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    head: [u8; MOST_HEADER],
    have: usize,
    frame: Option<Header>,
    control: Vec<u8>,
    message: Option<Kind>,
    /// The message so far.
    data: Vec<u8>,
    /// Bytes of a text that are known to be UTF-8.
    checked: usize,
    ended: bool,
}

impl Decoder {
    /// For messages of so many bytes at most.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            head: [0; MOST_HEADER],
            have: 0,
            frame: None,
            control: Vec::new(),
            message: None,
            data: Vec::new(),
            checked: 0,
            ended: false,
        }
    }

    /// Takes a piece; what is whole goes to `out`. Nothing counts after a close or a violation.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut VecDeque<Incoming>) -> Result<(), Violation> {
        while !self.ended {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(&mut bytes)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let (payload, rest) = bytes.split_at(frame.left.min(bytes.len()));
            bytes = rest;
            self.payload(&mut frame, payload)?;
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(());
            }
            if let Some(incoming) = self.finish(&frame)? {
                out.push_back(incoming);
            }
        }
        Ok(())
    }

    /// Takes bytes of a header until it is whole.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<Option<Header>, Violation> {
        while self.have < self.wanted() {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            self.head[self.have] = *first;
            self.have += 1;
            *bytes = rest;
            if self.have == 2 {
                self.allowed()?;
            }
        }
        let extended = self.wanted() - 6;
        let length = match extended {
            0 => u64::from(self.head[1] & !MASKED),
            _ => self.head[2..2 + extended]
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        if length >> 63 == 1 {
            return Err(Violation::Protocol);
        }
        let opcode = self.head[0] & 0x0F;
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        if opcode < CLOSE && left > self.limit - self.data.len() {
            return Err(Violation::TooBig);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.head[2 + extended..6 + extended]);
        self.have = 0;
        match opcode {
            TEXT => self.message = Some(Kind::Text),
            BINARY => self.message = Some(Kind::Binary),
            _ => {}
        }
        Ok(Some(Header {
            opcode,
            last: self.head[0] & LAST != 0,
            mask,
            left,
            turn: 0,
        }))
    }

    /// Bytes that the header has, as far as that is known.
    fn wanted(&self) -> usize {
        match self.head[1] & !MASKED {
            _ if self.have < 2 => 2,
            126 => 8,
            127 => 14,
            _ => 6,
        }
    }

    /// Whether a frame that begins with these two bytes may come now.
    fn allowed(&self) -> Result<(), Violation> {
        let [first, second] = [self.head[0], self.head[1]];
        let plain = first & 0x70 == 0 && second & MASKED != 0;
        let (last, length) = (first & LAST != 0, usize::from(second & !MASKED));
        let fits = match first & 0x0F {
            CONTINUATION => self.message.is_some(),
            TEXT | BINARY => self.message.is_none(),
            CLOSE | PING | PONG => last && length <= MOST_CONTROL,
            _ => false,
        };
        if plain && fits {
            Ok(())
        } else {
            Err(Violation::Protocol)
        }
    }

    fn payload(&mut self, frame: &mut Header, bytes: &[u8]) -> Result<(), Violation> {
        frame.left -= bytes.len();
        let mask = frame.mask.into_iter().cycle().skip(frame.turn);
        frame.turn = (frame.turn + bytes.len()) % 4;
        let plain = bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask);
        if frame.opcode >= CLOSE {
            self.control.extend(plain);
            return Ok(());
        }
        self.data.extend(plain);
        if self.message == Some(Kind::Text) {
            self.check(frame.last && frame.left == 0)?;
        }
        Ok(())
    }

    /// Whether the text is UTF-8 so far.
    fn check(&mut self, whole: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.data[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_some() || whole => return Err(Violation::NotText),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }

    /// Ends a frame whose payload is there.
    fn finish(&mut self, frame: &Header) -> Result<Option<Incoming>, Violation> {
        match frame.opcode {
            PING => Ok(Some(Incoming::Ping(std::mem::take(&mut self.control)))),
            PONG => {
                self.control = Vec::new();
                Ok(Some(Incoming::Pong))
            }
            CLOSE => {
                self.ended = true;
                closing(&std::mem::take(&mut self.control)).map(|code| Some(Incoming::Close(code)))
            }
            _ if !frame.last => Ok(None),
            _ => {
                self.checked = 0;
                let data = std::mem::take(&mut self.data);
                match self.message.take() {
                    Some(Kind::Text) => String::from_utf8(data)
                        .map(|text| Some(Incoming::Text(text)))
                        .map_err(|_| Violation::NotText),
                    _ => Ok(Some(Incoming::Binary(data))),
                }
            }
        }
    }
}

/// What a close says.
fn closing(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Violation::Protocol)
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::NotText),
    }
}

#[cfg(test)]
mod tests;
