//! How much of everything: small by default, the sizes the product promises with `NAMEPLATE_FULL=1`, or those that `NAMEPLATE_SIZES` lists.

use std::env;

/// Whether the full sizes are wanted.
pub fn is_full() -> bool {
    env::var("NAMEPLATE_FULL").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The default size, or the full one.
pub fn size<T>(default: T, full: T) -> T {
    if is_full() { full } else { default }
}

/// The sizes to be compared: the default ones, the full ones, or those of `NAMEPLATE_SIZES`, such as `1000,10000`.
pub fn sizes(default: &[usize], full: &[usize]) -> Vec<usize> {
    match env::var("NAMEPLATE_SIZES") {
        Ok(list) => list.split(',').map(|size| size.trim().parse().expect("NAMEPLATE_SIZES lists whole numbers")).collect(),
        Err(_) => size(default, full).to_vec(),
    }
}
