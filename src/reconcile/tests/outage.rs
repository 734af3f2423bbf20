//! The ledger is away: what was known to end goes for as long as the claim stands, and everything is told afterwards.

use std::sync::Mutex;
use std::time::Duration;

use super::world::{Fault, Lands};
use super::*;
use crate::domain::event::AuditEvent;
use crate::domain::member::WriteKind;
use crate::ports::Journal;
use crate::ports::journal::{Answer, Ending, Entry, Removal, Result as Noted};
use crate::ports::ownership::{Reach, Standing};
use crate::reconcile::Outage;

/// A journal that survives the reconciler.
#[derive(Default)]
pub(super) struct Notes {
    held: Mutex<(u64, Vec<Entry>)>,
    /// What happens while the next intent is written.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Notes").field(&self.held).finish()
    }
}

impl Notes {
    pub(super) fn answers(&self) -> Vec<Option<Answer>> {
        let waiting = self.waiting();
        waiting
            .iter()
            .map(|entry| entry.ending.as_ref().map(|ending| ending.answer))
            .collect()
    }
}

#[async_trait::async_trait]
impl Journal for Notes {
    async fn intend(&self, removal: Removal) -> Noted<u64> {
        if let Some(meanwhile) = self.meanwhile.lock().expect("not poisoned").take() {
            meanwhile();
        }
        let mut held = self.held.lock().expect("not poisoned");
        held.0 += 1;
        let number = held.0;
        held.1.push(Entry {
            number,
            removal,
            ending: None,
        });
        Ok(number)
    }

    async fn ended(&self, number: u64, ending: Ending) -> Noted<()> {
        let mut held = self.held.lock().expect("not poisoned");
        for entry in held.1.iter_mut().filter(|entry| entry.number == number) {
            entry.ending = Some(ending.clone());
        }
        Ok(())
    }

    async fn told(&self, number: u64) -> Noted<()> {
        let mut held = self.held.lock().expect("not poisoned");
        held.1.retain(|entry| entry.number != number);
        Ok(())
    }

    fn waiting(&self) -> Vec<Entry> {
        self.held.lock().expect("not poisoned").1.clone()
    }
}

/// One replica of several.
pub(super) struct Replica {
    pub(super) bench: Bench,
    pub(super) standing: Arc<Standing>,
    pub(super) outage: Arc<Outage>,
    pub(super) notes: Arc<Notes>,
    epoch: u64,
}

impl Replica {
    pub(super) fn new() -> Self {
        let mut bench = Bench::new();
        let notes = Arc::new(Notes::default());
        let (standing, outage) = share(&mut bench, &notes);
        let mut replica = Self {
            bench,
            standing,
            outage,
            notes,
            epoch: 0,
        };
        replica.owns(86_400);
        replica
    }

    /// The process is killed and starts again with the same journal; nothing is owned yet.
    fn restart(&mut self) {
        self.bench.restart();
        (self.standing, self.outage) = share(&mut self.bench, &self.notes);
    }

    /// Another replica takes over, which knows nothing of the journal.
    pub(super) fn another(&mut self) -> Arc<Notes> {
        let own = std::mem::take(&mut self.notes);
        self.restart();
        self.standing.follows(self.bench.clock.since_boot());
        self.owns(86_400);
        own
    }

    /// A new claim, that stands for so long.
    pub(super) fn owns(&mut self, seconds: u32) {
        self.epoch += 1;
        self.standing.hold_to(Reach {
            epoch: self.epoch,
            until: self.bench.clock.since_boot() + Duration::from_secs(seconds.into()),
            deadline: self.bench.now() + TimeDelta::seconds(seconds.into()),
        });
    }

    pub(super) fn away(&self, away: bool) {
        self.bench.ledger.away.store(away, Ordering::SeqCst);
        self.bench.ledger.read_only.store(away, Ordering::SeqCst);
    }

    fn look_ahead(&self) {
        ready(self.bench.reconciler.look_ahead());
    }

    /// An active grant that ends two seconds from now; the claim stands for five, and then the ledger is gone.
    pub(super) fn about_to_end(&mut self, wants: &[Assignment]) -> GrantId {
        let id = self.bench.grant("ada", wants, 60);
        self.bench.run(5);
        let end = self.bench.expires_at(id);
        self.bench.run_until(end - seconds(2));
        self.owns(5);
        self.look_ahead();
        self.away(true);
        id
    }

    pub(super) fn ada(&self) -> MemberKey {
        self.bench.key_of(&Subject::Member(user("ada")))
    }

    pub(super) fn pass(&mut self) {
        let key = self.ada();
        assert!(self.bench.pass(&key), "it ends");
    }

    /// The ledger is there again.
    fn back(&mut self) {
        self.away(false);
        self.owns(86_400);
    }

    fn calls_of(&self, name: &str) -> Vec<AuditEvent> {
        let filter = EventFilter::default();
        let subject = Subject::Member(user(name)).to_string();
        ready(self.bench.memory.events(&filter, 0, 100_000))
            .expect("readable")
            .into_iter()
            .map(|stored| stored.event)
            .filter(|event| event.subject.as_ref() == Some(&subject))
            .collect()
    }
}

fn share(bench: &mut Bench, notes: &Arc<Notes>) -> (Arc<Standing>, Arc<Outage>) {
    let standing = Arc::new(Standing::none());
    let outage = Arc::new(Outage::new(
        notes.clone(),
        bench.ledger.clone(),
        standing.clone(),
        None,
    ));
    let fresh = build(&bench.clock, &bench.world, &bench.ledger, bench.settings);
    bench.reconciler = fresh.under(standing.clone()).with_outage(outage.clone());
    (standing, outage)
}

#[test]
fn what_was_known_to_end_goes_on_time_and_is_told_and_proven_when_the_ledger_is_back() {
    let mut replica = Replica::new();
    let id = replica.about_to_end(&[viewer("a")]);
    let end = replica.bench.expires_at(id);
    replica.pass();
    assert_eq!(replica.bench.removals(), 0, "not before its end");
    replica.bench.clock.advance(seconds(2));
    replica.pass();
    assert!(!replica.bench.holds("ada", &viewer("a")));
    replica.pass();
    assert_eq!(replica.bench.removals(), 1, "done is not repeated");
    assert_eq!(replica.notes.answers(), [Some(Answer::Done)]);
    assert!(replica.bench.is_active(id), "nothing is believed yet");
    replica.bench.clock.advance(seconds(100));
    replica.back();
    replica.bench.run(120);
    assert_eq!(replica.notes.answers(), []);
    assert_eq!(replica.bench.cause(id), EndCause::Expired);
    assert_eq!(replica.bench.removals(), 1);
    let sent = replica.bench.get(id).removal_sent_at.expect("told");
    assert!(sent - end < seconds(1), "{}", sent - end);
    let told = replica.calls_of("ada");
    let intents = told.iter().filter(|event| {
        matches!(
            &event.kind,
            EventKind::CallIntended {
                write: WriteKind::Remove,
                ..
            }
        ) && event.at < end + seconds(1)
    });
    assert_eq!(intents.count(), 1, "the audit has the call at its time");
    replica.bench.assert_clean(&["ada"]);
}

#[test]
fn nothing_goes_that_ends_after_the_claim_or_was_not_read_under_it() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(6));
    replica.owns(5);
    replica.look_ahead();
    replica.away(true);
    // Renewed without the ledger having been read since: an end beyond the first claim may have been moved.
    replica.standing.hold_to(Reach {
        epoch: replica.epoch,
        until: replica.bench.clock.since_boot() + Duration::from_secs(60),
        deadline: replica.bench.now() + seconds(60),
    });
    replica.bench.clock.advance(seconds(7));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    replica.back();
    replica.bench.run(5);
    assert!(!replica.bench.holds("ada", &viewer("a")));
    replica.bench.run(120);
    replica.bench.assert_clean(&["ada"]);
}

#[test]
fn nothing_goes_once_the_claim_has_run_out() {
    let mut replica = Replica::new();
    replica.about_to_end(&[viewer("a")]);
    replica.bench.clock.advance(seconds(5));
    replica.pass();
    assert_eq!(
        (replica.bench.removals(), replica.notes.answers().len()),
        (0, 0)
    );
}

#[test]
fn what_somebody_here_decided_since_is_not_overruled() {
    let mut replica = Replica::new();
    let id = replica.about_to_end(&[viewer("a")]);
    let outage = replica.outage.clone();
    let mut deciding = outage.deciding(&replica.ada(), replica.bench.clock.since_boot());
    deciding.begins();
    replica.bench.extend(id, HOUR);
    // Nobody knows whether it was committed.
    drop(deciding);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    replica.back();
    replica.bench.run(60);
    assert!(replica.bench.is_active(id) && replica.bench.holds("ada", &viewer("a")));
}

#[test]
fn what_somebody_here_decides_while_the_intent_is_written_is_not_overruled_either() {
    let mut replica = Replica::new();
    replica.about_to_end(&[viewer("a")]);
    replica.bench.clock.advance(seconds(2));
    let (outage, key) = (replica.outage.clone(), replica.ada());
    let since_boot = replica.bench.clock.since_boot();
    let decide = move || drop(outage.deciding(&key, since_boot));
    *replica.notes.meanwhile.lock().expect("not poisoned") = Some(Box::new(decide));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    assert_eq!(
        replica.notes.answers(),
        [Some(Answer::Refused)],
        "it is told as not sent"
    );
}

#[test]
fn what_was_read_while_somebody_decided_is_not_acted_on_once_they_have() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(2));
    replica.owns(5);
    let outage = replica.outage.clone();
    let (key, boot) = (replica.ada(), replica.bench.clock.since_boot());
    let mut deciding = outage.deciding(&key, boot);
    deciding.begins();
    // The read begins before the extension is committed, and ends after it.
    let reading = outage.begin_read(replica.bench.now(), boot).expect("owned");
    let before = replica.bench.record("ada");
    replica.bench.extend(id, HOUR);
    deciding.ends(&Ok::<_, LedgerError>(()));
    drop(deciding);
    outage.learn(&reading, &before);
    replica.away(true);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    replica.back();
    replica.bench.run(60);
    assert!(replica.bench.is_active(id) && replica.bench.holds("ada", &viewer("a")));
}

#[test]
fn a_decision_that_outlives_a_claim_counts_under_the_next_one() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 60);
    replica.bench.run(5);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(2));
    let outage = replica.outage.clone();
    let mut deciding = outage.deciding(&replica.ada(), replica.bench.clock.since_boot());
    deciding.begins();
    replica.owns(5);
    replica.look_ahead();
    // Committed under the claim that came meanwhile.
    replica.bench.extend(id, HOUR);
    replica.away(true);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    deciding.ends(&Ok::<_, LedgerError>(()));
    drop(deciding);
    replica.back();
    replica.bench.run(60);
    assert!(replica.bench.is_active(id));
}

#[test]
fn what_was_in_doubt_for_a_minute_is_read_anew_and_goes_without_the_ledger_again() {
    let mut replica = Replica::new();
    let id = replica.bench.grant("ada", &[viewer("a")], 180);
    replica.bench.run(5);
    let outage = replica.outage.clone();
    let mut deciding = outage.deciding(&replica.ada(), replica.bench.clock.since_boot());
    deciding.begins();
    drop(deciding);
    let end = replica.bench.expires_at(id);
    replica.bench.run_until(end - seconds(2));
    replica.owns(5);
    // The first look forgets the doubt, the second one begins after that.
    replica.look_ahead();
    replica.look_ahead();
    replica.away(true);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.bench.removals(), 1);
}

#[test]
fn owners_and_what_has_neighbours_to_lose_wait_for_the_ledger() {
    let mut replica = Replica::new();
    replica.bench.gives("ada", &viewer("standing"));
    let owner = on("organization-admin", "");
    replica.about_to_end(&[owner.clone(), viewer("a")]);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert_eq!(replica.bench.removals(), 0);
    replica.back();
    replica.bench.run(200);
    assert!(!replica.bench.holds("ada", &owner) && !replica.bench.holds("ada", &viewer("a")));
    assert!(replica.bench.holds("ada", &viewer("standing")));
    assert_eq!(replica.bench.violations(), [""; 0]);
}

#[test]
fn a_grant_that_came_meanwhile_is_given_and_is_not_taken_for_stripped() {
    let mut replica = Replica::new();
    let old = replica.about_to_end(&[viewer("a")]);
    let new = replica.bench.grant("ada", &[viewer("a")], HOUR);
    replica.bench.clock.advance(seconds(3));
    replica.pass();
    assert!(
        !replica.bench.holds("ada", &viewer("a")),
        "nobody had given the new one"
    );
    replica.back();
    replica.bench.run(60);
    assert_eq!(replica.bench.cause(old), EndCause::Expired);
    assert!(replica.bench.is_active(new) && replica.bench.holds("ada", &viewer("a")));
    assert_eq!(replica.bench.drift("missing"), 0);
}

#[test]
fn another_replica_that_takes_over_doubts_what_was_due_before() {
    // Either it lands before the new owner looks, or long after it has verified the new grant.
    for lands in [Lands::Now, Lands::After(seconds(60))] {
        let mut replica = Replica::new();
        replica.about_to_end(&[viewer("a")]);
        let new = replica.bench.grant("ada", &[viewer("a")], HOUR);
        replica.bench.clock.advance(seconds(3));
        let lost = Some(Fault::Unknown(lands));
        replica
            .bench
            .world
            .change(|world| world.removes.push_back(lost));
        replica.pass();
        assert_eq!(replica.notes.answers(), [Some(Answer::Unknown)]);
        replica.away(false);
        let first = replica.another();
        replica.bench.run(300);
        assert!(replica.bench.is_active(new), "{lands:?}");
        // The first one comes back, and tells; it owns nothing any more.
        replica.notes = first;
        let (_, outage) = share(&mut replica.bench, &replica.notes);
        ready(replica.bench.reconciler.tell(None)).expect("told");
        assert_eq!(replica.notes.answers(), []);
        assert!(!outage.is_removing(&replica.ada(), &viewer("a")));
        (replica.standing, replica.outage) = share(&mut replica.bench, &replica.notes);
        replica.owns(86_400);
        replica.bench.run(1200);
        let held = replica.bench.holds("ada", &viewer("a"));
        assert!(replica.bench.is_active(new) && held, "{lands:?}");
        assert_eq!(replica.bench.drift("missing"), 0);
    }
}

#[test]
fn killed_before_or_after_the_byte_the_next_start_tells_that_nobody_knows() {
    for point in [0, 1] {
        let mut replica = Replica::new();
        let id = replica.about_to_end(&[viewer("a")]);
        replica.bench.clock.advance(seconds(3));
        replica.bench.world.crash.after(point);
        let key = replica.ada();
        assert!(!replica.bench.pass(&key), "killed");
        assert_eq!(replica.notes.answers(), [None]);
        assert_eq!(replica.bench.holds("ada", &viewer("a")), point == 0);
        replica.restart();
        replica.back();
        replica.bench.run(1000);
        assert_eq!(replica.notes.answers(), []);
        assert_eq!(replica.bench.cause(id), EndCause::Expired);
        let unknown = replica.calls_of("ada").iter().any(
            |event| matches!(&event.kind, EventKind::CallEnded { outcome, .. } if outcome == "unknown"),
        );
        assert!(unknown, "as what it is");
        replica.bench.assert_clean(&["ada"]);
    }
}

#[test]
fn half_an_hour_without_the_ledger_those_known_are_on_time_and_the_rest_soon_after() {
    let mut replica = Replica::new();
    // Four end in the first seconds, the others all over the half hour.
    let lengths: Vec<i64> = (0..4)
        .map(|n| 101 + n)
        .chain((0..16).map(|n| 120 + n * 100))
        .collect();
    let mut grants = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        let name = format!("m{number}");
        replica.bench.joins(&name);
        grants.push((
            name.clone(),
            replica.bench.grant(&name, &[viewer("a")], *length),
        ));
    }
    replica.bench.run(20);
    let ends: Vec<Timestamp> = grants
        .iter()
        .map(|(_, id)| replica.bench.expires_at(*id))
        .collect();
    replica.bench.run_until(ends[0] - seconds(1));
    replica.owns(6);
    replica.look_ahead();
    replica.away(true);
    let lost = replica.bench.now();
    replica.bench.run(1800);
    replica.back();
    let back = replica.bench.now();
    replica.bench.run(120);
    let mut by_memory = 0;
    for ((name, id), end) in grants.iter().zip(&ends) {
        let sent = replica.bench.get(*id).removal_sent_at.expect("sent");
        assert!(!replica.bench.holds(name, &viewer("a")), "{name}");
        if *end <= lost + seconds(5) {
            assert!(sent - *end <= seconds(2), "{name}: {}", sent - *end);
            by_memory += 1;
        } else if *end > back {
            assert!(sent - *end <= seconds(2), "{name}");
        } else {
            assert!(
                sent >= back && sent - back <= seconds(5),
                "{name}: {}",
                sent - back
            );
        }
    }
    assert_eq!(by_memory, 4);
    replica.bench.run(60);
    for (name, _) in &grants {
        replica.bench.assert_clean(&[name.as_str()]);
    }
}
