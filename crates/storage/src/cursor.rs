//! Where a page of results ended, in a form nobody is tempted to read.
//!
//! Arrives: the list asked for and the last key shown. Leaves: base64url. Goes wrong: a cursor of another list, or of nobody, which leads
//! nowhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The most results of one page.
pub(crate) const MAX_PAGE: usize = 1_000;

/// The longest cursor that is looked at: two names and a time have room in it.
const MAX_BYTES: usize = 2_048;

#[derive(Serialize, Deserialize)]
struct Cursor<L, K> {
    /// The list it continues.
    list: L,
    /// The last key shown.
    after: K,
}

/// Where to go on.
pub(crate) enum Start<K> {
    /// At the beginning.
    First,
    /// After this key.
    After(K),
    /// Nowhere: the cursor was not made for this list.
    Nowhere,
}

pub(crate) fn encode<L: Serialize, K: Serialize>(list: L, after: K) -> Option<String> {
    serde_json::to_vec(&Cursor { list, after }).ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

pub(crate) fn decode<L: DeserializeOwned + PartialEq, K: DeserializeOwned>(list: &L, cursor: Option<&str>) -> Start<K> {
    let Some(cursor) = cursor else { return Start::First };
    if cursor.len() > MAX_BYTES {
        return Start::Nowhere;
    }
    let read = || serde_json::from_slice::<Cursor<L, K>>(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok();
    read().filter(|cursor| cursor.list == *list).map_or(Start::Nowhere, |cursor| Start::After(cursor.after))
}

/// How many results a page holds when this many were asked for.
pub(crate) fn page_size(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE)
}
