//! The local home passes the suite: kind, and unkind from several seeds.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use stand::LocalStand;
use storage::{conformance, local::Chaos};

macro_rules! kind {
    ($($check:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            conformance::run(&LocalStand::new(None), stringify!($check)).await;
        })+

        #[test]
        fn no_check_is_left_out() {
            assert_eq!(conformance::CHECKS, &[$(stringify!($check)),+]);
        }
    };
}

mod kind {
    use super::*;

    kind! {
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
        what_was_answered_is_there_after_a_crash,
        every_version_committed_enters_the_feed,
        what_was_not_committed_never_enters_the_feed,
        a_record_comes_again_until_it_is_acknowledged,
        the_feed_survives_a_crash,
        acknowledging_what_is_not_there_is_no_failure,
        a_waiting_consumer_hears_of_a_commit,
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
        messages_survive_a_crash,
        what_is_due_comes_in_its_order_and_within_its_bounds,
        the_due_index_is_paged_without_gaps,
        a_moved_claim_is_due_only_at_its_new_time,
        a_tombstone_is_never_due,
        the_earliest_step_is_the_one_due,
        a_foreign_due_cursor_leads_nowhere,
        claims_are_listed_by_tenant_and_state,
        a_listing_is_paged_in_hostname_order_without_gaps,
        a_listing_limit_of_any_size_is_survived,
        a_claim_that_moves_while_it_is_listed_is_listed_once,
        a_foreign_cursor_leads_to_an_empty_page,
        every_claim_to_a_name_is_found,
        history_comes_oldest_first_after_a_number,
        every_event_comes_once_and_in_one_order_whatever_the_page,
        a_tenants_events_are_its_own,
        a_reader_among_writers_misses_nothing,
        an_event_cursor_of_nobody_is_refused,
        a_cursor_goes_on_after_a_crash,
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
        the_second_table_survives_a_crash,
        a_document_is_read_as_it_was_written,
        of_sixteen_writers_of_a_document_one_wins,
        documents_are_listed_in_the_order_of_their_ids,
        a_deleted_document_is_gone_and_only_its_reader_deletes_it,
        documents_survive_a_crash,
        an_object_never_written_is_absent,
        an_object_is_created_once,
        an_object_is_replaced_only_by_who_saw_it,
        of_sixteen_writers_of_an_object_one_wins,
        of_sixteen_creators_of_an_object_one_wins,
        a_reader_sees_the_old_object_or_the_new,
        a_name_that_leaves_the_bucket_is_refused,
        purging_leaves_the_newest,
        objects_survive_a_crash,
    }
}

async fn unkind(seed: u64) {
    println!("chaos seed {seed}");
    for check in conformance::CHECKS {
        println!("{check}");
        conformance::run(&LocalStand::new(Some(Chaos::seeded(seed))), check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_under_chaos_from_seed_1() {
    unkind(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_under_chaos_from_seed_20261123() {
    unkind(20_261_123).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_under_chaos_that_repeats_everything() {
    let chaos = Chaos { duplicates_percent: 100, ..Chaos::seeded(7) };
    for check in conformance::CHECKS {
        println!("{check}");
        conformance::run(&LocalStand::new(Some(chaos.clone())), check).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many seeds take minutes; NAMEPLATE_SEEDS=first..last chooses them"]
async fn the_suite_holds_under_chaos_from_many_seeds() {
    let range = std::env::var("NAMEPLATE_SEEDS").unwrap_or_else(|_| "100..120".to_owned());
    let (first, last) = range.split_once("..").unwrap();
    for seed in first.parse().unwrap()..last.parse().unwrap() {
        unkind(seed).await;
    }
}
