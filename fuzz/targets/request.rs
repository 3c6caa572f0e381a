//! See `portcullis::fuzz::request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::request(input));
