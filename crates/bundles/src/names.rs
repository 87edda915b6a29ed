//! The names of objects in the bucket or folder.
//!
//! Arrives: a hostname or a shard number, or an object name that was listed. Leaves: the other. Goes wrong: an object that is not
//! ours has no hostname and no shard (`None`).

use domains::Hostname;

/// What every edge must know beside the names.
pub const EDGE_SETTINGS_OBJECT: &str = "edge.json";

/// How a wildcard's `*` is written: `*` is awkward in object names, and no hostname contains an underscore.
const WILDCARD: &str = "_wildcard.";

/// Where a hostname's bundle lies: `sites/<hostname>.json`.
pub fn site_object(hostname: &Hostname) -> String {
    match hostname.is_wildcard() {
        true => format!("sites/{WILDCARD}{}.json", hostname.base()),
        false => format!("sites/{hostname}.json"),
    }
}

/// The hostname whose bundle an object holds.
pub fn site_hostname(object: &str) -> Option<Hostname> {
    let name = object.strip_prefix("sites/")?.strip_suffix(".json")?;
    let name = match name.strip_prefix(WILDCARD) {
        Some(base) => format!("*.{base}"),
        None if name.starts_with('*') => return None,
        None => name.to_owned(),
    };
    Hostname::try_from(name).ok()
}

/// Where an index shard lies: `index/<00..ff>.json`.
pub fn index_object(shard: u8) -> String {
    format!("index/{shard:02x}.json")
}

/// The shard an object holds.
pub fn shard_of_object(object: &str) -> Option<u8> {
    let digits = object.strip_prefix("index/")?.strip_suffix(".json")?;
    let shard = u8::from_str_radix(digits, 16).ok()?;
    (index_object(shard) == object).then_some(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_read_back_as_what_they_were_made_from() {
        for name in ["shop.brand.com", "*.brand.com"] {
            let hostname = Hostname::parse_name(name).unwrap();
            assert_eq!(site_hostname(&site_object(&hostname)), Some(hostname));
        }
        assert_eq!(site_object(&Hostname::parse_name("*.brand.com").unwrap()), "sites/_wildcard.brand.com.json");
        for shard in 0..=u8::MAX {
            assert_eq!(shard_of_object(&index_object(shard)), Some(shard));
        }
    }

    #[test]
    fn objects_that_are_not_ours_have_no_meaning() {
        for object in ["sites/*.brand.com.json", "sites/..json", "sites/a/b.com.json", "edge.json", "sites/SHOP.brand.com.json"] {
            assert_eq!(site_hostname(object), None, "{object}");
        }
        for object in ["index/0.json", "index/0A.json", "index/+a.json", "index/100.json", "index/aa.json.tmp"] {
            assert_eq!(shard_of_object(object), None, "{object}");
        }
    }
}
