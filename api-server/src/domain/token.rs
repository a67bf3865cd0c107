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
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 4] = [Kind::Access, Kind::Refresh, Kind::Ticket, Kind::Invitation];

    /// A token with another character at a place; the same text if it stands there already.
    fn changed(token: &Token, at: usize, character: char) -> String {
        let mut characters: Vec<char> = token.reveal().chars().collect();
        characters[at] = character;
        characters.into_iter().collect()
    }

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

    proptest! {
        #[test]
        fn every_token_that_is_made_is_read_back(random: [u8; 32], made in 0_usize..4) {
            let token = Token::new(KINDS[made], random);
            for kind in KINDS {
                let read = Token::parse(kind, token.reveal());
                let text = read.as_ref().map(Token::reveal);
                prop_assert_eq!(text, (kind == KINDS[made]).then_some(token.reveal()));
            }
        }

        /// A token carries no check of its own. What a change makes of it is refused by its form, or is looked up and not found.
        #[test]
        fn a_token_with_one_other_character_is_never_the_same_token(
            random: [u8; 32], made in 0_usize..4, at in 0_usize..47, character in "[-A-Za-z0-9_]",
        ) {
            let keys = Keys::from_pepper(&[3; 32]).unwrap();
            let token = Token::new(KINDS[made], random);
            let text = changed(&token, at, character.chars().next().unwrap());
            prop_assume!(text != token.reveal());
            for kind in KINDS {
                if let Some(other) = Token::parse(kind, &text) {
                    prop_assert_eq!(other.reveal(), text.as_str());
                    prop_assert_ne!(other.hash(&keys), token.hash(&keys));
                }
            }
            let read = Token::parse(KINDS[made], &text);
            prop_assert_eq!(read.is_some(), at >= 4, "the prefix is fixed");
        }

        #[test]
        fn a_character_that_no_token_has_is_refused(
            random: [u8; 32], made in 0_usize..4, at in 0_usize..47, character: char,
        ) {
            prop_assume!(!character.is_ascii_alphanumeric() && character != '-' && character != '_');
            let text = changed(&Token::new(KINDS[made], random), at, character);
            for kind in KINDS {
                prop_assert!(Token::parse(kind, &text).is_none(), "{text:?}");
            }
        }

        #[test]
        fn no_text_makes_reading_panic(text in "(tk[arti]_)?.{0,50}") {
            for kind in KINDS {
                if let Some(token) = Token::parse(kind, &text) {
                    prop_assert!(token.reveal() == text && text.len() == 47 && text.is_ascii());
                }
            }
        }
    }
}
