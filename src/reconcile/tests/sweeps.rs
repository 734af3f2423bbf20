//! Whom a sweep hands to a pass, what a new key ends, and that nothing is sent or changed on a guess.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

use super::*;
use crate::domain::event::NOT_SENT;
use crate::domain::member::{Blocked, WriteKind};
use crate::domain::observation::{Incomplete, MembersRead, ObservedMember};
use crate::domain::sight::Settled;
use crate::reconcile::Reapply;
use crate::reconcile::sweep::Swept;

fn swept(bench: &Bench) -> Swept {
    ready(bench.reconciler.sweep()).expect("readable")
}

/// Writes a member as somebody else would, between two passes.
fn put(bench: &Bench, record: MemberRecord) {
    let (audit, request) = (Vec::new(), None);
    let commit = MemberCommit {
        record,
        audit,
        request,
    };
    ready(bench.memory.commit(commit)).expect("nobody in between");
}

#[test]
fn a_sweep_counts_what_is_open_and_who_waits_for_an_operator() {
    let mut bench = Bench::new();
    bench.settings.reapply = Reapply::Sso;
    bench.settings.reapply_max_members = 0;
    bench.restart();
    bench.gives("ada", &editor("m"));
    bench.grant("ada", &[viewer("a"), viewer("b")], HOUR);
    bench.run(5);
    assert_eq!(swept(&bench).open, 0);
    // A login through single sign-on leaves only what is mapped.
    bench.takes("ada", &viewer("a"));
    bench.takes("ada", &viewer("b"));
    bench.look_at("ada");
    bench.run(60);
    let board = bench.reconciler.observer.board();
    assert_eq!(swept(&bench).open, 2);
    assert_eq!((board.held(), board.is_breaker_open()), (1, true));
}

#[test]
fn a_pass_that_read_later_than_the_sweep_knows_better() {
    for (later, differing) in [(0, 1), (1, 0)] {
        let mut bench = Bench::new();
        bench.grant("ada", &[viewer("a")], HOUR);
        bench.run(300);
        bench.takes("ada", &viewer("a"));
        // A call begins a millisecond after it is decided on.
        let begins = bench.now() + TimeDelta::milliseconds(1);
        let mut record = bench.record("ada");
        record.check_at = Some(begins + seconds(50));
        let seen = record.last_seen.as_mut().expect("read");
        seen.at = begins + TimeDelta::milliseconds(later);
        put(&bench, record);
        assert_eq!(swept(&bench).differing, differing, "{later} ms later");
        let world = bench.world.look();
        assert_eq!(world.calls.last().map(|(at, _)| *at), Some(begins));
    }
}

#[test]
fn who_joined_anew_differs_and_who_shows_other_roles_where_logins_are_told_by_them() {
    for reapply in [Reapply::Never, Reapply::Sso] {
        let mut bench = Bench::new();
        bench.settings.reapply = reapply;
        bench.restart();
        bench.grant("ada", &[viewer("a")], HOUR);
        bench.run(300);
        let record = bench.record("ada");
        let differs = |joined: i64, more: &[Assignment], incomplete: Option<Incomplete>| {
            let now = bench.now();
            let mut assignments = bench.held("ada");
            assignments.extend(more.iter().cloned());
            let member = ObservedMember {
                user_id: user("ada"),
                member_since: record.member_since.expect("read") + seconds(joined),
                email: None,
                name: String::new(),
                assignments,
            };
            let read = MembersRead {
                started_at: now,
                finished_at: now,
                incomplete,
                members: BTreeMap::from([(user("ada"), member)]),
                total: 1,
                owners: 1,
                recognized: Vec::new(),
            };
            bench.reconciler.differs(&record, &read)
        };
        assert!(!differs(0, &[], None), "{reapply:?}");
        assert!(differs(1, &[], None), "{reapply:?}: joined anew");
        assert!(!differs(-1, &[], None), "{reapply:?}: joined before");
        let tells = reapply == Reapply::Sso;
        let other = [editor("z")];
        assert_eq!(differs(0, &other, None), tells, "{reapply:?}");
        let filtered = Some(Incomplete::KeyIsNotOwner);
        assert!(!differs(0, &other, filtered), "{reapply:?}: no proof");
    }
}

#[test]
fn a_new_key_ends_the_pause_of_what_was_refused_and_of_nothing_else() {
    let refused = "root.unauthorized";
    for (code, retry, is_ended) in [
        (refused, 300, true),
        (refused, 0, false),
        (refused, -1, false),
        ("last_owner", 300, false),
        ("own_identity", 300, false),
        ("last_owner", -1, false),
    ] {
        let mut bench = Bench::new();
        bench.grant("ada", &[viewer("a")], HOUR);
        bench.run(300);
        let now = bench.now();
        let mut record = bench.record("ada");
        record.owned[0].blocked = Some(Blocked {
            code: code.to_owned(),
            since: now - seconds(60),
            retry_at: now + seconds(retry),
            refusals: 1,
        });
        record.due = Some(Due {
            at: now + seconds(300),
            kind: DueKind::Remove,
            weight: 0,
        });
        put(&bench, record);
        let before = bench.record("ada");
        bench.world.change(|world| world.pin += 1);
        ready(bench.reconciler.notice_key());
        let after = bench.record("ada");
        let what = format!("{code} {retry}");
        let retry_at = after.owned[0].blocked.as_ref().map(|one| one.retry_at);
        let expected = if is_ended { 0 } else { retry };
        assert_eq!(retry_at, Some(now + seconds(expected)), "{what}");
        assert_eq!(after.version != before.version, is_ended, "{what}");
        let due = after.due.map(|due| due.at);
        let expected = if is_ended { 0 } else { 300 };
        assert_eq!(due, Some(now + seconds(expected)), "{what}");
    }
}

#[test]
fn nothing_is_sent_where_somebody_else_wrote_while_the_commit_had_no_answer() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    bench.revoke(id);
    bench.ledger.overtaken.store(true, Ordering::SeqCst);
    bench.ledger.unknown(0, false);
    let key = bench.record("ada").key;
    let passed = ready(bench.reconciler.pass(&key));
    assert!(
        matches!(passed, Err(LedgerError::CommitUnknown { .. })),
        "{passed:?}"
    );
    assert_eq!(bench.removals(), 0, "its intent is not in the ledger");
    bench.run(300);
    assert_eq!(bench.removals(), 1);
    bench.assert_clean(&["ada"]);
}

#[test]
fn a_grant_that_ends_while_another_wants_the_same_sends_nothing() {
    let mut bench = Bench::new();
    let first = bench.grant("ada", &[viewer("a")], 60);
    let second = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    assert_eq!(bench.cause(first), EndCause::Expired);
    assert!(bench.is_active(second) && bench.holds("ada", &viewer("a")));
    assert_eq!(bench.removals(), 0);
}

#[test]
fn what_was_overtaken_before_it_was_sent_says_so_in_the_audit() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a")], HOUR);
    let now = bench.now();
    let before = bench.record("ada");
    let mut draft = Draft::new(before.clone());
    let wants = [viewer("a")];
    draft.take_back(WriteKind::Add, &before, &wants, "overtaken", now);
    let [event] = draft.audit.as_slice() else {
        panic!("one event: {:?}", draft.audit);
    };
    let EventKind::CallEnded {
        outcome, evidence, ..
    } = &event.kind
    else {
        panic!("not the end of a call: {event:?}");
    };
    assert_eq!(outcome, NOT_SENT);
    assert_eq!(evidence.code.as_deref(), Some("overtaken"));
}

#[test]
fn an_intent_that_is_undone_leaves_what_stood_before_as_it_was() {
    let mut bench = Bench::new();
    bench.gives("ada", &editor("m"));
    let id = bench.grant("ada", &[editor("m"), viewer("a")], HOUR);
    bench.run(30);
    let holding = |record: &MemberRecord, wanted: &Assignment| {
        let pairs = &record.grants[0].assignments;
        let pair = pairs.iter().find(|pair| pair.assignment == *wanted);
        pair.map(|pair| pair.holding)
    };
    assert!(bench.is_active(id));
    let mut draft = Draft::new(bench.record("ada"));
    assert_eq!(
        holding(&draft.record, &editor("m")),
        Some(Holding::Standing)
    );
    // As it was before the addition.
    let mut before = draft.record.clone();
    before.owned.clear();
    draft.undo_intent(&before, &[viewer("a")], bench.now());
    assert_eq!(draft.record.owned, []);
    assert_eq!(
        holding(&draft.record, &viewer("a")),
        Some(Holding::Undecided)
    );
    assert_eq!(
        holding(&draft.record, &editor("m")),
        Some(Holding::Standing)
    );
}

/// Where log lines go.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut held = self.0.lock().expect("not poisoned");
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_change_of_a_grant_is_one_line_of_the_log() {
    let mut bench = Bench::new();
    let sink = Sink::default();
    let writer = sink.clone();
    // While there is one subscriber alone, a line that another thread comes to first asks that thread's, which is none,
    // and stays off for everybody.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        bench.grant("ada", &[viewer("a")], 60);
        bench.run(300);
    });
    let bytes = sink.0.lock().expect("not poisoned").clone();
    let text = String::from_utf8(bytes).expect("UTF-8");
    let lines = text.lines().filter(|line| line.contains("Grant changed"));
    let events = bench.events();
    let changes = events
        .iter()
        .filter(|event| matches!(event, EventKind::GrantChanged { .. }));
    // Active, to be removed, ended.
    assert_eq!((lines.count(), changes.count()), (3, 3), "{text}");
}

#[test]
fn what_was_settled_until_the_end_of_a_grant_is_loaded_from_then_on() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.run(300);
    let settled = Settled::of(&bench.record("ada")).expect("calm");
    assert_eq!(settled.until, bench.expires_at(id));
    for (before, loaded) in [(seconds(1), false), (seconds(0), true)] {
        bench.clock.advance(settled.until - before - bench.now());
        assert_eq!(swept(&bench).loaded > 0, loaded, "{before} before its end");
    }
}

#[test]
fn a_grant_without_room_in_the_rate_budget_stays_due() {
    let mut bench = Bench::new();
    let id = bench.grant("ada", &[viewer("a")], HOUR);
    bench.world.change(|world| world.only_removals = true);
    let before = bench.record("ada");
    bench.clock.advance(seconds(2));
    let report = ready(bench.reconciler.pass(&before.key)).expect("writable");
    let after = bench.record("ada");
    let due = after.due.expect("owed");
    assert!(due.at <= bench.now(), "it stays due: {due:?}");
    assert_eq!((report.next, report.failure), (after.due, None));
    bench.world.change(|world| world.only_removals = false);
    bench.run(60);
    assert!(bench.is_active(id));
}
