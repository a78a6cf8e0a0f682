#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::p2p_control::run(data));
