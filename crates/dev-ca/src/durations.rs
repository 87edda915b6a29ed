//! Durations as people write them: `90d`, `160h`, `3m`, `45s`, `250ms`.
//!
//! Arrives: a word from the command line or a JSON body. Leaves: a [`Duration`]. Goes wrong: [`DurationError`], which shows the word.

use std::time::Duration;

/// A word that is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a duration; write a whole number and a unit: 250ms, 45s, 3m, 160h, 90d")]
pub struct DurationError {
    text: String,
}

/// Parses a whole number followed by `ms`, `s`, `m`, `h` or `d`; a bare number is seconds.
///
/// # Errors
/// [`DurationError`] when `text` is anything else, or too large for a [`Duration`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    number.checked_mul(milliseconds_per_unit).map(Duration::from_millis).ok_or_else(error)
}

/// Writes a duration in the largest unit that needs no fraction, so that [`parse_duration`] reads it back.
pub(crate) fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds > 0 && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// Durations in JSON: written as a word, read as a word or as a number of seconds.
pub(crate) mod as_words {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(u64),
        Word(String),
    }

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
            Written::Word(word) => super::parse_duration(&word).map_err(D::Error::custom),
        }
    }

    /// The same for a field that may be missing.
    pub(crate) mod optional {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer};

        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "super")] Duration);

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(duration)| duration))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written_back() {
        for (text, milliseconds) in [("250ms", 250), ("45s", 45_000), ("3m", 180_000), ("160h", 576_000_000), ("90d", 7_776_000_000)] {
            let parsed = parse_duration(text).expect(text);
            assert_eq!(parsed, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(parse_duration(&format_duration(parsed)), Ok(parsed), "{text}");
        }
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration(&format_duration(Duration::ZERO)), Ok(Duration::ZERO));
    }

    #[test]
    fn words_that_are_no_durations_are_refused_and_shown() {
        for text in ["", "m", "-3m", "3 m", "3y", "1.5h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_duration(text).expect_err(text).to_string().contains(&format!("`{text}`")), "{text}");
        }
    }
}
