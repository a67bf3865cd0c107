//! Tokens of sources at rest: AES-256-GCM with a key that follows from the pepper, bound to the source that they belong to.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use uuid::Uuid;

/// The token cannot be sealed or opened: the pepper is another one, or the row was changed.
#[derive(Debug, thiserror::Error)]
#[error("the token of the source cannot be read any more; give it again")]
pub struct SealError;

/// Seals.
pub fn seal(key: &[u8; 32], source_id: Uuid, token: &str) -> Result<Vec<u8>, SealError> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError)?;
    let mut data = token.as_bytes().to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(source_id.as_bytes()), &mut data)
        .map_err(|_| SealError)?;
    let mut sealed = nonce.as_ref().to_vec();
    sealed.extend_from_slice(&data);
    Ok(sealed)
}

/// Opens.
pub fn open(key: &[u8; 32], source_id: Uuid, sealed: &[u8]) -> Result<String, SealError> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError)?;
    let (nonce, data) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
    let mut data = data.to_vec();
    let token = key
        .open_in_place(nonce, Aad::from(source_id.as_bytes()), &mut data)
        .map_err(|_| SealError)?;
    String::from_utf8(token.to_vec()).map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_token_is_opened_only_for_its_source() {
        let (key, one, two) = ([7; 32], Uuid::from_u128(1), Uuid::from_u128(2));
        let sealed = seal(&key, one, "ghp_secret").unwrap();
        assert_eq!(open(&key, one, &sealed).unwrap(), "ghp_secret");
        assert!(open(&key, two, &sealed).is_err());
        assert!(open(&[8; 32], one, &sealed).is_err());
        assert!(open(&key, one, &sealed[..5]).is_err());
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(seal(&key, one, "ghp_secret").unwrap(), sealed);
    }
}
