//! The zone as its users hold it: the admin listener, the program that embeds the server, a test.
//!
//! Arrives: records and quirks. Leaves: what is in force from then on. Goes wrong: [`RecordError`], [`EditError`] and [`QuirkError`],
//! with nothing changed; [`SaveError`] when a change is in force but not on disk.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hickory_proto::{op::ResponseCode, rr::RecordType as WireType};
use tokio::sync::watch;

use crate::{
    names::{NameError, parse_name},
    observed::{Observed, Queries, Query, Transport},
    persist::{Progress, SaveError, saved},
    quirks::{Behaviour, Quirk, QuirkError, Quirks, code_name},
    record::{Record, RecordError, RecordType},
    zone::{Answer, Contents, Edit, EditError, Question},
};

/// A handle on the server's records. Clones share them.
///
/// An edit is in force when its method returns; [`Zone::saved`] waits until it survives a crash too.
#[derive(Clone, Debug)]
pub struct Zone {
    contents: Arc<RwLock<Contents>>,
    quirks: Arc<RwLock<Quirks>>,
    observed: Arc<Observed>,
    changed: watch::Sender<u64>,
    /// What is on disk, if there is a file.
    progress: Option<watch::Receiver<Progress>>,
}

impl Zone {
    pub(crate) fn new(contents: Arc<RwLock<Contents>>, changed: watch::Sender<u64>, progress: Option<watch::Receiver<Progress>>) -> Self {
        Self { contents, quirks: Arc::default(), observed: Arc::default(), changed, progress }
    }

    /// Makes these values the only ones of the name and type, with the default TTL; returns them as stored.
    ///
    /// # Errors
    /// [`RecordError`] when the data does not fit its type, or the zone holds data beside which it cannot stand.
    pub fn set(&self, name: &str, record_type: RecordType, data: &[&str]) -> Result<Record, RecordError> {
        self.one(Edit::Set(record(name, record_type, data)))
    }

    /// Adds values to those of the name and type; returns all of them.
    ///
    /// # Errors
    /// As [`Zone::set`].
    pub fn add(&self, name: &str, record_type: RecordType, data: &[&str]) -> Result<Record, RecordError> {
        self.one(Edit::Add(record(name, record_type, data)))
    }

    /// Sets many records at once: all, or none if one is refused.
    ///
    /// # Errors
    /// [`EditError`] with the first record that was refused.
    pub fn set_all(&self, records: Vec<Record>) -> Result<Vec<Record>, EditError> {
        self.edit(records.into_iter().map(Edit::Set).collect())
    }

    /// Adds the values of many records at once: all, or none if one is refused.
    ///
    /// # Errors
    /// [`EditError`] with the first record that was refused.
    pub fn add_all(&self, records: Vec<Record>) -> Result<Vec<Record>, EditError> {
        self.edit(records.into_iter().map(Edit::Add).collect())
    }

    /// Removes a name's records of one type, or all; returns what they were, which may be nothing.
    ///
    /// # Errors
    /// [`RecordError::Name`] when the name is none.
    pub fn unset(&self, name: &str, record_type: Option<RecordType>) -> Result<Vec<Record>, RecordError> {
        let name = parse_name(name)?;
        let mut contents = self.write();
        let gone = contents.remove(&name, record_type);
        self.tell(contents);
        Ok(gone)
    }

    /// Returns every record stored, ordered by name from the root down. What the server makes up is not among them.
    pub fn list(&self) -> Vec<Record> {
        let sets = self.read().sets();
        sets.iter().map(|(name, set)| set.to_record(name)).collect()
    }

    /// Returns the records of one name.
    ///
    /// # Errors
    /// [`RecordError::Name`] when the name is none.
    pub fn list_name(&self, name: &str) -> Result<Vec<Record>, RecordError> {
        Ok(self.read().sets_of(&parse_name(name)?))
    }

    /// Waits until every change so far survives a crash; at once when the server has no file.
    ///
    /// # Errors
    /// [`SaveError`] when the disk refuses; the change stays in force and the write is tried again.
    pub async fn saved(&self) -> Result<(), SaveError> {
        let newest = self.read().changes();
        match &self.progress {
            Some(progress) => saved(progress.clone(), newest).await,
            None => Ok(()),
        }
    }

    /// Puts a quirk in force, instead of an earlier one for the same name and type.
    ///
    /// # Errors
    /// [`QuirkError`] when it asks for nothing, or for something that cannot be done.
    pub fn quirk(&self, quirk: Quirk) -> Result<Quirk, QuirkError> {
        self.quirks.write().unwrap_or_else(PoisonError::into_inner).put(quirk)
    }

    /// Returns the quirks in force.
    pub fn quirks(&self) -> Vec<Quirk> {
        self.quirks.read().unwrap_or_else(PoisonError::into_inner).list()
    }

    /// Ends the quirks of one name, or all; returns how many that were.
    ///
    /// # Errors
    /// [`NameError`] when the name is none.
    pub fn clear_quirks(&self, name: Option<&str>) -> Result<usize, NameError> {
        let name = name.map(parse_name).transpose()?;
        Ok(self.quirks.write().unwrap_or_else(PoisonError::into_inner).clear(name.as_ref()))
    }

    /// Returns the last questions and the counts of all.
    pub fn queries(&self) -> Queries {
        self.observed.queries(|_| true)
    }

    /// Returns the last questions for one name, in whatever letters they were asked, and the counts of all.
    pub fn queries_for(&self, name: &str) -> Queries {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.observed.queries(|query| query.name.eq_ignore_ascii_case(name))
    }

    /// Answers a question, finds the quirk on its way, and takes note of it.
    pub(crate) fn consider(&self, question: &Question, transport: Transport) -> (Answer, Option<Behaviour>) {
        let mut answer = self.read().answer(question);
        let Question { name, record_type, recursion_desired, checking_disabled } = question;
        let quirk = self.quirks.read().unwrap_or_else(PoisonError::into_inner).met(name, *record_type, &answer.answers);
        if let Some(quirk) = &quirk {
            answer = match (quirk.code, &quirk.answer) {
                (Some(code), _) => Answer { authoritative: answer.authoritative, ..Answer::bare(code) },
                (None, _) if quirk.bogus && *recursion_desired && !checking_disabled => Answer::bare(ResponseCode::ServFail),
                (None, _) if quirk.lame && !recursion_desired => Answer::bare(ResponseCode::NoError),
                (None, Some(records)) => Answer { authoritative: true, answers: records.to_vec(), ..Answer::bare(ResponseCode::NoError) },
                (None, None) => answer,
            };
        }
        self.observed.note(Query {
            number: 0,
            name: crate::names::shown(name),
            record_type: WireType::to_string(record_type),
            transport,
            recursion_desired: *recursion_desired,
            rcode: code_name(answer.code),
            dropped: quirk.as_ref().is_some_and(|quirk| quirk.drop),
        });
        (answer, quirk)
    }

    fn one(&self, edit: Edit) -> Result<Record, RecordError> {
        let stored = self.edit(vec![edit]).map_err(|refused| refused.error)?;
        Ok(stored.into_iter().next().expect("one edit was done, so one record came back"))
    }

    fn edit(&self, edits: Vec<Edit>) -> Result<Vec<Record>, EditError> {
        let mut contents = self.write();
        let stored = contents.edit(&edits)?;
        self.tell(contents);
        Ok(stored)
    }

    /// Wakes the keeper, while the lock still orders this change after the one before.
    fn tell(&self, contents: RwLockWriteGuard<'_, Contents>) {
        self.changed.send_replace(contents.changes());
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        // Edits undo themselves before they return, so a panic elsewhere leaves nothing half done behind this lock.
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(name: &str, record_type: RecordType, data: &[&str]) -> Record {
    Record { name: name.to_owned(), record_type, ttl: None, data: data.iter().map(|&text| text.to_owned()).collect() }
}
