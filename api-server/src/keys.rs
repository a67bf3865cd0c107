//! Keys that are derived from the pepper, one for each use, so that a value signed for one purpose is worthless for another.

use std::fmt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a signature that are kept: 128 bits cannot be guessed, and a header stays short.
pub const SIGNATURE_LEN: usize = 16;

/// What is stored instead of a token.
pub type TokenHash = [u8; 32];

/// The pepper cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("failed to read the pepper file {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Too short to be secret.
    #[error("the pepper has {0} bytes, at least 32 are needed")]
    TooShort(usize),
}

/// Derived keys.
#[derive(Clone)]
pub struct Keys {
    tokens: [u8; 32],
    consistency: [u8; 32],
    invitations: [u8; 32],
    webhooks: [u8; 32],
    sources: [u8; 32],
}

impl Keys {
    /// Derives all keys from the pepper.
    pub fn from_pepper(pepper: &[u8]) -> Result<Self, KeysError> {
        if pepper.len() < 32 {
            return Err(KeysError::TooShort(pepper.len()));
        }
        Ok(Self {
            tokens: mac(pepper, b"tanka tokens v1"),
            consistency: mac(pepper, b"tanka consistency v1"),
            invitations: mac(pepper, b"tanka invitations v1"),
            webhooks: mac(pepper, b"tanka webhooks v1"),
            sources: mac(pepper, b"tanka sources v1"),
        })
    }

    /// Reads the pepper from a file; white space around it does not count.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let pepper = std::fs::read(path).map_err(|source| KeysError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::from_pepper(pepper.trim_ascii())
    }

    /// The keyed hash under which a token is stored. Keyed, so that someone who can write to the database
    /// still cannot plant a session whose token he knows.
    pub fn token_hash(&self, token: &str) -> TokenHash {
        mac(&self.tokens, token.as_bytes())
    }

    /// The secret part of an invitation's token. It follows from the invitation's id, so that a repeated request can be answered with
    /// the same token although none is stored.
    pub fn invitation(&self, id: uuid::Uuid) -> [u8; 32] {
        mac(&self.invitations, id.as_bytes())
    }

    /// The secret that signs what is sent to an endpoint. It follows from the endpoint's id and the number of its rotation, so none is
    /// stored, and the database alone is not enough to forge an event.
    pub fn webhook(&self, id: uuid::Uuid, version: i32) -> [u8; 32] {
        let mut message = [0; 20];
        message[..16].copy_from_slice(id.as_bytes());
        message[16..].copy_from_slice(&version.to_be_bytes());
        mac(&self.webhooks, &message)
    }

    /// Seals tokens of sources.
    pub const fn sources(&self) -> [u8; 32] {
        self.sources
    }

    /// Signs a position in the write-ahead log.
    pub fn sign_position(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let full = mac(&self.consistency, message);
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(&full[..SIGNATURE_LEN]);
        signature
    }

    /// Whether a signature is ours, in constant time.
    pub fn verify_position(&self, message: &[u8], signature: &[u8]) -> bool {
        self.sign_position(message).ct_eq(signature).into()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of every length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_and_pepper() {
        let one = Keys::from_pepper(&[1; 32]).unwrap();
        let two = Keys::from_pepper(&[2; 32]).unwrap();
        assert_ne!(one.token_hash("t"), two.token_hash("t"));
        assert_ne!(one.token_hash("t")[..SIGNATURE_LEN], one.sign_position(b"t"));
    }

    #[test]
    fn a_short_pepper_is_refused() {
        assert!(matches!(
            Keys::from_pepper(&[1; 31]),
            Err(KeysError::TooShort(31))
        ));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Keys::from_pepper(&[1; 32]).unwrap()), "Keys(..)");
    }
}
