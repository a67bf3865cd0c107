//! The contract as others see it: the installed schema and the rules in it.

mod cel;
mod schema;
