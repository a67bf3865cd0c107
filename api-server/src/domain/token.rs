//! Opaque tokens: a prefix that tells what it is, then 256 random bits.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use crate::keys::{Keys, TokenHash};

/// What a token is for. Prefixes are part of the API: secret scanners know them, so they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Proves who calls.
    Access,
    /// Exchanged for new tokens, once.
    Refresh,
    /// Opens one WebSocket.
    Ticket,
    /// Lets its owner join a tenant.
    Invitation,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "tka_",
            Self::Refresh => "tkr_",
            Self::Ticket => "tkt_",
            Self::Invitation => "tki_",
        }
    }
}

/// Characters of 32 bytes in base64 without padding.
const BODY_LEN: usize = 43;

/// A token, for the one answer that hands it out.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

impl Token {
    /// Makes a token of random bytes.
    pub fn new(kind: Kind, random: [u8; 32]) -> Self {
        Self(SecretString::from(format!(
            "{}{}",
            kind.prefix(),
            BASE64_URL_SAFE_NO_PAD.encode(random)
        )))
    }

    /// Accepts a text that can be such a token, so that nothing else reaches the database.
    pub fn parse(kind: Kind, text: &str) -> Option<Self> {
        let body = text.strip_prefix(kind.prefix())?;
        let sound = body.len() == BODY_LEN
            && body
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        sound.then(|| Self(SecretString::from(text)))
    }

    /// What is stored and looked up.
    pub fn hash(&self, keys: &Keys) -> TokenHash {
        keys.token_hash(self.0.expose_secret())
    }

    /// The text, for the answer.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_only_as_what_it_is() {
        let token = Token::new(Kind::Access, [7; 32]);
        assert!(Token::parse(Kind::Access, token.reveal()).is_some());
        assert!(Token::parse(Kind::Refresh, token.reveal()).is_none());
        assert!(Token::parse(Kind::Access, &token.reveal()[..20]).is_none());
        assert!(Token::parse(Kind::Access, &format!("tka_{}", "'".repeat(43))).is_none());
    }

    #[test]
    fn a_token_is_not_in_debug_output() {
        let token = Token::new(Kind::Access, [7; 32]);
        assert!(!format!("{token:?}").contains(token.reveal()));
    }
}
