//! See `portcullis::fuzz::path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::path(input));
