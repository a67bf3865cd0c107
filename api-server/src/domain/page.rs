//! Keyset pages: a cursor names the last row that was seen, so rows that come and go shift nothing.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use super::Unacceptable;

/// Rows of a page when nobody says.
pub const DEFAULT_LIMIT: u16 = 20;
/// Most rows of a page.
pub const MAX_LIMIT: u16 = 100;

/// Where a page starts: after this row, in descending order of (time, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Time of the last row that was seen, to the microsecond that PostgreSQL stores.
    pub at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

impl Cursor {
    /// As clients carry it.
    pub fn encode(self) -> String {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.at.as_microsecond().to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// As clients bring it back.
    pub fn decode(text: &str) -> Result<Self, Unacceptable> {
        let unacceptable = || Unacceptable("is not a cursor of this API; start without one".to_owned());
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| unacceptable())?;
        let (at, id) = bytes.split_first_chunk::<8>().ok_or_else(unacceptable)?;
        let at = Timestamp::from_microsecond(i64::from_be_bytes(*at)).map_err(|_| unacceptable())?;
        // No row is older, and PostgreSQL knows fewer years than we do.
        if at < Timestamp::UNIX_EPOCH {
            return Err(unacceptable());
        }
        let id = Uuid::from_slice(id).map_err(|_| unacceptable())?;
        Ok(Self { at, id })
    }
}

/// What part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// Start after this row; the first page without one.
    pub after: Option<Cursor>,
    /// Rows of the page.
    pub limit: u16,
}

impl PageRequest {
    /// Checks what a client asks for.
    pub fn parse(cursor: Option<&str>, limit: Option<u16>) -> Result<Self, (&'static str, Unacceptable)> {
        let after = cursor
            .map(Cursor::decode)
            .transpose()
            .map_err(|problem| ("cursor", problem))?;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if (1..=MAX_LIMIT).contains(&limit) {
            Ok(Self { after, limit })
        } else {
            Err((
                "limit",
                Unacceptable(format!("must be between 1 and {MAX_LIMIT}")),
            ))
        }
    }

    /// Where to start, for SQL: no time is the end of all times.
    pub fn start(self) -> (Option<Timestamp>, Uuid) {
        self.after
            .map_or((None, Uuid::max()), |cursor| (Some(cursor.at), cursor.id))
    }

    /// Rows to fetch: one more than the page, which tells whether there is a next one.
    pub fn fetch(self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// A page of rows and where the next one starts.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// Rows.
    pub items: Vec<T>,
    /// Start of the next page, when there is one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Cuts fetched rows to the page.
    pub fn cut(mut rows: Vec<T>, request: PageRequest, cursor: impl Fn(&T) -> Cursor) -> Self {
        let more = rows.len() > usize::from(request.limit);
        rows.truncate(usize::from(request.limit));
        let next = if more { rows.last().map(cursor) } else { None };
        Self { items: rows, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_survives_the_way_to_the_client_and_back(
            micros in 0_i64..253_402_300_799_000_000, id in any::<u128>()
        ) {
            let cursor = Cursor { at: Timestamp::from_microsecond(micros).unwrap(), id: Uuid::from_u128(id) };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        /// PostgreSQL would refuse years that we can write.
        #[test]
        fn a_cursor_before_all_rows_is_refused(micros in -377_705_000_000_000_000_i64..0, id in any::<u128>()) {
            let cursor = Cursor { at: Timestamp::from_microsecond(micros).unwrap(), id: Uuid::from_u128(id) };
            prop_assert!(Cursor::decode(&cursor.encode()).is_err());
        }

        #[test]
        fn no_text_makes_decoding_panic(text in ".{0,80}") {
            let _ = Cursor::decode(&text);
        }

        #[test]
        fn pages_of_any_size_contain_every_row_once(rows in 0_usize..60, limit in 1_u16..20) {
            let all: Vec<u32> = (0..u32::try_from(rows).unwrap()).rev().collect();
            let cursor = |row: &u32| Cursor { at: Timestamp::from_second(i64::from(*row)).unwrap(), id: Uuid::nil() };
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let request = PageRequest { after, limit };
                let fetched = all.iter().copied()
                    .filter(|row| after.is_none_or(|c: Cursor| i64::from(*row) < c.at.as_second()))
                    .take(usize::try_from(request.fetch()).unwrap()).collect();
                let page = Page::cut(fetched, request, cursor);
                seen.extend(page.items);
                after = page.next;
                if after.is_none() { break }
            }
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(PageRequest::parse(None, None).unwrap().limit, DEFAULT_LIMIT);
        assert_eq!(PageRequest::parse(None, Some(0)).unwrap_err().0, "limit");
        assert_eq!(PageRequest::parse(None, Some(101)).unwrap_err().0, "limit");
        assert_eq!(PageRequest::parse(Some("?"), None).unwrap_err().0, "cursor");
    }
}
