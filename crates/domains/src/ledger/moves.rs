//! The ledger's moves: what is read, decided and written, in one conditional write each.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    BucketShape, Lane,
    bucket::{Bucket, micros, timestamp},
    queue,
};
use crate::{StoreError, TenantId, claim::after};

/// The most items one move reads and writes.
///
/// Source: DynamoDB's TransactWriteItems, 100 actions (docs.aws.amazon.com/amazondynamodb, read 2026-11).
pub const MAX_ITEMS: usize = 100;

/// The longest that a CA's wish to wait is obeyed in one go; a longer one is a mistake of somebody's, and is asked again after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);

/// One token of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The bucket's name.
    pub bucket: String,
    /// Its shape.
    pub shape: BucketShape,
    /// How many tokens must stay for the lanes before this one.
    pub keeps: u32,
    /// How many more must stay for tenants with small backlogs; zero: tenants are not told apart.
    pub reserve: u32,
    /// Whether the token is given back when the order ends without a certificate.
    pub is_returned: bool,
}

/// Everything one attempt needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which attempt it is: a repeat takes none.
    pub attempt: String,
    /// Whose name it is for.
    pub tenant: TenantId,
    /// Whose turn comes first.
    pub lane: Lane,
    /// A token of each.
    pub needs: Vec<Need>,
    /// How long the attempt is remembered: longer than an order can live.
    pub remembered: Duration,
}

/// One move of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerMove {
    /// Takes a token of every bucket, or none and books a slot.
    Reserve(Reservation),
    /// Gives back what an order without a certificate did not use up; once, and only what was taken.
    Release(Reservation),
    /// Lets a bucket give nothing until a moment; a shorter pause never ends a longer one.
    Pause {
        /// The bucket.
        bucket: String,
        /// Until when.
        until: Timestamp,
        /// Why, for people.
        why: String,
    },
}

/// What the ledger answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is done: the tokens are this attempt's.
    Granted,
    /// Not now; none was taken.
    Wait(Wait),
}

/// Why an attempt waits, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The bucket that has its token last.
    pub bucket: String,
    /// When it is this attempt's turn.
    pub until: Timestamp,
    /// The CA's words, when the bucket gives nothing because the CA asked for that.
    pub paused_for: Option<String>,
}

/// One item to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerWrite {
    /// Its name.
    pub name: String,
    /// What it says; opaque to homes.
    pub item: String,
    /// From when on it may be swept: then it says the same as no item.
    pub expires_at: Timestamp,
}

/// The tokens a tenant took or booked, as the moment at which the bucket would have refilled them for it alone.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Debt {
    end: i64,
}

impl Debt {
    fn tokens(self, refill: i64, now: i64) -> u32 {
        let span = self.end.saturating_sub(now).max(0);
        u32::try_from(span.saturating_add(refill - 1) / refill).unwrap_or(u32::MAX)
    }

    fn grown(self, refill: i64, now: i64) -> Self {
        Self { end: self.end.max(now).saturating_add(refill) }
    }
}

/// What the ledger remembers of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Attempt {
    /// It has a slot of `bucket`. It waited for each of `levels`, there at that level, and never waits behind their newcomers again.
    Waiting { bucket: String, slot: i64, levels: BTreeMap<String, usize>, counted: Vec<String> },
    /// It has its tokens, of the buckets in `taken`; `released` once they were given back.
    Granted {
        released: bool,
        #[serde(default)]
        taken: Option<Vec<String>>,
    },
}

/// A need with what was read for it.
struct Read<'r> {
    need: &'r Need,
    bucket: Bucket,
    debt: Option<Debt>,
    level: usize,
    wait: i64,
    /// Whether the attempt waited for this bucket before.
    is_back: bool,
}

impl LedgerMove {
    /// The items to read, in this order; never more than [`MAX_ITEMS`], nor any twice, as long as the needs name different buckets.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Reserve(reservation) | Self::Release(reservation) => {
                let mut names = vec![reservation.attempt_name()];
                for need in &reservation.needs {
                    names.push(need.bucket.clone());
                    if need.reserve > 0 {
                        names.push(reservation.debt_name(need));
                    }
                }
                names
            }
            Self::Pause { bucket, .. } => vec![bucket.clone()],
        }
    }

    /// Decides the move on the items as they were read, in the order of [`names`](Self::names). What is returned is written only if every item
    /// is still as it was read; otherwise all is read and decided anew.
    ///
    /// # Errors
    /// [`StoreError::Defect`] when an item does not read, or the move names too many items or one twice.
    pub fn decide(&self, items: &[Option<String>], now: Timestamp) -> Result<(Reserved, Vec<LedgerWrite>), StoreError> {
        let names = self.names();
        let distinct: BTreeSet<&String> = names.iter().collect();
        if items.len() != names.len() || distinct.len() != names.len() || names.len() > MAX_ITEMS {
            let detail =
                format!("a move of the ledger names {} items, {} of them different, and read {}", names.len(), distinct.len(), items.len());
            return Err(StoreError::Defect { detail });
        }
        match self {
            Self::Reserve(reservation) => reservation.reserve(items, now),
            Self::Release(reservation) => reservation.release(items, now),
            Self::Pause { bucket, until, why } => {
                let mut item: Bucket = read_item(bucket, items[0].as_deref())?.unwrap_or_default();
                let until = micros((*until).min(after(now, LONGEST_PAUSE)));
                if item.paused_until.is_some_and(|known| known >= until) {
                    return Ok((Reserved::Granted, Vec::new()));
                }
                (item.paused_until, item.paused_for) = (Some(until), why.clone());
                Ok((Reserved::Granted, vec![write(bucket, &item, item.idle_from())?]))
            }
        }
    }
}

impl Reservation {
    fn attempt_name(&self) -> String {
        format!("attempt|{}", self.attempt)
    }

    fn debt_name(&self, need: &Need) -> String {
        format!("{}|tenant|{}", need.bucket, self.tenant)
    }

    fn reserve(&self, items: &[Option<String>], now: Timestamp) -> Result<(Reserved, Vec<LedgerWrite>), StoreError> {
        let at = micros(now);
        let (attempt, mut reads) = self.read(items, at)?;
        let (levels, mut counted) = match attempt {
            // It has its tokens; a pause that came since holds for it, too.
            Some(Attempt::Granted { released: false, .. }) => {
                let paused = reads.iter().filter_map(|read| Some((read.bucket.pause(at)?, read))).max_by_key(|(until, _)| *until);
                let answer = paused.map_or(Reserved::Granted, |(until, read)| Reserved::Wait(wait(read, until, at)));
                return Ok((answer, Vec::new()));
            }
            Some(Attempt::Waiting { bucket, slot, levels, counted }) => {
                if at < slot
                    && let Some(read) = reads.iter().find(|read| read.need.bucket == bucket)
                {
                    return Ok((Reserved::Wait(wait(read, slot, at)), Vec::new()));
                }
                (levels, counted)
            }
            // What was given back is somebody else's by now: an attempt that goes on all the same begins anew.
            Some(Attempt::Granted { released: true, .. }) | None => Default::default(),
        };
        for read in &mut reads {
            if let Some(level) = levels.get(&read.need.bucket) {
                (read.is_back, read.level) = (true, read.level.min(*level));
                read.wait = read.bucket.wait(read.need.shape, read.keeps(), at);
            }
        }
        let blocked = reads.iter().enumerate().filter(|(_, read)| read.is_blocked(at));
        match blocked.max_by_key(|(_, read)| read.slot(at)).map(|(index, _)| index) {
            Some(index) => self.book(&mut reads[index], levels, &mut counted, now),
            None => self.grant(reads, &counted, now),
        }
    }

    fn grant(&self, reads: Vec<Read<'_>>, counted: &[String], now: Timestamp) -> Result<(Reserved, Vec<LedgerWrite>), StoreError> {
        let at = micros(now);
        let mut writes = Vec::new();
        for mut read in reads {
            read.bucket.take(read.need.shape, at);
            writes.push(write(&read.need.bucket, &read.bucket, read.bucket.idle_from())?);
            if let Some(debt) = read.debt.filter(|_| !counted.contains(&read.need.bucket)) {
                writes.push(self.write_debt(read.need, debt, at)?);
            }
        }
        let taken = Some(self.needs.iter().map(|need| need.bucket.clone()).collect());
        writes.push(self.write_attempt(&Attempt::Granted { released: false, taken }, now)?);
        Ok((Reserved::Granted, writes))
    }

    fn book(
        &self,
        read: &mut Read<'_>,
        mut levels: BTreeMap<String, usize>,
        counted: &mut Vec<String>,
        now: Timestamp,
    ) -> Result<(Reserved, Vec<LedgerWrite>), StoreError> {
        let (at, refill) = (micros(now), read.need.shape.refill_micros());
        let slot = match read.is_back {
            true => read.bucket.queue.book_again(read.level, read.wait, refill, at),
            false => read.bucket.queue.book(read.level, read.wait, refill, at),
        };
        let mut writes = vec![write(&read.need.bucket, &read.bucket, read.bucket.idle_from())?];
        if let Some(debt) = read.debt.filter(|_| !counted.contains(&read.need.bucket)) {
            writes.push(self.write_debt(read.need, debt, at)?);
            counted.push(read.need.bucket.clone());
        }
        // Woken at the told moment, the clock must have reached the slot: a told moment is a whole number of milliseconds.
        levels.insert(read.need.bucket.clone(), read.level);
        let waiting = Attempt::Waiting { bucket: read.need.bucket.clone(), slot, levels, counted: counted.clone() };
        writes.push(self.write_attempt(&waiting, timestamp(slot).max(now))?);
        Ok((Reserved::Wait(wait(read, slot, at)), writes))
    }

    fn release(&self, items: &[Option<String>], now: Timestamp) -> Result<(Reserved, Vec<LedgerWrite>), StoreError> {
        let at = micros(now);
        let (attempt, reads) = self.read(items, at)?;
        let Some(Attempt::Granted { released: false, taken }) = attempt else { return Ok((Reserved::Granted, Vec::new())) };
        // What the order is counted as may have changed since; nothing is given back that was not taken.
        let is_taken = |need: &Need| taken.as_ref().is_none_or(|taken| taken.contains(&need.bucket));
        let mut writes = vec![self.write_attempt(&Attempt::Granted { released: true, taken: taken.clone() }, now)?];
        for mut read in reads.into_iter().filter(|read| read.need.is_returned && is_taken(read.need)) {
            read.bucket.give_back(read.need.shape, at);
            writes.push(write(&read.need.bucket, &read.bucket, read.bucket.idle_from())?);
        }
        Ok((Reserved::Granted, writes))
    }

    fn read(&self, items: &[Option<String>], now: i64) -> Result<(Option<Attempt>, Vec<Read<'_>>), StoreError> {
        let mut items = items.iter().map(Option::as_deref);
        let attempt = read_item(&self.attempt_name(), items.next().flatten())?;
        let mut reads = Vec::with_capacity(self.needs.len());
        for need in &self.needs {
            let bucket: Bucket = read_item(&need.bucket, items.next().flatten())?.unwrap_or_default();
            let debt: Option<Debt> = match need.reserve {
                0 => None,
                _ => Some(read_item(&self.debt_name(need), items.next().flatten())?.unwrap_or_default()),
            };
            let tokens = debt.map_or(0, |debt| debt.tokens(need.shape.refill_micros(), now));
            let mut read = Read { need, bucket, debt, level: queue::level(self.lane, tokens), wait: 0, is_back: false };
            read.wait = read.bucket.wait(need.shape, read.keeps(), now);
            reads.push(read);
        }
        Ok((attempt, reads))
    }

    fn write_debt(&self, need: &Need, debt: Debt, now: i64) -> Result<LedgerWrite, StoreError> {
        let grown = debt.grown(need.shape.refill_micros(), now);
        write(&self.debt_name(need), &grown, grown.end)
    }

    fn write_attempt(&self, attempt: &Attempt, from: Timestamp) -> Result<LedgerWrite, StoreError> {
        write(&self.attempt_name(), attempt, micros(after(from, self.remembered)))
    }
}

impl Read<'_> {
    fn keeps(&self) -> u32 {
        match queue::is_light(self.level) {
            true => self.need.keeps,
            false => self.need.keeps.saturating_add(self.need.reserve),
        }
    }

    /// Whoever had a slot is next; a newcomer stands behind who waits already.
    fn is_blocked(&self, now: i64) -> bool {
        self.wait > 0 || (!self.is_back && self.bucket.queue.is_ahead_of(self.level, now))
    }

    fn slot(&self, now: i64) -> i64 {
        let refill = self.need.shape.refill_micros();
        match self.is_back {
            true => self.bucket.queue.slot_again(self.level, self.wait, refill, now),
            false => self.bucket.queue.slot(self.level, self.wait, refill, now),
        }
    }
}

fn wait(read: &Read<'_>, slot: i64, now: i64) -> Wait {
    let paused_for = read.bucket.pause(now).map(|_| read.bucket.paused_for.clone());
    Wait { bucket: read.need.bucket.clone(), until: timestamp(slot), paused_for }
}

pub(crate) fn read_item<T: DeserializeOwned>(name: &str, item: Option<&str>) -> Result<Option<T>, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::Defect { detail: format!("the ledger's item {name} does not read: {error}") };
    item.map(|item| serde_json::from_str(item).map_err(unreadable)).transpose()
}

fn write(name: &str, item: &impl Serialize, expires_at: i64) -> Result<LedgerWrite, StoreError> {
    let unwritable =
        |error: serde_json::Error| StoreError::Defect { detail: format!("the ledger's item {name} cannot be written: {error}") };
    let item = serde_json::to_string(item).map_err(unwritable)?;
    Ok(LedgerWrite { name: name.to_owned(), item, expires_at: timestamp(expires_at) })
}
