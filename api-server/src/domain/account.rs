//! What a person is known by: address, name, password.

use secrecy::{ExposeSecret, SecretString};

use super::{Unacceptable, line};

/// An e-mail address, in the one spelling by which an account is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Accepts what can be an address; whether it receives mail only a mail can show. Letters are ASCII
    /// (an international domain in its `xn--` form), so that lower case means the same here and in PostgreSQL.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        let text = text.trim();
        let unacceptable = || Unacceptable("must be an e-mail address such as ada@example.com".to_owned());
        let (local, domain) = text.rsplit_once('@').ok_or_else(unacceptable)?;
        let sound = (3..=254).contains(&text.len())
            && !local.is_empty()
            && local.len() <= 64
            && !local.contains('@')
            && domain.contains('.')
            && domain.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
            && text.bytes().all(|b| b.is_ascii_graphic());
        if sound {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(unacceptable())
        }
    }

    /// The address in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a person or a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// One line of at most 200 characters.
    pub fn parse(text: &str) -> Result<Self, Unacceptable> {
        line(text, 200).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password that may be set. Passwords that are only compared are never parsed: a rule that becomes stricter
/// must not lock anybody out.
#[derive(Debug, Clone)]
pub struct NewPassword(SecretString);

const SHORTEST: usize = 8;
/// Longer texts would make hashing them a way to keep the server busy.
const LONGEST: usize = 256;
/// Characters that are judged: the rest could only make it better, and judging takes time that grows with the length.
const JUDGED: usize = 64;
/// Guesses below which a password is refused: an attacker who is slowed down makes about so many in a year.
const EASY: u64 = 100_000;

impl NewPassword {
    /// At least eight characters, nothing that few guesses find, and not the address itself.
    pub fn parse(text: &SecretString, email: Option<&Email>) -> Result<Self, Unacceptable> {
        let plain = text.expose_secret();
        let length = plain.chars().count();
        if length < SHORTEST {
            return Err(Unacceptable(format!("must have at least {SHORTEST} characters")));
        }
        if plain.len() > LONGEST {
            return Err(Unacceptable(format!("must have at most {LONGEST} bytes")));
        }
        let is_address = email.is_some_and(|email| email.as_str() == plain.to_lowercase());
        if is_address || is_easy(plain, email) {
            return Err(Unacceptable(
                "is too easy to guess, choose another one".to_owned(),
            ));
        }
        Ok(Self(text.clone()))
    }

    /// The password, for hashing.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

/// Whether few guesses find it: common passwords, names, keyboard rows, dates, repetitions, and what the address gives away. The library
/// knows some thirty thousand common passwords and how people change them.
fn is_easy(plain: &str, email: Option<&Email>) -> bool {
    let head: String = plain.chars().take(JUDGED).collect();
    let own: Vec<&str> = email.map_or_else(Vec::new, |email| email.as_str().split(['@', '.']).collect());
    zxcvbn::zxcvbn(&head, &own).guesses() < EASY
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Ada@Example.COM", "ada@example.com")]
    #[case(" a.b+c@sub.example.org ", "a.b+c@sub.example.org")]
    fn an_address_has_one_spelling(#[case] text: &str, #[case] stored: &str) {
        assert_eq!(Email::parse(text).unwrap().as_str(), stored);
    }

    #[rstest]
    #[case("")]
    #[case("ada")]
    #[case("@example.com")]
    #[case("ada@")]
    #[case("ada@example")]
    #[case("a@b@example.com")]
    #[case("ada lovelace@example.com")]
    #[case("ada@exa_mple.com")]
    #[case("adä@example.com")]
    #[case("ada@example..com")]
    fn what_is_no_address_is_refused(#[case] text: &str) {
        assert!(Email::parse(text).is_err());
    }

    #[rstest]
    #[case("short", false)]
    #[case("PassWord", false)]
    #[case("trustno1", false)]
    #[case("qwertyuiop", false)]
    #[case("aaaaaaaaaaaa", false)]
    #[case("michelle", false)]
    #[case("11/11/1980", false)]
    #[case("ada@example.com", false)]
    #[case("correct horse", true)]
    #[case("ünïcödé!", true)]
    fn passwords_are_judged_by_length_and_commonness(#[case] text: &str, #[case] good: bool) {
        let email = Email::parse("ada@example.com").unwrap();
        assert_eq!(
            NewPassword::parse(&SecretString::from(text), Some(&email)).is_ok(),
            good
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = NewPassword::parse(&SecretString::from("correct horse"), None).unwrap();
        assert!(!format!("{password:?}").contains("horse"));
    }
}
