//! See `portcullis::fuzz::answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::answer(input));
