//! The contracts of `domains`' traits and of [`crate::consumers`], each sentence a check.
//!
//! Arrives: a [`Stand`] that makes homes and lets their time pass. Leaves: nothing, when every check holds. Goes wrong: a check that does
//! not hold panics with what it saw; its name is the sentence that is not true.
//!
//! The checks assume only what the harder home promises: deliveries may be repeated, reordered and late, lists and the due-index may lag.

#![allow(clippy::unwrap_used, reason = "a suite of assertions: a failing home fails the test")]

pub mod answers;
mod bucket;
mod documents;
mod due;
mod events;
mod feed;
pub mod fixtures;
mod listings;
mod queues;
mod second_table;
mod table;

use std::time::Duration;

use async_trait::async_trait;
use domains::{Home, StoreError};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::consumers::{DeadLetters, FeedConsumer, QueueConsumer};

/// How many callers race in the checks that are about races.
const RACERS: usize = 16;

/// How long a home may take to show what it may show late.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much time passes between two looks.
const PACE: Duration = Duration::from_millis(100);

/// Makes homes to be checked.
#[async_trait]
pub trait Stand: Send + Sync {
    /// The kind of home; clones share one.
    type Home: Home + FeedConsumer + QueueConsumer + DeadLetters + Clone + 'static;

    /// A home that holds nothing.
    async fn fresh(&self) -> Self::Home;

    /// The same home after its process died and another opened it.
    async fn reopened(&self, home: Self::Home) -> Self::Home;

    /// Lets time pass for the homes of this stand: moved by hand where their clock can be, waited for where it cannot.
    async fn pass(&self, home: &Self::Home, time: Duration);

    /// The time in the homes of this stand.
    fn now(&self) -> Timestamp;

    /// How often its queues deliver a message before it is dead.
    fn max_receives(&self) -> u32;
}

macro_rules! suite {
    ($($module:ident: $($check:ident),+ $(,)?);+ $(;)?) => {
        /// The checks' names, in the order they run.
        pub const CHECKS: &[&str] = &[$($(stringify!($check)),+),+];

        /// Runs one check by its name, against a home of its own.
        ///
        /// # Panics
        /// When the check does not hold, or no check has this name.
        pub async fn run<S: Stand>(stand: &S, check: &str) {
            match check {
                $($(stringify!($check) => $module::$check(stand).await,)+)+
                other => panic!("no check is called `{other}`"),
            }
        }
    };
}

suite! {
    table:
        what_was_never_written_is_absent,
        every_item_is_read_as_it_was_written,
        a_put_that_expects_nothing_needs_nothing_there,
        a_put_needs_the_version_it_names,
        of_sixteen_creators_one_wins,
        of_sixteen_writers_of_one_version_one_wins,
        no_update_is_lost_when_everybody_retries,
        a_change_is_written_whole_or_not_at_all,
        two_names_of_a_hand_over_never_disagree,
        a_hundred_items_fit_and_one_more_is_refused,
        an_item_named_twice_is_refused,
        a_version_that_does_not_grow_is_refused,
        a_history_number_is_used_once,
        a_dropped_certificate_is_gone_and_its_neighbours_stay,
        what_was_answered_is_there_after_a_crash;
    feed:
        every_version_committed_enters_the_feed,
        what_was_not_committed_never_enters_the_feed,
        a_record_comes_again_until_it_is_acknowledged,
        the_feed_survives_a_crash,
        acknowledging_what_is_not_there_is_no_failure,
        a_waiting_consumer_hears_of_a_commit;
    queues:
        a_nudge_arrives_at_its_own_step_as_it_was_sent,
        a_delayed_nudge_comes_late_but_not_early,
        the_longest_delay_is_held_and_a_longer_one_refused_with_all_beside_it,
        a_received_message_comes_again_until_it_is_deleted,
        a_stale_receipt_does_nothing,
        an_invisibility_can_be_changed,
        an_invisibility_longer_than_half_a_day_is_refused,
        a_message_received_too_often_is_dead_until_it_is_redriven,
        consumers_share_the_work_and_nothing_is_lost,
        a_waiting_consumer_hears_of_a_nudge,
        messages_survive_a_crash;
    due:
        what_is_due_comes_in_its_order_and_within_its_bounds,
        the_due_index_is_paged_without_gaps,
        a_moved_claim_is_due_only_at_its_new_time,
        a_tombstone_is_never_due,
        the_earliest_step_is_the_one_due,
        a_foreign_due_cursor_leads_nowhere;
    listings:
        claims_are_listed_by_tenant_and_state,
        a_listing_is_paged_in_hostname_order_without_gaps,
        a_listing_limit_of_any_size_is_survived,
        a_claim_that_moves_while_it_is_listed_is_listed_once,
        a_foreign_cursor_leads_to_an_empty_page,
        every_claim_to_a_name_is_found,
        history_comes_oldest_first_after_a_number;
    events:
        every_event_comes_once_and_in_one_order_whatever_the_page,
        a_tenants_events_are_its_own,
        a_reader_among_writers_misses_nothing,
        an_event_cursor_of_nobody_is_refused,
        a_cursor_goes_on_after_a_crash;
    second_table:
        a_bucket_gives_no_more_than_it_holds,
        a_bucket_fills_again_with_time,
        buckets_do_not_share_tokens,
        of_sixteen_reservations_no_more_are_granted_than_the_scarcest_bucket_holds,
        a_reservation_takes_of_every_bucket_or_of_none,
        a_repeated_reservation_takes_none_whoever_repeats_it,
        a_reservation_survives_a_crash_and_is_not_taken_twice,
        who_waits_gets_a_slot_of_its_own_and_its_token_there,
        a_paused_bucket_gives_to_nobody_until_its_moment,
        what_an_order_did_not_use_is_given_back_once,
        a_caller_is_found_by_the_hash_of_the_key_only,
        a_mark_is_what_was_stored_last,
        the_second_table_survives_a_crash;
    documents:
        a_document_is_read_as_it_was_written,
        of_sixteen_writers_of_a_document_one_wins,
        documents_are_listed_in_the_order_of_their_ids,
        a_deleted_document_is_gone_and_only_its_reader_deletes_it,
        documents_survive_a_crash;
    bucket:
        an_object_never_written_is_absent,
        an_object_is_created_once,
        an_object_is_replaced_only_by_who_saw_it,
        of_sixteen_writers_of_an_object_one_wins,
        of_sixteen_creators_of_an_object_one_wins,
        a_reader_sees_the_old_object_or_the_new,
        a_name_that_leaves_the_bucket_is_refused,
        purging_leaves_the_newest,
        objects_survive_a_crash;
}

/// Runs every check, each against a home of its own, and says which one was running to whoever catches the panic.
///
/// # Panics
/// When a check does not hold.
pub async fn run_all<S: Stand>(stand: &S) {
    for check in CHECKS {
        let _name = Named(check);
        run(stand, check).await;
    }
}

/// Names the check that panics.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(check = self.0, "a home does not keep to its contract");
        }
    }
}

/// Looks until there is an answer, while the home's time passes.
async fn eventually<S: Stand, T>(stand: &S, home: &S::Home, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = PATIENCE.as_millis() / PACE.as_millis();
    for _ in 0..looks {
        if let Some(answer) = look().await {
            return answer;
        }
        stand.pass(home, PACE).await;
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// Runs the racers at once and returns what each saw.
async fn race<T, F>(racers: usize, racer: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut racing = JoinSet::new();
    for number in 0..racers {
        racing.spawn(racer(number));
    }
    racing.join_all().await
}

fn is_defect(error: &StoreError) -> bool {
    matches!(error, StoreError::Defect { .. })
}
