//! Search of memories: by words, and by meaning where an endpoint for embeddings is configured. Both are exact: a person's own rows are
//! read by their index, so nobody's result is short because others have more rows. Only somebody with very many vectors is searched by
//! meaning through an approximate index, whose recall is measured, and which is passed over where it finds too few.

pub mod approximate;
pub mod endpoint;
pub mod fuse;
pub mod recalls;
pub mod tending;
pub mod worker;
