//! See `portcullis::fuzz::preamble`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::preamble(input));
