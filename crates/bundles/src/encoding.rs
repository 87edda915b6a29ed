//! How bytes are written inside JSON: digests as hex, everything else as base64.
//!
//! Arrives: bytes, or text from a stranger's JSON. Leaves: the other. Goes wrong: a serde error that names the rule, never the bytes.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::{BundleError, FORMAT};

/// A SHA-256 digest, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "hex32")] [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads an object of this format: its size first, then its format number, then the rest.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8], limit: usize) -> Result<T, BundleError> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default)]
        format: u64,
    }
    if bytes.len() > limit {
        return Err(BundleError::TooLarge { bytes: bytes.len(), limit });
    }
    // serde would read a struct from an array as well; two spellings of one object are one too many.
    if bytes.trim_ascii_start().first().is_some_and(|&first| first != b'{') {
        return Err(BundleError::NotJson(serde_json::Error::custom("a JSON object was expected")));
    }
    let header: Header = serde_json::from_slice(bytes).map_err(|error| not_json(error, bytes))?;
    if header.format != u64::from(FORMAT) {
        return Err(BundleError::Format { found: header.format });
    }
    serde_json::from_slice(bytes).map_err(|error| not_json(error, bytes))
}

fn not_json(error: serde_json::Error, bytes: &[u8]) -> BundleError {
    if error.is_eof() { BundleError::Truncated { bytes: bytes.len() } } else { BundleError::NotJson(error) }
}

/// Writes an object; the same object is always the same bytes.
pub(crate) fn write(object: &impl Serialize) -> Vec<u8> {
    // Every object here is made of strings, numbers and string-keyed maps, which serde_json always can write.
    serde_json::to_vec(object).expect("objects of this format have only string keys")
}

/// `[u8; 32]` as hex, for `#[serde(with)]`.
pub(crate) mod hex32 {
    use super::*;
    use serde::de::Visitor;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Digest(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        deserializer.deserialize_str(Hex)
    }

    /// Reads digits where they lie: an index has one digest a name.
    struct Hex;

    impl Visitor<'_> for Hex {
        type Value = [u8; 32];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a digest of 64 lower-case hex digits")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse(text).ok_or_else(|| E::custom("a digest is 64 lower-case hex digits"))
        }
    }

    fn parse(text: &str) -> Option<[u8; 32]> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(bytes)
    }

    fn nibble(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
}

/// Bytes as standard base64, for `#[serde(with)]`.
pub(crate) mod base64_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        // Wiped, because the text may be a secret's.
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        STANDARD.decode(text.as_bytes()).map_err(|_| D::Error::custom("standard base64 was expected"))
    }
}

/// Secret bytes as standard base64, for `#[serde(with)]`: every copy made on the way is wiped.
pub(crate) mod secret_bytes {
    use super::*;
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(bytes: &Zeroizing<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(bytes.as_slice())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        base64_bytes::deserialize(deserializer).map(Zeroizing::new)
    }
}
