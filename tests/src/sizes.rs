//! How much of everything: small by default, the sizes the product promises with `NAMEPLATE_FULL=1`.

use std::env;

/// Whether the full sizes are wanted.
pub fn is_full() -> bool {
    env::var("NAMEPLATE_FULL").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The default size, or the full one.
pub fn size<T>(default: T, full: T) -> T {
    if is_full() { full } else { default }
}
