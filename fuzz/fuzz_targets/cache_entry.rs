#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tanka_fuzz::cache_entry(bytes));
