//! Accounts: who may order, kept over restarts.
//!
//! Arrives: a verified key with its contacts. Leaves: an [`Account`] under an id that a restart does not change. Goes wrong: a file that
//! does not parse at start, or a disk that does not take the change (the client is told `serverInternal`, and trying again is safe).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::ParsedPublicKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, Readers};
use crate::jws::Jwk;
use crate::lock;
use crate::problem::{Kind, Problem};

const FILE: &str = "accounts.json";
/// As many contacts as one account may name. Source: Let's Encrypt takes 10.
const MOST_CONTACTS: usize = 10;

/// The accounts file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file could not be read or written.
    #[error("the accounts file")]
    File(#[from] FileError),
    /// The file is there but does not parse.
    #[error("{} does not parse; repair it, or remove it to forget all accounts", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A stored key is no usable key.
    #[error("{} holds an unusable key for account {account}", path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// Whose key.
        account: String,
    },
}

/// Whether an account may still act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Valid,
    Deactivated,
}

/// One account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) jwk: Jwk,
    pub(crate) contact: Vec<String>,
    pub(crate) status: Status,
    pub(crate) created_at: Timestamp,
}

struct Entry {
    account: Account,
    key: Arc<ParsedPublicKey>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<String, Entry>,
    id_by_thumbprint: HashMap<String, String>,
}

/// All accounts of this CA.
pub(crate) struct Accounts {
    kept: Arc<Kept>,
}

struct Kept {
    table: Mutex<Table>,
    file: Option<PathBuf>,
    unsaved: AtomicBool,
    /// Held while writing: one writer at a time.
    saving: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    accounts: Vec<Account>,
}

impl Accounts {
    /// Reads the accounts kept in `folder`; without a folder they live as long as the process.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, AccountsError> {
        let mut table = Table::default();
        let file = folder.map(|folder| folder.join(FILE));
        if let Some(path) = &file
            && let Some(text) = files::read_if_there(path)?
        {
            let stored: Stored = serde_json::from_str(&text).map_err(|source| AccountsError::Corrupt { path: path.clone(), source })?;
            for account in stored.accounts {
                let key = account.jwk.parse().map_err(|_| AccountsError::BadKey { path: path.clone(), account: account.id.clone() })?;
                table.insert(account, key);
            }
        }
        let kept = Kept { table: Mutex::new(table), file, unsaved: AtomicBool::new(false), saving: Mutex::new(()) };
        Ok(Self { kept: Arc::new(kept) })
    }

    pub(crate) fn by_key(&self, jwk: &Jwk) -> Option<Account> {
        let table = lock(&self.kept.table);
        let id = table.id_by_thumbprint.get(&jwk.thumbprint())?;
        table.by_id.get(id).map(|entry| entry.account.clone())
    }

    /// The account and its key, ready to verify with.
    pub(crate) fn by_id(&self, id: &str) -> Option<(Account, Arc<ParsedPublicKey>)> {
        lock(&self.kept.table).by_id.get(id).map(|entry| (entry.account.clone(), entry.key.clone()))
    }

    /// Adds an account under `id` unless its key has one already; returns that account and whether it is new.
    pub(crate) fn create(&self, id: String, jwk: Jwk, contact: Vec<String>, now: Timestamp) -> Result<(Account, bool), Problem> {
        check_contacts(&contact)?;
        let key = jwk.parse()?;
        let mut table = lock(&self.kept.table);
        let existing = table.id_by_thumbprint.get(&jwk.thumbprint()).and_then(|id| table.by_id.get(id));
        if let Some(entry) = existing {
            return Ok((entry.account.clone(), false));
        }
        let account = Account { id, jwk, contact, status: Status::Valid, created_at: now };
        table.insert(account.clone(), key);
        self.kept.unsaved.store(true, Ordering::Release);
        Ok((account, true))
    }

    /// Changes an account's contacts or closes it; returns it as it is now.
    pub(crate) fn change(&self, id: &str, contact: Option<Vec<String>>, deactivate: bool) -> Result<Account, Problem> {
        if let Some(contact) = &contact {
            check_contacts(contact)?;
        }
        let mut table = lock(&self.kept.table);
        let entry = table.by_id.get_mut(id).ok_or_else(|| Problem::new(Kind::AccountDoesNotExist, "no such account"))?;
        if let Some(contact) = contact {
            entry.account.contact = contact;
        }
        if deactivate {
            entry.account.status = Status::Deactivated;
        }
        self.kept.unsaved.store(true, Ordering::Release);
        Ok(entry.account.clone())
    }

    /// Brings every change to disk; a change that failed to be saved is saved by the next caller.
    ///
    /// # Cancel safety
    /// Once begun, saving goes on even when nobody waits for it any more.
    pub(crate) async fn save(&self) -> Result<(), Problem> {
        if self.kept.file.is_none() {
            return Ok(());
        }
        let kept = Arc::clone(&self.kept);
        let failure = match tokio::task::spawn_blocking(move || kept.save()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => crate::error_chain(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(error = failure, "accounts not saved");
        Err(Problem::new(Kind::ServerInternal, "the account could not be saved; try again"))
    }
}

impl Kept {
    /// Writes the file unless whoever wrote it last took this change along.
    fn save(&self) -> Result<(), FileError> {
        let _turn = lock(&self.saving);
        let Some(path) = self.file.as_ref().filter(|_| self.unsaved.swap(false, Ordering::AcqRel)) else {
            return Ok(());
        };
        let written = files::write_whole(path, &self.as_json(), Readers::Owner);
        if written.is_err() {
            self.unsaved.store(true, Ordering::Release);
        }
        written
    }

    fn as_json(&self) -> Vec<u8> {
        let mut accounts: Vec<_> = lock(&self.table).by_id.values().map(|entry| entry.account.clone()).collect();
        accounts.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        serde_json::to_vec_pretty(&Stored { accounts }).expect("accounts are made of strings and times")
    }
}

impl Table {
    fn insert(&mut self, account: Account, key: ParsedPublicKey) {
        self.id_by_thumbprint.insert(account.jwk.thumbprint(), account.id.clone());
        self.by_id.insert(account.id.clone(), Entry { account, key: Arc::new(key) });
    }
}

fn check_contacts(contacts: &[String]) -> Result<(), Problem> {
    if contacts.len() > MOST_CONTACTS {
        return Err(Problem::new(Kind::InvalidContact, format!("{} contacts are too many; {MOST_CONTACTS} at most", contacts.len())));
    }
    for contact in contacts {
        let Some(address) = contact.strip_prefix("mailto:") else {
            return Err(Problem::new(Kind::UnsupportedContact, format!("{contact:?} is not a mailto: URL")));
        };
        let whole = matches!(address.split_once('@'), Some((user, host)) if !user.is_empty() && !host.is_empty() && !host.contains('@'));
        // RFC 8555, section 7.3: no header fields and no second address.
        if !whole || address.contains([',', '?', ' ']) || !address.is_ascii() {
            return Err(Problem::new(Kind::InvalidContact, format!("{address:?} is not one e-mail address")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_that_cannot_be_written_to_are_refused() {
        for (contact, kind) in [
            ("tel:+123", "unsupportedContact"),
            ("mailto:", "invalidContact"),
            ("mailto:someone", "invalidContact"),
            ("mailto:a@b.test,c@d.test", "invalidContact"),
            ("mailto:a@b.test?subject=x", "invalidContact"),
        ] {
            assert_eq!(check_contacts(&[contact.into()]).expect_err(contact).short_type(), kind, "{contact}");
        }
        check_contacts(&["mailto:ops@example.com".into()]).expect("a plain address");
        assert!(check_contacts(&vec!["mailto:ops@example.com".to_owned(); 11]).is_err());
    }
}
