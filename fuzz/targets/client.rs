//! See `portcullis::fuzz::client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::client(input));
