//! See `portcullis::fuzz::range`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::range(input));
