//! What can go wrong with one request, and where.

use std::fmt;

/// What happens to a request of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The operator dies; the request is never sent.
    CrashBefore,
    /// The operator dies; the request was carried out, the answer reaches nobody.
    CrashAfter,
    /// As `CrashAfter`, and the next operator reads lists from before the change and gets its watches late.
    TimeTravel,
    /// An error, and nothing was carried out.
    ErrorBefore(u16),
    /// An error, although it was carried out.
    ErrorAfter(u16),
    /// The connection breaks before the request is sent.
    ResetBefore,
    /// The connection breaks after it was carried out.
    ResetAfter,
    /// No answer ever comes; nothing was carried out.
    Hang,
    /// The answer comes late.
    Delay,
    /// The answer ends in the middle.
    Truncate,
    /// The answer is older than what is there.
    StaleRead,
    /// From here on nothing can be reached for a while.
    Outage,
}

/// What happens to a running watch of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchFault {
    /// Events come late: the cache is stale meanwhile.
    Stall,
    /// The connection ends.
    Cut,
    /// The version from which is watched has expired.
    Gone,
    /// The stream cannot be read.
    Garbage,
}

/// What happens to the operator's questions to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeFault {
    /// They are never answered.
    Silence,
    /// The answers cannot be read.
    Garbage,
    /// The connections are closed.
    Closed,
}

/// One request among many: the `nth` with this identity since the workload began, from 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// What is asked.
    pub identity: Identity,
    /// Which time.
    pub nth: usize,
}

/// What tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// `get`, `list`, `watch`, `create`, `patch`, `delete`.
    pub verb: &'static str,
    /// Plural of the resource, with the subresource where there is one.
    pub resource: String,
    /// Name of the object; empty for lists, and where names are drawn.
    pub name: String,
}

/// What is done to one run of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Injection {
    /// One request fails.
    Request(Point, Fault),
    /// A watch fails.
    Watch(String, WatchFault),
    /// Questions to pods fail.
    Probe(ProbeFault),
}

impl Injection {
    /// The name of the kind of fault, for tables.
    pub fn kind(&self) -> String {
        match self {
            Self::Request(_, Fault::ErrorBefore(code)) => format!("error {code} before"),
            Self::Request(_, Fault::ErrorAfter(code)) => format!("error {code} after commit"),
            Self::Request(_, fault) => format!("{fault:?}"),
            Self::Watch(_, fault) => format!("watch {fault:?}"),
            Self::Probe(fault) => format!("probe {fault:?}"),
        }
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(Point { identity, nth }, _) => {
                let Identity { verb, resource, name } = identity;
                write!(f, "{} at {verb} {resource}/{name} #{nth}", self.kind())
            }
            Self::Watch(resource, _) => write!(f, "{} of {resource}", self.kind()),
            Self::Probe(_) => write!(f, "{}", self.kind()),
        }
    }
}
