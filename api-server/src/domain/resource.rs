//! Files of people: names, types, and which part of one is asked for.

use super::Unacceptable;

/// Bytes that are stored and sent at once.
pub const CHUNK: usize = 256 << 10;
/// Bytes of a chunk in an object store, where each costs a request.
pub const OBJECT: usize = 4 << 20;

/// Where the chunks of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredIn {
    /// Beside what is known of it.
    Postgres,
    /// In an S3-compatible store.
    S3,
}

impl StoredIn {
    /// As it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::S3 => "s3",
        }
    }

    /// Bytes of a chunk there.
    pub const fn chunk(self) -> usize {
        match self {
            Self::Postgres => CHUNK,
            Self::S3 => OBJECT,
        }
    }
}

/// Characters of a name.
const LONGEST_NAME: usize = 255;

/// The name of a file without the folders that some clients send.
pub fn name(text: &str) -> Result<String, Unacceptable> {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    super::line(last, LONGEST_NAME)
}

/// A content type without its parameters.
pub fn content_type(text: &str, allowed: &[String]) -> Result<String, Unacceptable> {
    let plain = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.' | b'_'))
    };
    let known = plain.len() <= 100
        && plain
            .split_once('/')
            .is_some_and(|(kind, rest)| token(kind) && token(rest));
    if !known {
        return Err(Unacceptable(
            "must have a content type such as image/png".to_owned(),
        ));
    }
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(start) => plain.starts_with(start),
        None => plain == *pattern,
    };
    if allowed.is_empty() || allowed.iter().any(fits) {
        Ok(plain)
    } else {
        Err(Unacceptable(format!("must be of {}", allowed.join(", "))))
    }
}

/// Which part of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// From the first of these bytes up to and without the second.
    Range(u64, u64),
    /// None that it has.
    Unsatisfiable,
}

/// Reads the header `Range`. What is not understood, and more than one range, means the whole.
pub fn part(header: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|text| text.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => range(first, last.saturating_add(1).min(size), size),
        (Some(first), None) if last.trim().is_empty() => range(first, size, size),
        (None, Some(most)) if first.trim().is_empty() => range(size.saturating_sub(most), size, size),
        _ => Part::Whole,
    }
}

fn range(start: u64, end: u64, size: u64) -> Part {
    if start < end && end <= size {
        Part::Range(start, end)
    } else {
        Part::Unsatisfiable
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, Part::Whole)]
    #[case(Some("bytes=0-4"), Part::Range(0, 5))]
    #[case(Some("bytes=5-"), Part::Range(5, 10))]
    #[case(Some("bytes=-3"), Part::Range(7, 10))]
    #[case(Some("bytes=-30"), Part::Range(0, 10))]
    #[case(Some("bytes=0-99"), Part::Range(0, 10))]
    #[case(Some("bytes=10-"), Part::Unsatisfiable)]
    #[case(Some("bytes=-0"), Part::Unsatisfiable)]
    #[case(Some("bytes=5-4"), Part::Whole)]
    #[case(Some("bytes=0-1,3-4"), Part::Whole)]
    #[case(Some("bytes=a-b"), Part::Whole)]
    #[case(Some("pages=1-2"), Part::Whole)]
    #[case(Some("bytes=99999999999999999999-"), Part::Unsatisfiable)]
    fn ranges_are_read(#[case] header: Option<&str>, #[case] expected: Part) {
        assert_eq!(part(header, 10), expected);
    }

    proptest! {
        #[test]
        fn no_header_leads_out_of_the_file(text in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0_u64..5_000) {
            if let Part::Range(start, end) = part(Some(&text), size) {
                prop_assert!(start < end && end <= size);
            }
        }
    }

    #[test]
    fn names_and_types_are_checked() {
        assert_eq!(name("C:\\x\\report.pdf").unwrap(), "report.pdf");
        assert_eq!(name("../../etc/passwd").unwrap(), "passwd");
        assert!(name("a/").is_err() && name("a\r\nb").is_err());
        let allowed = ["image/*".to_owned(), "text/plain".to_owned()];
        assert_eq!(content_type("Image/PNG; q=1", &allowed).unwrap(), "image/png");
        assert!(content_type("text/html", &allowed).is_err());
        for wrong in ["", "x", "a/b/c", "a/\r\nb", "/"] {
            assert!(content_type(wrong, &[]).is_err(), "{wrong}");
        }
    }
}
