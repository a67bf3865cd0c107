//! Which PostgreSQL instance serves an operation. Every instance is probed by this process itself, so a failover
//! needs no change of configuration. Reading and writing are different types; a read cannot write.

pub mod choose;
pub mod fleet;
pub mod instance;
pub mod operation;
pub mod position;
pub mod probe;
pub mod retry;
pub mod session;
pub mod statement;

pub use fleet::Fleet;
pub use operation::{
    Idempotency, Read, ReadHandle, Scope, Served, StoreError, Write, WriteHandle, Written, is_busy,
};
pub use position::Position;
