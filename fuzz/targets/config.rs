//! See `portcullis::fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::config(input));
