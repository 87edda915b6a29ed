//! The ledger of a CA's limits: its moves on the second table.
//!
//! Arrives: a [`LedgerMove`]. Leaves: its answer, with what it decided written by one `TransactWriteItems` that holds every item read to what
//! was read. Goes wrong: others are first, each time; that is unavailable, because the last try may have been written.
//!
//! What was read is told by its whole text: a move is decided on texts alone, so an item that changed and changed back decides the same.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, KeysAndAttributes, Put, TransactWriteItem};
use domains::{
    CommitError, LedgerMove, Reserved, StoreError, Timestamp,
    ledger::{LedgerWrite, MAX_ITEMS},
};
use sha2::{Digest, Sha256};

use super::{
    AwsHome, failure,
    items::{Item, attribute, number, text},
    second_table::{SOLE, expiry},
    table::{Transacted, unbuildable},
};

/// How often a move is decided anew in all when others changed what it read.
const TRIES: u32 = 16;
/// How long the pause after the first try is at most; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// Room for fifty that move one bucket at the same moment, each for about 20 ms.
const LONGEST_PAUSE: Duration = Duration::from_millis(1_600);
/// How often items are asked for that DynamoDB left out of its answer.
const LOOKS: u32 = 6;

/// The attribute with what an item says.
const SAYS: &str = "item";

/// An item as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Absent,
    /// Its time has passed: it says the same as none, and may be swept at any moment.
    Expired(String),
    Live(String),
}

impl Seen {
    fn of(name: &str, item: Option<&Item>, now: Timestamp) -> Result<Self, StoreError> {
        let Some(item) = item else { return Ok(Self::Absent) };
        let unreadable = || StoreError::Defect { detail: format!("the ledger's item {name} does not read") };
        let says = attribute(item, SAYS).ok_or_else(unreadable)?.to_owned();
        let expires_at: Option<i64> = item.get("expires_at").and_then(|value| value.as_n().ok()?.parse().ok());
        match expires_at.ok_or_else(unreadable)? < now.as_second() {
            true => Ok(Self::Expired(says)),
            false => Ok(Self::Live(says)),
        }
    }

    fn says(&self) -> Option<String> {
        match self {
            Self::Live(says) => Some(says.clone()),
            Self::Absent | Self::Expired(_) => None,
        }
    }

    /// The condition that the item is as it was read, and the text it compares.
    fn unchanged(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Absent => ("attribute_not_exists(pk)", None),
            Self::Expired(says) => ("#says = :says OR attribute_not_exists(pk)", Some(says)),
            Self::Live(says) => ("#says = :says", Some(says)),
        }
    }
}

impl AwsHome {
    pub(super) async fn move_ledger(&self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError> {
        let names = entry.names();
        let mut met = String::new();
        for tried in 0..TRIES {
            if tried > 0 {
                tokio::time::sleep(pause(&names, tried)).await;
            }
            let items = self.ledger_read(&names).await?;
            let seen = names.iter().map(|name| Seen::of(name, items.get(name), now)).collect::<Result<Vec<_>, _>>()?;
            let says: Vec<Option<String>> = seen.iter().map(Seen::says).collect();
            let (answer, writes) = entry.decide(&says, now)?;
            // An answer that changes nothing is about items as they were when they were read, each for itself.
            if writes.is_empty() {
                return Ok(answer);
            }
            match self.transact(parts(&self.0.places.second_table, &names, &seen, writes)?).await {
                Transacted::Ended(Ok(())) => return Ok(answer),
                Transacted::Ended(Err(CommitError::Conflict)) => "an item changed".clone_into(&mut met),
                Transacted::Ended(Err(CommitError::Store(error))) => return Err(error),
                Transacted::Met(detail) => met = detail,
            }
        }
        Err(StoreError::Unavailable { detail: format!("the ledger changed under {TRIES} tries of a move of {}: {met}", names.join(", ")) })
    }

    /// What the ledger's items say, in the order of their names.
    pub(super) async fn ledger_says(&self, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let items = self.ledger_read(names).await?;
        let now = self.0.clock.now();
        names.iter().map(|name| Ok(Seen::of(name, items.get(name), now)?.says())).collect()
    }

    /// The items that exist, by name. What DynamoDB leaves out of an answer is asked for again, and never taken for absent.
    async fn ledger_read(&self, names: &[String]) -> Result<HashMap<String, Item>, StoreError> {
        if names.len() > MAX_ITEMS {
            return Err(StoreError::Defect { detail: format!("{} items of the ledger are asked for at once", names.len()) });
        }
        let mut items = HashMap::new();
        let mut distinct: Vec<&String> = names.iter().collect();
        distinct.sort();
        distinct.dedup();
        let mut left: Vec<Item> = distinct.into_iter().map(|name| key(name)).collect();
        for looked in 0..LOOKS {
            if left.is_empty() {
                return Ok(items);
            }
            if looked > 0 {
                tokio::time::sleep(widest(looked)).await;
            }
            let (found, unprocessed) = self.look(left).await?;
            items.extend(found.into_iter().filter_map(|item| Some((attribute(&item, "pk")?.strip_prefix(PREFIX)?.to_owned(), item))));
            left = unprocessed;
        }
        match left.is_empty() {
            true => Ok(items),
            false => Err(StoreError::Unavailable { detail: format!("reading the ledger: {} items were not answered for", left.len()) }),
        }
    }

    async fn look(&self, keys: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), StoreError> {
        let table = &self.0.places.second_table;
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().map_err(unbuildable)?;
        let asked = self.0.dynamo.batch_get_item().request_items(table, wanted).send().await;
        let answer = asked.map_err(|error| failure::classify("reading the ledger", &error))?;
        let found = answer.responses.and_then(|mut tables| tables.remove(table)).unwrap_or_default();
        let left = answer.unprocessed_keys.and_then(|mut tables| tables.remove(table)).map(|left| left.keys).unwrap_or_default();
        Ok((found, left))
    }
}

/// A transaction's parts: a put for each item written, a check for each that was only read, all on condition that it is as it was read.
fn parts(table: &str, names: &[String], seen: &[Seen], writes: Vec<LedgerWrite>) -> Result<Vec<TransactWriteItem>, StoreError> {
    let mut writes: HashMap<String, LedgerWrite> = writes.into_iter().map(|write| (write.name.clone(), write)).collect();
    let mut parts = Vec::with_capacity(names.len());
    for (name, seen) in names.iter().zip(seen) {
        parts.push(part(table, name, seen, writes.remove(name))?);
    }
    match writes.keys().next() {
        None => Ok(parts),
        Some(name) => Err(StoreError::Defect { detail: format!("a move of the ledger writes {name} without having read it") }),
    }
}

fn part(table: &str, name: &str, seen: &Seen, write: Option<LedgerWrite>) -> Result<TransactWriteItem, StoreError> {
    let (condition, says) = seen.unchanged();
    let names = says.map(|_| HashMap::from([("#says".to_owned(), SAYS.to_owned())]));
    let values: Option<HashMap<String, AttributeValue>> = says.map(|says| HashMap::from([(":says".to_owned(), text(says))]));
    let part = TransactWriteItem::builder();
    let Some(write) = write else {
        let check = ConditionCheck::builder().table_name(table).set_key(Some(key(name))).condition_expression(condition);
        let check = check.set_expression_attribute_names(names).set_expression_attribute_values(values);
        return Ok(part.condition_check(check.build().map_err(unbuildable)?).build());
    };
    let mut item = key(name);
    item.insert(SAYS.to_owned(), text(write.item));
    item.insert("expires_at".to_owned(), number(expiry(write.expires_at.as_microsecond())));
    let put = Put::builder().table_name(table).set_item(Some(item)).condition_expression(condition);
    let put = put.set_expression_attribute_names(names).set_expression_attribute_values(values);
    Ok(part.put(put.build().map_err(unbuildable)?).build())
}

/// What the keys of the ledger's items begin with.
const PREFIX: &str = "ledger#";

fn key(name: &str) -> Item {
    HashMap::from([("pk".to_owned(), text(format!("{PREFIX}{name}"))), ("sk".to_owned(), text(SOLE))])
}

/// The longest pause after so many tries.
fn widest(tried: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tried.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// The pause after so many tries: a share of the longest that differs from attempt to attempt and from try to try, so that those who met do
/// not meet again.
fn pause(names: &[String], tried: u32) -> Duration {
    let digest = Sha256::new_with_prefix(names.join("\n")).chain_update(tried.to_be_bytes()).finalize();
    widest(tried).mul_f64(f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_among_attempts_and_are_bounded() {
        let pauses = |attempt: &str| -> Vec<Duration> { (1..TRIES).map(|tried| pause(&[attempt.to_owned()], tried)).collect() };
        let (one, two) = (pauses("attempt|one"), pauses("attempt|two"));
        assert!(one.iter().zip(&two).all(|(one, two)| one != two), "{one:?} {two:?}");
        for pauses in [one, two] {
            assert!(pauses.iter().zip(1..).all(|(pause, tried)| *pause <= widest(tried) && *pause <= LONGEST_PAUSE), "{pauses:?}");
        }
        assert_eq!((widest(1), widest(2), widest(7), widest(u32::MAX)), (FIRST_PAUSE, FIRST_PAUSE * 2, LONGEST_PAUSE, LONGEST_PAUSE));
    }

    #[test]
    fn an_item_past_its_time_says_nothing_and_one_without_a_time_is_a_defect() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let item = |expires_at: i64| HashMap::from([(SAYS.to_owned(), text("{}")), ("expires_at".to_owned(), number(expires_at))]);
        assert_eq!(Seen::of("b", None, now).unwrap(), Seen::Absent);
        assert_eq!(Seen::of("b", Some(&item(now.as_second())), now).unwrap().says().as_deref(), Some("{}"));
        let expired = Seen::of("b", Some(&item(now.as_second() - 1)), now).unwrap();
        assert_eq!((expired.says(), expired), (None, Seen::Expired("{}".to_owned())));
        for missing in [SAYS, "expires_at"] {
            let mut item = item(now.as_second());
            item.remove(missing);
            assert!(matches!(Seen::of("b", Some(&item), now), Err(StoreError::Defect { .. })), "without {missing}");
        }
    }
    #[test]
    fn every_item_read_is_held_to_what_was_read_whether_written_or_not() {
        let names: Vec<String> = ["written", "new", "read", "absent", "expired"].map(str::to_owned).to_vec();
        let live = |says: &str| Seen::Live(says.to_owned());
        let seen = [live("1"), Seen::Absent, live("2"), Seen::Absent, Seen::Expired("3".to_owned())];
        let write = |name: &str| LedgerWrite { name: name.to_owned(), item: "4".to_owned(), expires_at: Timestamp::UNIX_EPOCH };
        let told = parts("t", &names, &seen, vec![write("new"), write("written")]).unwrap();
        let says = |values: Option<&HashMap<String, AttributeValue>>| values.map(|values| values[":says"].as_s().unwrap().clone());
        let told: Vec<_> = told
            .iter()
            .map(|part| match (part.put(), part.condition_check()) {
                (Some(put), None) => ("put", put.condition_expression().unwrap(), says(put.expression_attribute_values())),
                (None, Some(check)) => ("check", check.condition_expression(), says(check.expression_attribute_values())),
                _ => panic!("neither a put nor a check: {part:?}"),
            })
            .collect();
        let same = "#says = :says";
        let expected = [
            ("put", same, Some("1".to_owned())),
            ("put", "attribute_not_exists(pk)", None),
            ("check", same, Some("2".to_owned())),
            ("check", "attribute_not_exists(pk)", None),
            ("check", "#says = :says OR attribute_not_exists(pk)", Some("3".to_owned())),
        ];
        assert_eq!(told, expected);
        assert!(matches!(parts("t", &names, &seen, vec![write("unread")]), Err(StoreError::Defect { .. })));
    }
}
