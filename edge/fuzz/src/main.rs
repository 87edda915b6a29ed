//! Makes up what strangers could send, guided by which code it reaches, and has it judged.
//!
//! Arrives: the target's name in `FUZZ_TARGET`, and libFuzzer's own arguments; `scripts/fuzz` gives both. Leaves: inputs that reach
//! something new, in the corpus folder. Goes wrong: an input that panics, takes too long or too much memory; it is kept as a file.
#![no_main]

use std::sync::LazyLock;

use edge::fuzzing::{Judge, TARGETS};

static JUDGE: LazyLock<Judge> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={wanted}: there are {:?}", TARGETS.map(|(name, _)| name))).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| JUDGE(bytes));
