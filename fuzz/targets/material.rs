//! See `portcullis::fuzz::material`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::material(input));
