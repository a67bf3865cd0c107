//! Tests on real processes: the images' own programs, started on loopback. They need root and what `make deps` installs.

mod images;
mod redis_guard;
mod services;
