//! Search of memories: by words, and by meaning where an endpoint for embeddings is configured. Both are exact: a person's own rows are
//! read by their index, so nobody's result is short because others have more rows.

pub mod endpoint;
pub mod fuse;
pub mod worker;
