//! Signatures as Standard Webhooks describes them: HMAC-SHA256 over id, time and body.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use uuid::Uuid;

/// Bytes of a secret.
pub const SECRET_LEN: usize = 32;

/// A secret in the form that receivers configure.
pub fn show(secret: &[u8]) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(secret))
}

/// The id of a message.
pub fn message_id(id: Uuid) -> String {
    format!("msg_{}", id.simple())
}

/// The value of `webhook-signature`: one signature for each secret that is good at the moment.
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a [u8]>,
    id: &str,
    at: Timestamp,
    body: &str,
) -> String {
    let signed: Vec<String> = secrets
        .into_iter()
        .map(|secret| format!("v1,{}", BASE64_STANDARD.encode(sign(secret, id, at, body))))
        .collect();
    signed.join(" ")
}

fn sign(secret: &[u8], id: &str, at: Timestamp, body: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of every length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).expect("HMAC takes any key");
    mac.update(format!("{id}.{}.", at.as_second()).as_bytes());
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the libraries of Standard Webhooks.
    #[test]
    fn a_signature_is_the_one_that_libraries_expect() {
        let secret = BASE64_STANDARD.decode("plJ3nmyCDGBKInavdOK15jsl").unwrap();
        let at = Timestamp::from_second(1_731_705_121).unwrap();
        let body = r#"{"event_type":"ping","data":{"success":true}}"#;
        assert_eq!(
            signatures([secret.as_slice()], "msg_loFOjxBNrRLzqYUf", at, body),
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
        );
        assert_eq!(
            signatures([&[1][..], &[2][..]], "m", at, body).split(' ').count(),
            2
        );
    }
}
