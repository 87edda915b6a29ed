//! The SQLite file behind its threads: one writer that commits in groups, and a few readers.
//!
//! Arrives: operations as closures, from async callers. Leaves: each one's answer; a writer is answered once its group is on disk. Goes
//! wrong: an operation that fails is rolled back alone; a group that cannot be committed fails as a whole; whoever waits longer than the
//! home's patience is told so, and an operation that nobody waits for any more is not begun.
//!
//! The threads live in real time: not for a paused tokio clock.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use domains::{Clock, Step, StoreError};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    OpenError,
    failure::{Failure, classify},
    lock::FolderLock,
    locked, schema, sweep,
};

/// The most operations that share one commit.
const GROUP: usize = 256;

/// The most operations that wait for the writer, and for the readers; the next caller waits outside.
const WAITING: usize = 1024;

/// How many threads read; the writer leaves them little to do on a small machine.
const READERS: usize = 3;

/// How much of the file the writer keeps in memory, in KiB. SQLite's own 2 MiB hold the upper pages of a few thousand names' indexes; with a
/// hundred thousand a quarter of the time went into reading them again and again.
const WRITER_CACHE_KIB: i64 = 32 * 1024;

/// How long SQLite waits for another connection's lock: only a person with a shell is one.
const BUSY: Duration = Duration::from_secs(3);

/// How long emptying the log waits for readers: ours are done at once, and nobody else's may hold up the writers.
const BUSY_EMPTYING: Duration = Duration::from_millis(200);

/// How long after a change that erased something its last traces leave the log, so that a burst of them shares one checkpoint.
const ERASE_AFTER: Duration = Duration::from_secs(1);

/// How often what is too old is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How many queues there are.
const STEPS: usize = Step::ALL.len();

/// What to do once the operation is on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effects {
    /// The feed has a record more.
    pub(crate) feed: bool,
    /// The steps whose queue has a message that may be visible.
    pub(crate) queues: [bool; STEPS],
    /// Something was overwritten or deleted that must not be found in the files.
    pub(crate) erased: bool,
}

/// Wakes the consumers.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    pub(crate) feed: Notify,
    queues: [Notify; STEPS],
}

impl Wakeups {
    pub(crate) fn all(&self) {
        self.feed.notify_waiters();
        self.queues.iter().for_each(Notify::notify_waiters);
    }

    pub(crate) fn queue(&self, step: Step) -> &Notify {
        &self.queues[step as usize]
    }
}

/// What an operation writes with.
pub(crate) struct Writing<'db> {
    pub(crate) db: &'db Connection,
    pub(crate) effects: &'db mut Effects,
}

/// One operation on its way through the writer.
trait Write: Send {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs it inside its savepoint; `false`: roll it back.
    fn run(&mut self, db: &Connection, effects: &mut Effects) -> bool;
    /// Answers, once the group is on disk or is not.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Operation<T, F> {
    work: Option<F>,
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
    _waiting: OwnedSemaphorePermit,
}

impl<T: Send, F: FnOnce(&mut Writing<'_>) -> Result<T, Failure> + Send> Write for Operation<T, F> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(&mut self, db: &Connection, effects: &mut Effects) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = guarded(|| work(&mut Writing { db, effects }));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Failure::Store(gone("the operation was not begun"))),
            (Err(error), _) => Err(Failure::Store(error)),
        };
        // Whoever stopped waiting does not hear it.
        let _ = self.reply.send(result);
    }
}

enum ToWriter {
    Write(Box<dyn Write>),
    Scrub(oneshot::Sender<Result<(), Failure>>),
    Stop,
}

enum ToReader {
    Read(Box<dyn FnOnce(&Connection) + Send>),
    Stop,
}

/// The way to the threads.
#[derive(Debug)]
pub(crate) struct Database {
    writer: mpsc::Sender<ToWriter>,
    writer_room: Arc<Semaphore>,
    readers: mpsc::Sender<ToReader>,
    reader_room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    patience: Duration,
}

impl Database {
    /// Opens the file, brings it to the newest version and starts the threads, which hold the lock.
    pub(crate) fn open(
        path: &Path,
        lock: FolderLock,
        clock: Arc<dyn Clock>,
        wakeups: Arc<Wakeups>,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let lock = Arc::new(lock);
        let db = open_writer(path, &*clock)?;
        let (writer, orders) = mpsc::channel();
        let (readers, questions) = mpsc::channel();
        let mut threads = Vec::with_capacity(READERS + 1);
        let own = Arc::clone(&lock);
        let desk = Writer { db, orders, clock, wakeups, erased_since: None, swept: Instant::now() };
        threads.push(spawn("storage-writer", move || {
            desk.work();
            drop(own);
        })?);
        let questions = Arc::new(Mutex::new(questions));
        for number in 0..READERS {
            let db = open_reader(path)?;
            let questions = Arc::clone(&questions);
            let own = Arc::clone(&lock);
            threads.push(spawn(&format!("storage-reader-{number}"), move || {
                read(&db, &questions);
                drop((db, own));
            })?);
        }
        let room = || Arc::new(Semaphore::new(WAITING));
        Ok(Self { writer, writer_room: room(), readers, reader_room: room(), threads: Mutex::new(threads), patience })
    }

    /// Runs `work` in the writer's next group and answers once it is on disk.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writing<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.patiently(async {
            let waiting = Arc::clone(&self.writer_room).acquire_owned().await.map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel();
            let operation = Operation { work: Some(work), result: None, reply, _waiting: waiting };
            self.writer.send(ToWriter::Write(Box::new(operation))).map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
        .await
    }

    /// Runs `work` on a reader, which sees everything that was answered before.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.patiently(async {
            let waiting = Arc::clone(&self.reader_room).acquire_owned().await.map_err(|_| closed())?;
            let (reply, answer) = oneshot::channel();
            let question = Box::new(move |db: &Connection| {
                let _waiting = waiting;
                if !reply.is_closed() {
                    let _ = reply.send(guarded(|| work(db)));
                }
            });
            self.readers.send(ToReader::Read(question)).map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
        .await
    }

    /// Empties the log into the file, so that nothing erased is left in either.
    pub(crate) async fn scrub(&self) -> Result<(), Failure> {
        self.patiently(async {
            let (reply, answer) = oneshot::channel();
            self.writer.send(ToWriter::Scrub(reply)).map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
        .await
    }

    /// Lets the threads finish what was asked and waits for them to end.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let _ = self.writer.send(ToWriter::Stop);
        for _ in 0..READERS {
            let _ = self.readers.send(ToReader::Stop);
        }
        let threads = std::mem::take(&mut *locked(&self.threads));
        let ended = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        match tokio::time::timeout(self.patience, ended).await {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(StoreError::Defect { detail: "a thread of the store ended in a panic".to_owned() }),
            Err(_) => Err(gone("the store's threads did not end in time")),
        }
    }

    async fn patiently<T>(&self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Store(gone(&format!("no answer within {:?}", self.patience)))),
        }
    }
}

/// The one thread that writes.
struct Writer {
    db: Connection,
    orders: mpsc::Receiver<ToWriter>,
    clock: Arc<dyn Clock>,
    wakeups: Arc<Wakeups>,
    /// Since when something erased has been lying in the log.
    erased_since: Option<Instant>,
    /// When the last sweep was.
    swept: Instant,
}

impl Writer {
    fn work(mut self) {
        let mut orders = Vec::with_capacity(GROUP);
        loop {
            match self.orders.recv_timeout(self.next_chore()) {
                Ok(first) => orders.push(first),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            orders.extend(self.orders.try_iter().take(GROUP - orders.len()));
            let mut group = Vec::with_capacity(orders.len());
            let mut scrubs = Vec::new();
            let mut stop = false;
            for order in orders.drain(..) {
                match order {
                    ToWriter::Write(write) => group.push(write),
                    ToWriter::Scrub(reply) => scrubs.push(reply),
                    ToWriter::Stop => stop = true,
                }
            }
            self.commit(group);
            for reply in scrubs {
                let _ = reply.send(self.checkpoint());
            }
            self.do_chores();
            if stop {
                break;
            }
        }
        // Leaves one tidy file behind; after a crash the next start does it.
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, "the log could not be emptied at the end; the next start does it");
        }
    }

    /// Runs each operation in a savepoint of its own, commits all that went well with one fsync, then answers.
    fn commit(&mut self, mut group: Vec<Box<dyn Write>>) {
        group.retain(|write| !write.is_abandoned());
        if group.is_empty() {
            return;
        }
        let mut effects = Effects::default();
        let committed = self.run_group(&mut group, &mut effects);
        if let Err(error) = &committed {
            tracing::error!(%error, operations = group.len(), "a group could not be committed");
            if !self.db.is_autocommit()
                && let Err(error) = self.db.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "the group could not be rolled back either");
            }
        }
        if committed.is_ok() {
            if effects.erased {
                self.erased_since.get_or_insert_with(Instant::now);
            }
            if effects.feed {
                self.wakeups.feed.notify_waiters();
            }
            for step in Step::ALL.iter().filter(|step| effects.queues[**step as usize]) {
                self.wakeups.queue(*step).notify_waiters();
            }
        }
        for write in group {
            write.answer(committed.as_ref().copied().map_err(classify));
        }
    }

    fn run_group(&self, group: &mut [Box<dyn Write>], effects: &mut Effects) -> Result<(), rusqlite::Error> {
        let run = |statement: &str| self.db.prepare_cached(statement)?.execute([]);
        run("BEGIN IMMEDIATE")?;
        for write in group {
            // Beginning may have taken long.
            if write.is_abandoned() {
                continue;
            }
            run("SAVEPOINT operation")?;
            let mut own = *effects;
            if write.run(&self.db, &mut own) {
                *effects = own;
            } else {
                // Fails when SQLite gave up the whole transaction by itself, as it does on a full disk; then the group has failed.
                run("ROLLBACK TO operation")?;
            }
            run("RELEASE operation")?;
        }
        run("COMMIT")?;
        Ok(())
    }

    fn next_chore(&self) -> Duration {
        let erase = self.erased_since.map_or(SWEEP_EVERY, |since| ERASE_AFTER.saturating_sub(since.elapsed()));
        erase.min(SWEEP_EVERY.saturating_sub(self.swept.elapsed()))
    }

    fn do_chores(&mut self) {
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.sweep();
        }
        if self.erased_since.is_some_and(|since| since.elapsed() >= ERASE_AFTER)
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(%error, "erased data is still in the log; tried again shortly");
            self.erased_since = Some(Instant::now());
        }
    }

    fn sweep(&mut self) {
        let now = self.clock.now();
        let swept = self.db.unchecked_transaction().and_then(|all| sweep::sweep(&all, now).and_then(|swept| all.commit().map(|()| swept)));
        match swept {
            Ok(swept) => {
                if swept.rows > 0 {
                    self.erased_since.get_or_insert_with(Instant::now);
                }
                // What is left over from a full sweep is taken after the next group.
                self.swept = if swept.is_done { Instant::now() } else { self.swept };
            }
            Err(error) => {
                tracing::warn!(%error, "what is too old could not be swept; tried again later");
                self.swept = Instant::now();
            }
        }
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        self.db.busy_timeout(BUSY_EMPTYING)?;
        let busy = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        self.db.busy_timeout(BUSY)?;
        if busy? {
            return Err(Failure::Store(gone("someone else is reading the file")));
        }
        self.erased_since = None;
        Ok(())
    }
}

/// One thread that reads: takes a question, answers it, takes the next.
fn read(db: &Connection, questions: &Mutex<mpsc::Receiver<ToReader>>) {
    loop {
        let question = locked(questions).recv();
        match question {
            Ok(ToReader::Read(question)) => question(db),
            Ok(ToReader::Stop) | Err(mpsc::RecvError) => return,
        }
    }
}

fn open_writer(path: &Path, clock: &dyn Clock) -> Result<Connection, OpenError> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    plan_once(&db)?;
    db.set_prepared_statement_cache_capacity(128);
    db.pragma_update(None, "page_size", schema::PAGE_BYTES)?;
    db.pragma_update(None, "secure_delete", "ON")?;
    // No copy of a page ever goes to a temporary file.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // Negative: KiB instead of pages (sqlite.org/pragma.html, read 2026-11).
    db.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    schema::migrate(&mut db, clock.now())?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::NoLog { path: path.to_owned(), mode });
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    // What a crash left in the log may hold what was erased since.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(db)
}

fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    plan_once(&db)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Keeps the plan of a cached statement whatever is bound to it. Else SQLite prepares some of them anew at each use, to see whether the values
/// allow a partial index (sqlite.org/c3ref/c_dbconfig_defensive.html, SQLITE_DBCONFIG_ENABLE_QPSG, read 2026-11).
fn plan_once(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OpenError::Threads)
}

/// A panic in one operation is that operation's failure; the thread goes on.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::defect(format!("a panic in the store: {}", words(&*panic)))))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

fn gone(detail: &str) -> StoreError {
    StoreError::Unavailable { detail: detail.to_owned() }
}

fn closed() -> Failure {
    Failure::Store(gone("the home is closed"))
}

#[cfg(test)]
mod tests {
    use domains::HandClock;
    use rusqlite::params;
    use tempfile::TempDir;

    use super::*;

    fn opened(folder: &TempDir) -> Database {
        let lock = FolderLock::take(folder.path()).unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-23T12:00:00Z".parse().unwrap()));
        Database::open(&folder.path().join("home.sqlite3"), lock, clock, Arc::default(), Duration::from_secs(5)).unwrap()
    }

    async fn mark(
        database: &Database,
        name: &'static str,
        then: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        database
            .write(move |writing| {
                writing.db.execute("INSERT INTO marks VALUES (?1, 'x')", params![name])?;
                then()
            })
            .await
    }

    async fn marks(database: &Database) -> Vec<String> {
        let read = |db: &Connection| {
            let mut statement = db.prepare("SELECT name FROM marks ORDER BY name")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        };
        database.read(read).await.unwrap()
    }

    #[tokio::test]
    async fn an_operation_that_fails_or_panics_in_a_group_is_rolled_back_alone() {
        let folder = TempDir::new().unwrap();
        let database = opened(&folder);
        // The first one keeps the writer busy until the others wait, so that they share a group.
        let (entered, inside) = oneshot::channel();
        let (release, held) = mpsc::channel::<()>();
        let first = mark(&database, "first", move || {
            entered.send(()).unwrap();
            held.recv_timeout(Duration::from_secs(5)).map_err(|_| Failure::Conflict)
        });
        let others = async {
            inside.await.unwrap();
            let group = async {
                tokio::join!(
                    mark(&database, "second", || Ok(())),
                    mark(&database, "conflict", || Err(Failure::Conflict)),
                    mark(&database, "panic", || panic!("on purpose")),
                    mark(&database, "last", || Ok(())),
                )
            };
            let release = async {
                tokio::task::yield_now().await;
                release.send(()).unwrap();
            };
            tokio::join!(group, release).0
        };
        let (first, (second, conflict, panic, last)) = tokio::join!(first, others);
        assert!(first.is_ok() && second.is_ok() && last.is_ok());
        assert!(matches!(conflict, Err(Failure::Conflict)));
        assert!(matches!(&panic, Err(Failure::Store(StoreError::Defect { detail })) if detail.contains("on purpose")), "{panic:?}");
        assert_eq!(marks(&database).await, ["first", "last", "second"]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_begun() {
        let folder = TempDir::new().unwrap();
        let database = opened(&folder);
        let (entered, inside) = oneshot::channel();
        let (release, held) = mpsc::channel::<()>();
        let first = mark(&database, "first", move || {
            entered.send(()).unwrap();
            held.recv_timeout(Duration::from_secs(5)).map_err(|_| Failure::Conflict)
        });
        let abandoned = async {
            inside.await.unwrap();
            {
                let waiting = std::pin::pin!(mark(&database, "abandoned", || Ok(())));
                assert!(futures_poll_once(waiting).await.is_none());
            }
            release.send(()).unwrap();
        };
        let (first, ()) = tokio::join!(first, abandoned);
        first.unwrap();
        mark(&database, "last", || Ok(())).await.unwrap();
        assert_eq!(marks(&database).await, ["first", "last"]);
    }

    /// Polls once; the answer if there is one already.
    async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => std::task::Poll::Ready(Some(answer)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn many_callers_share_commits() {
        let folder = TempDir::new().unwrap();
        let database = Arc::new(opened(&folder));
        let mut callers = tokio::task::JoinSet::new();
        // More than wait at once, so that some queue outside.
        for number in 0..WAITING + GROUP {
            let database = Arc::clone(&database);
            callers.spawn(async move {
                let write =
                    move |writing: &mut Writing<'_>| Ok(writing.db.execute("INSERT INTO marks VALUES (?1, '')", [number.to_string()])?);
                database.write(write).await.map(|rows| assert_eq!(rows, 1))
            });
        }
        for answer in callers.join_all().await {
            answer.unwrap();
        }
        assert_eq!(marks(&database).await.len(), WAITING + GROUP);
    }
}
