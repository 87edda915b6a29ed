//! The step queues.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use domains::{Dispatch, MAX_DELAY, Nudge, Step, StepQueue};

use super::{PACE, PATIENCE, Stand, eventually, fixtures::nudge, is_defect, race};
use crate::consumers::{DeadLetters, MAX_VISIBILITY, Message, QueueConsumer, Receipt};

/// How long the checks hide what they received.
const HIDDEN: Duration = Duration::from_secs(4);

/// How long what consumers share is hidden: longer than they take for all of it, and short enough for a home whose time is waited for.
const TAKEN: Duration = Duration::from_secs(30);

fn dispatch(step: Step, number: usize, delay: Duration) -> Dispatch {
    Dispatch { step, nudge: nudge(number), delay }
}

async fn receive<H: QueueConsumer>(home: &H, step: Step) -> Vec<Message> {
    home.receive(step, 10, HIDDEN, Duration::ZERO).await.unwrap()
}

/// Receives until something comes.
async fn received<S: Stand>(stand: &S, home: &S::Home, step: Step) -> Vec<Message> {
    eventually(stand, home, "a message", async || Some(receive(home, step).await).filter(|messages| !messages.is_empty())).await
}

/// Receives and deletes until nothing has come for longer than anything can be hidden.
async fn drain<S: Stand>(stand: &S, home: &S::Home, step: Step) -> Vec<Message> {
    let mut seen = Vec::new();
    let mut quiet = Duration::ZERO;
    while quiet < HIDDEN + Duration::from_secs(1) {
        let messages = receive(home, step).await;
        for message in &messages {
            home.delete(&message.receipt).await.unwrap();
        }
        quiet = if messages.is_empty() { quiet + PACE } else { Duration::ZERO };
        seen.extend(messages);
        stand.pass(home, PACE).await;
    }
    seen
}

fn nudges(messages: &[Message]) -> HashSet<Nudge> {
    messages.iter().map(|message| message.nudge().unwrap()).collect()
}

pub(super) async fn a_nudge_arrives_at_its_own_step_as_it_was_sent<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let all: Vec<Dispatch> = Step::ALL.iter().enumerate().map(|(number, step)| dispatch(*step, number, Duration::ZERO)).collect();
    home.send(&all).await.unwrap();
    home.send(&[]).await.unwrap();
    for (number, step) in Step::ALL.iter().enumerate() {
        let seen = drain(stand, &home, *step).await;
        assert_eq!(nudges(&seen), HashSet::from([nudge(number)]));
        assert!(seen.iter().all(|message| message.receipt.step == *step && message.receive_count == 1), "{seen:?}");
    }
}

pub(super) async fn a_delayed_nudge_comes_late_but_not_early<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.send(&[dispatch(Step::VerifyOwnership, 1, Duration::from_secs(5))]).await.unwrap();
    stand.pass(&home, Duration::from_secs(3)).await;
    assert_eq!(receive(&home, Step::VerifyOwnership).await, vec![]);
    stand.pass(&home, Duration::from_secs(2)).await;
    assert_eq!(nudges(&received(stand, &home, Step::VerifyOwnership).await), HashSet::from([nudge(1)]));
}

pub(super) async fn the_longest_delay_is_held_and_a_longer_one_refused_with_all_beside_it<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::IssueCertificate;
    let over = MAX_DELAY + Duration::from_millis(1);
    let error = home.send(&[dispatch(step, 1, Duration::ZERO), dispatch(step, 2, over)]).await.unwrap_err();
    assert!(is_defect(&error), "{error}");
    assert_eq!(drain(stand, &home, step).await, vec![], "part of a refused send was sent");
    home.send(&[dispatch(step, 3, MAX_DELAY)]).await.unwrap();
    assert_eq!(receive(&home, step).await, vec![]);
}

pub(super) async fn a_received_message_comes_again_until_it_is_deleted<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::VerifyOwnership;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let first = received(stand, &home, step).await;
    // A duplicate may be received too; then everything there is is hidden.
    let mut again = receive(&home, step).await;
    again.extend(first);
    assert!(again.iter().all(|message| message.receive_count == 1));
    assert_eq!(receive(&home, step).await, vec![], "a received message was not hidden");
    stand.pass(&home, HIDDEN).await;
    let second = received(stand, &home, step).await;
    let count = second.iter().map(|message| message.receive_count).max().unwrap();
    assert_eq!(count, 2);
    assert_eq!(second[0].id, again[0].id, "a message changed its name");
    for message in &second {
        home.delete(&message.receipt).await.unwrap();
        home.delete(&message.receipt).await.unwrap();
    }
    drain(stand, &home, step).await;
    stand.pass(&home, HIDDEN).await;
    assert_eq!(receive(&home, step).await, vec![], "a deleted message came again");
}

pub(super) async fn a_stale_receipt_does_nothing<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::PublishSite;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let mut stale = received(stand, &home, step).await;
    stale.extend(receive(&home, step).await);
    stand.pass(&home, HIDDEN).await;
    let mut fresh = received(stand, &home, step).await;
    fresh.extend(receive(&home, step).await);
    assert!(fresh.len() >= stale.len());
    for message in &stale {
        home.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    }
    assert_eq!(receive(&home, step).await, vec![], "a stale receipt brought a message back");
    for message in &stale {
        home.delete(&message.receipt).await.unwrap();
    }
    stand.pass(&home, HIDDEN).await;
    let third = received(stand, &home, step).await;
    assert_eq!(third[0].receive_count, 3, "a stale receipt deleted the message");
    let foreign = Receipt { step, handle: "not a receipt".to_owned() };
    assert!(is_defect(&home.delete(&foreign).await.unwrap_err()));
}

pub(super) async fn an_invisibility_can_be_changed<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::VerifyOwnership;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let mut messages = received(stand, &home, step).await;
    messages.extend(receive(&home, step).await);
    for message in &messages {
        home.change_visibility(&message.receipt, 3 * HIDDEN).await.unwrap();
    }
    stand.pass(&home, 2 * HIDDEN).await;
    assert_eq!(receive(&home, step).await, vec![], "came before the longer invisibility was over");
    stand.pass(&home, HIDDEN).await;
    let mut messages = received(stand, &home, step).await;
    messages.extend(receive(&home, step).await);
    for message in &messages {
        home.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    }
    // Without time passing by itself: given back means there now.
    let again = received(stand, &home, step).await;
    assert_eq!(again[0].receive_count, 3);
}

pub(super) async fn an_invisibility_longer_than_half_a_day_is_refused<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::VerifyOwnership;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let over = MAX_VISIBILITY + Duration::from_secs(1);
    assert!(is_defect(&home.receive(step, 1, over, Duration::ZERO).await.unwrap_err()));
    let messages = received(stand, &home, step).await;
    assert_eq!(messages[0].receive_count, 1);
    assert!(is_defect(&home.change_visibility(&messages[0].receipt, over).await.unwrap_err()));
}

pub(super) async fn a_message_received_too_often_is_dead_until_it_is_redriven<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::IssueCertificate;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let mut most = 0;
    eventually(stand, &home, "a dead letter and nothing else", async || {
        let messages = home.receive(step, 10, Duration::from_millis(500), Duration::ZERO).await.unwrap();
        most = messages.iter().map(|message| message.receive_count).chain([most]).max().unwrap();
        stand.pass(&home, Duration::from_millis(500)).await;
        (messages.is_empty() && home.count_dead(step).await.unwrap() > 0).then_some(())
    })
    .await;
    assert_eq!(most, stand.max_receives());
    // A duplicate may take a little longer to die.
    stand.pass(&home, HIDDEN).await;
    while !receive(&home, step).await.is_empty() {
        stand.pass(&home, HIDDEN).await;
    }
    let dead = home.dead_letters(step, 10).await.unwrap();
    assert_eq!(dead.len() as u64, home.count_dead(step).await.unwrap());
    for letter in &dead {
        assert_eq!((letter.step, letter.receive_count), (step, stand.max_receives()));
        assert_eq!(serde_json::from_str::<Nudge>(&letter.body).unwrap(), nudge(1));
    }
    assert_eq!(home.count_dead(Step::PublishSite).await.unwrap(), 0);
    assert_eq!(home.redrive(Step::PublishSite).await.unwrap(), 0);
    assert_eq!(home.redrive(step).await.unwrap(), dead.len() as u64);
    assert_eq!(home.count_dead(step).await.unwrap(), 0);
    let messages = received(stand, &home, step).await;
    assert_eq!((messages[0].receive_count, messages[0].nudge().unwrap()), (1, nudge(1)));
}

pub(super) async fn consumers_share_the_work_and_nothing_is_lost<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::VerifyOwnership;
    let all: Vec<Dispatch> = (0..200).map(|number| dispatch(step, number, Duration::ZERO)).collect();
    race(4, |racer| {
        let (home, part) = (home.clone(), all[racer * 50..(racer + 1) * 50].to_vec());
        async move { home.send(&part).await.unwrap() }
    })
    .await;
    let taken = race(8, |_| {
        let home = home.clone();
        async move {
            let mut mine = Vec::new();
            loop {
                let messages = home.receive(step, 10, TAKEN, Duration::ZERO).await.unwrap();
                assert!(messages.len() <= 10);
                if messages.is_empty() {
                    return mine;
                }
                mine.extend(messages);
            }
        }
    })
    .await;
    let mut taken: Vec<Message> = taken.into_iter().flatten().collect();
    let mut times = HashMap::new();
    for message in &taken {
        *times.entry(message.receipt.clone()).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "one delivery went to two consumers");
    taken.extend(drain(stand, &home, step).await);
    assert_eq!(nudges(&taken).len(), 200);
    race(8, |racer| {
        let (home, mine) = (home.clone(), taken.iter().skip(racer).step_by(8).cloned().collect::<Vec<_>>());
        async move {
            for message in mine {
                home.delete(&message.receipt).await.unwrap();
            }
        }
    })
    .await;
    stand.pass(&home, TAKEN).await;
    assert_eq!(receive(&home, step).await, vec![]);
}

pub(super) async fn a_waiting_consumer_hears_of_a_nudge<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::PublishSite;
    let waiting = tokio::spawn({
        let home = home.clone();
        async move { home.receive(step, 10, HIDDEN, PATIENCE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    home.send(&[dispatch(step, 1, Duration::ZERO)]).await.unwrap();
    let messages = tokio::time::timeout(PATIENCE / 2, waiting).await.expect("the waiting consumer was not woken").unwrap();
    assert_eq!(nudges(&messages), HashSet::from([nudge(1)]));
}

pub(super) async fn messages_survive_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let step = Step::VerifyOwnership;
    let all: Vec<Dispatch> = (0..20).map(|number| dispatch(step, number, Duration::from_secs(number as u64 % 3))).collect();
    home.send(&all).await.unwrap();
    // Received and not deleted when the process dies.
    let lost = receive(&home, step).await;
    let home = stand.reopened(home).await;
    let seen = drain(stand, &home, step).await;
    assert_eq!(nudges(&seen).len(), 20);
    for message in lost {
        assert!(seen.iter().any(|again| again.id == message.id && again.receive_count == 2), "a count was forgotten");
    }
}
