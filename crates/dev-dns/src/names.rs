//! Names as people write them and as the zone is ordered by.
//!
//! Arrives: text, or a name from a query. Leaves: a wire name, or a [`Key`]. Goes wrong: [`NameError`], with what to write instead.

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// The most bytes one label has. Source: RFC 1035, section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;
/// The most characters a name has in text without its final dot: 255 bytes on the wire. Source: RFC 1035, section 2.3.4.
const MAX_NAME_CHARACTERS: usize = 253;

/// Why a text is no name this server stores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing, or only the root.
    #[error("the name is empty; write a name such as shop.brand.test")]
    Empty,
    /// Two dots in a row, or one in front.
    #[error("`{0}` has an empty label; labels are separated by single dots")]
    EmptyLabel(String),
    /// A label over the limit of DNS.
    #[error("`{name}` has a label of {length} bytes; a label has at most {MAX_LABEL_BYTES}")]
    LabelTooLong {
        /// The name.
        name: String,
        /// How long the label is.
        length: usize,
    },
    /// A name over the limit of DNS.
    #[error("the name has {0} characters; a name has at most {MAX_NAME_CHARACTERS}")]
    TooLong(usize),
    /// A character that hostnames, service labels and wildcards do not have.
    #[error("`{name}` contains {character:?}; names have letters, digits, `-`, `_` and `*` as a whole label (international ones as xn--…)")]
    Character {
        /// The name.
        name: String,
        /// The first character that does not belong there.
        character: char,
    },
    /// An address in the place of a name.
    #[error("`{0}` is an IP address where a name is needed")]
    Address(String),
}

/// A name's place in the zone: lower-case labels from the root down, each behind its length.
///
/// Everything below a name starts with that name's key, so one step in an ordered map tells whether a name exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Key {
    pub(crate) fn of(name: &Name) -> Self {
        let mut key = Self { bytes: Vec::with_capacity(64), ends: Vec::with_capacity(8) };
        for label in name.iter().rev() {
            // A label has at most 63 bytes, by the wire format and by every constructor of `Name`.
            key.bytes.push(label.len() as u8);
            key.bytes.extend(label.iter().map(u8::to_ascii_lowercase));
            key.ends.push(key.bytes.len());
        }
        key
    }

    /// The key of the name itself.
    pub(crate) fn full(&self) -> &[u8] {
        &self.bytes
    }

    /// How many labels the name has.
    pub(crate) fn labels(&self) -> usize {
        self.ends.len()
    }

    /// The key of the ancestor with that many labels; the root's is empty.
    pub(crate) fn ancestor(&self, labels: usize) -> &[u8] {
        match labels {
            0 => &[],
            labels => &self.bytes[..self.ends[labels - 1]],
        }
    }
}

/// Returns the key of the wildcard directly below `encloser`.
pub(crate) fn wildcard_below(encloser: &[u8]) -> Vec<u8> {
    [encloser, &[1, b'*']].concat()
}

/// Reads a name; it is absolute with and without its final dot.
///
/// # Errors
/// One [`NameError`] a rule.
pub(crate) fn parse_name(text: &str) -> Result<Name, NameError> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.is_empty() {
        return Err(NameError::Empty);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(NameError::Address(text.to_owned()));
    }
    if bare.len() > MAX_NAME_CHARACTERS {
        return Err(NameError::TooLong(bare.len()));
    }
    for label in bare.split('.') {
        check_label(text, label)?;
    }
    Name::from_labels(bare.split('.').map(str::as_bytes)).map_err(|_| NameError::TooLong(bare.len()))
}

fn check_label(name: &str, label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel(name.to_owned()));
    }
    if label.len() > MAX_LABEL_BYTES {
        return Err(NameError::LabelTooLong { name: name.to_owned(), length: label.len() });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || label == "*";
    match label.chars().find(|c| !allowed(c)) {
        Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

/// Writes a name as people do: without the final dot, except for the root.
pub(crate) fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(bare) => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_a_name_starts_with_its_key_and_a_namesake_does_not() {
        let key = |text| Key::of(&parse_name(text).unwrap());
        assert!(key("a.B.test").full().starts_with(key("b.TEST.").full()));
        assert!(!key("ab.test").full().starts_with(key("b.test").full()));
        assert!(!key("a.bb.test").full().starts_with(key("b.test").full()));
        assert_eq!(key("x.y.test").ancestor(2), key("y.test").full());
    }

    #[test]
    fn a_name_that_dns_cannot_carry_is_refused_with_the_rule_it_breaks() {
        let long_label = format!("{}.test", "a".repeat(64));
        let long_name = vec!["a".repeat(50); 5].join(".");
        assert_eq!(parse_name("."), Err(NameError::Empty));
        assert_eq!(parse_name("a..test"), Err(NameError::EmptyLabel("a..test".into())));
        assert_eq!(parse_name(&long_label), Err(NameError::LabelTooLong { name: long_label.clone(), length: 64 }));
        assert_eq!(parse_name(&long_name), Err(NameError::TooLong(254)));
        assert_eq!(parse_name("10.0.0.1"), Err(NameError::Address("10.0.0.1".into())));
        for (name, character) in [("https://a.test", ':'), ("bücher.test", 'ü'), ("a*.test", '*'), ("a b.test", ' ')] {
            assert_eq!(parse_name(name), Err(NameError::Character { name: name.into(), character }));
        }
        assert_eq!(shown(&parse_name("_acme-challenge.*.Test.").unwrap()), "_acme-challenge.*.Test");
    }
}
