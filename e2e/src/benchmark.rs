//! What the benchmarks of the API share: the program that is measured, its processes, and the table of what was found.

pub mod exposition;
pub mod floor;
pub mod program;
pub mod report;
pub mod server;
pub mod steal;
pub mod venv;
