//! See `portcullis::fuzz::token`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::token(input));
