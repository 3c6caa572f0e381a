//! See `portcullis::fuzz::ticket`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::fuzz::ticket(input));
