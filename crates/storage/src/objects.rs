//! Which names an object of the bucket may have.
//!
//! Arrives: a name such as `sites/shop.brand.com.json`. Leaves: nothing, when it is fine in every home. Goes wrong: a name that would mean
//! something else in a folder or in a bucket is a defect of ours.

use domains::StoreError;

/// The longest name a folder can hold between two slashes.
///
/// Source: `NAME_MAX`, limits.h(0p).
const MAX_SEGMENT_BYTES: usize = 255;

/// Refuses a name that leaves its folder, hides in it, or that some home could not store.
///
/// # Errors
/// [`StoreError::Defect`] with the name.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let segment = |part: &str| !part.is_empty() && part.len() <= MAX_SEGMENT_BYTES && !part.starts_with('.') && part.bytes().all(plain);
    match name.split('/').count() <= 2 && name.split('/').all(segment) {
        true => Ok(()),
        false => Err(StoreError::Defect {
            detail: format!(
                "`{}` cannot name an object: lower-case letters, digits, `-`, `_`, `.` and at most one `/`",
                name.escape_debug()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_bucket_are_accepted() {
        for name in ["sites/shop.brand.com.json", "sites/_wildcard.brand.com.json", "index/ab.json", "edge.json", "wellknown.json"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        assert!(check_name(&format!("sites/{}.json", "a".repeat(250))).is_ok());
    }

    #[test]
    fn a_name_that_leaves_its_folder_is_refused() {
        for name in
            ["", "/etc/passwd", "../x", "sites/../x", "sites/..", "sites//x", "sites/.x", "a/b/c", "sites/", "a\\b", "a\0b", "Ä", "A"]
        {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&format!("sites/{}", "a".repeat(256))).is_err());
    }
}
