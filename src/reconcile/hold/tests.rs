//! When ledger and witness disagree, and what is rebuilt from which evidence.

mod rebuilt;
mod restrained;

use futures::FutureExt as _;

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::event::{CallEvidence, NOT_SENT};
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, DeploymentId, GrantId, UserId};
use crate::ports::Witness;
use crate::ports::ledger::{Identity, StoredEvent};
use crate::ports::witness::{Binding, Condition, Found};
use crate::runtime::clock::ManualClock;
use crate::store::MemoryLedger;
use crate::witness::MemoryWitness;

fn identity(generation: u64, witnessed: bool) -> Identity {
    Identity {
        id: "a".to_owned(),
        generation,
        witnessed,
    }
}

fn found(ledger: &str, generation: u64, mark: u64) -> Found {
    Found {
        condition: Condition::Whole,
        binding: Some(Binding {
            ledger: ledger.to_owned(),
            generation,
        }),
        mark,
    }
}

fn bare(condition: Condition) -> Found {
    Found {
        condition,
        binding: None,
        mark: 0,
    }
}

#[test]
fn a_disagreement_of_every_kind_is_named_and_agreement_is_not() {
    let damaged = || Condition::Damaged {
        detail: "byte 7".to_owned(),
    };
    let rows = [
        // No witness was ever in use.
        (identity(0, false), 9, None, ""),
        (identity(0, false), 9, Some(bare(Condition::Missing)), ""),
        (identity(0, false), 9, Some(bare(Condition::Whole)), ""),
        // One was.
        (identity(3, true), 9, None, "witness_missing"),
        (
            identity(3, true),
            9,
            Some(bare(Condition::Missing)),
            "witness_missing",
        ),
        (
            identity(3, true),
            9,
            Some(bare(Condition::Whole)),
            "witness_missing",
        ),
        (
            identity(3, true),
            9,
            Some(bare(damaged())),
            "witness_damaged",
        ),
        (
            identity(0, false),
            9,
            Some(bare(damaged())),
            "witness_damaged",
        ),
        // They belong together.
        (identity(3, true), 9, Some(found("a", 3, 9)), ""),
        (identity(3, true), 9, Some(found("a", 3, 2)), ""),
        (identity(3, true), 9, Some(found("a", 2, 50)), ""),
        (identity(3, false), 9, Some(found("a", 1, 50)), ""),
        // The ledger is older, or another one.
        (
            identity(3, true),
            9,
            Some(found("a", 3, 10)),
            "ledger_behind",
        ),
        (
            identity(3, true),
            9,
            Some(found("a", 4, 1)),
            "ledger_behind",
        ),
        (
            identity(0, false),
            0,
            Some(found("b", 1, 0)),
            "other_ledger",
        ),
        // The witness is.
        (
            identity(3, true),
            9,
            Some(found("a", 1, 5)),
            "witness_behind",
        ),
    ];
    for (identity, last, witness, expected) in rows {
        let reasons = compare(&identity, last, witness.as_ref());
        let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
        assert_eq!(codes.join(" "), expected, "{identity:?} {last} {witness:?}");
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

fn key() -> MemberKey {
    MemberKey {
        integration: IntegrationName::parse("main").expect("valid"),
        subject: Subject::Member(UserId::parse("1").expect("valid")),
    }
}

fn viewer(deployment: &str) -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(deployment).expect("valid"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}

fn id(n: u8) -> GrantId {
    GrantId::new(at(0), [n; 10])
}

fn intent(deployment: &str, from: i64, until: i64) -> Intent {
    Intent {
        integration: key().integration,
        subject: key().subject,
        assignment: viewer(deployment),
        must_end_by: Some(at(until)),
        at: at(from),
    }
}

/// Events of one member, a second apart.
#[derive(Default)]
struct Audit(Vec<StoredEvent>);

impl Audit {
    fn put(&mut self, grant: Option<u8>, kind: EventKind) {
        let sequence = self.0.len() as u64 + 1;
        let mut event = AuditEvent::member(at(i64::try_from(sequence).expect("few")), &key(), kind);
        event.grant_id = grant.map(id);
        event.caller = grant.map(|_| CallerName::parse("plane").expect("valid"));
        self.0.push(StoredEvent { sequence, event });
    }

    fn accepted(&mut self, grant: u8, deployment: &str, duration_s: i64) {
        self.put(
            Some(grant),
            EventKind::GrantAccepted {
                state: "activating".to_owned(),
                assignments: vec![viewer(deployment).to_string()],
                duration_s,
                requester: "ada".to_owned(),
                justification: "incident".to_owned(),
                policies: Vec::new(),
            },
        );
    }

    fn intended(&mut self, write: WriteKind, deployment: &str) {
        self.call(write, deployment, false);
    }

    fn call(&mut self, write: WriteKind, deployment: &str, put_back: bool) {
        self.put(
            None,
            EventKind::CallIntended {
                write,
                assignments: vec![viewer(deployment).to_string()],
                must_survive: Vec::new(),
                put_back,
            },
        );
    }

    fn survivor_missing(&mut self, deployment: &str) {
        self.put(
            None,
            EventKind::Drift {
                kind: "survivor_missing".to_owned(),
                assignment: viewer(deployment).to_string(),
                action: "put back as it was".to_owned(),
            },
        );
    }

    fn ended(&mut self, write: WriteKind, deployment: &str, outcome: &str) {
        self.put(
            None,
            EventKind::CallEnded {
                write,
                assignments: vec![viewer(deployment).to_string()],
                outcome: outcome.to_owned(),
                evidence: CallEvidence::default(),
            },
        );
    }

    fn changed(&mut self, grant: u8, to: &str, expires_at: Option<Timestamp>) {
        self.put(
            Some(grant),
            EventKind::GrantChanged {
                from: String::new(),
                to: to.to_owned(),
                cause: None,
                expires_at,
            },
        );
    }

    fn given(&mut self, grant: u8, deployment: &str, until: i64) {
        self.accepted(grant, deployment, 600);
        self.intended(WriteKind::Add, deployment);
        self.ended(WriteKind::Add, deployment, "done");
        self.changed(grant, "active", Some(at(until)));
    }

    fn rebuilt(self, witness: Option<&[Intent]>) -> Rebuilt {
        rebuild(self.0, witness, at(100), || [9; 10])
    }
}

fn shown(rebuilt: &Rebuilt) -> Vec<(String, &'static str, i64)> {
    rebuilt
        .assignments
        .iter()
        .map(|one| {
            let due = (one.due - at(0)).num_seconds();
            (one.assignment.to_string(), one.source, due)
        })
        .collect()
}

#[test]
fn an_active_grant_is_rebuilt_with_its_end_and_extension() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    let extended = EventKind::GrantExtended {
        from: at(700),
        to: at(900),
        by: "ada".to_owned(),
        reason: String::new(),
        policies: Vec::new(),
    };
    audit.put(Some(1), extended);
    let rebuilt = audit.rebuilt(None);
    assert_eq!(shown(&rebuilt), [(viewer("a").to_string(), "audit", 900)]);
    let record = &rebuilt.members[0];
    assert_eq!(record.grants[0].id, id(1));
    assert_eq!(record.grants[0].ends_at(), Some(at(900)));
    assert!(record.owned[0].must_end_by >= Some(at(900)));
    assert!(
        !rebuilt.is_proven,
        "the audit alone may be older than the world"
    );
}

#[test]
fn what_ended_or_was_refused_or_was_only_put_back_is_not_ours() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.intended(WriteKind::Remove, "a");
    audit.ended(WriteKind::Remove, "a", "done");
    audit.put(
        None,
        EventKind::SecondLook {
            assignment: viewer("a").to_string(),
        },
    );
    audit.changed(1, "ended", None);
    audit.accepted(2, "b", 600);
    audit.intended(WriteKind::Add, "b");
    audit.ended(WriteKind::Add, "b", "refused");
    audit.changed(2, "ended", None);
    audit.survivor_missing("c");
    audit.intended(WriteKind::Add, "c");
    audit.ended(WriteKind::Add, "c", "done");
    let rebuilt = audit.rebuilt(None);
    assert_eq!((rebuilt.members, rebuilt.assignments), (vec![], vec![]));
}

#[test]
fn what_is_put_back_again_and_again_is_never_ours() {
    // As earlier releases wrote it: the drift is told once.
    let mut audit = Audit::default();
    audit.survivor_missing("c");
    for _ in 0..3 {
        audit.intended(WriteKind::Add, "c");
        audit.ended(WriteKind::Add, "c", "done");
    }
    assert_eq!(audit.rebuilt(None).assignments, []);
    // Where the drift is not in the export, the call itself says so.
    let mut audit = Audit::default();
    for _ in 0..2 {
        audit.call(WriteKind::Add, "c", true);
        audit.ended(WriteKind::Add, "c", "done");
    }
    assert_eq!(audit.rebuilt(None).assignments, []);
    // Once it is no longer owed, a grant can give it.
    let mut audit = Audit::default();
    audit.survivor_missing("c");
    audit.call(WriteKind::Add, "c", true);
    audit.ended(WriteKind::Add, "c", "done");
    audit.put(
        None,
        EventKind::DriftEnded {
            kind: "survivor_missing".to_owned(),
            assignment: viewer("c").to_string(),
            first_seen: at(1),
            outcome: "there again".to_owned(),
        },
    );
    audit.given(1, "c", 700);
    assert_eq!(
        shown(&audit.rebuilt(None)),
        [(viewer("c").to_string(), "audit", 700)]
    );
}

#[test]
fn a_call_without_the_mark_is_read_as_before() {
    let text = r#"{"event":"call_intended","write":"add","assignments":[],"must_survive":[]}"#;
    let read: EventKind = serde_json::from_str(text).expect("of an earlier release");
    let EventKind::CallIntended { put_back, .. } = &read else {
        panic!("{read:?}");
    };
    assert!(!put_back);
    assert_eq!(serde_json::to_string(&read).expect("plain data"), text);
}

#[test]
fn an_addition_that_was_taken_back_unsent_was_never_given() {
    let mut audit = Audit::default();
    audit.accepted(1, "a", 600);
    audit.intended(WriteKind::Add, "a");
    audit.ended(WriteKind::Add, "a", NOT_SENT);
    let rebuilt = audit.rebuilt(None);
    assert_eq!(rebuilt.assignments, []);
    assert_eq!(rebuilt.members[0].grants.len(), 1, "it is asked for still");
}

#[test]
fn what_was_ours_before_a_call_that_came_to_nothing_is_ours_as_it_was() {
    for outcome in ["refused", NOT_SENT] {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        let before = audit.0.clone();
        audit.intended(WriteKind::Remove, "a");
        audit.ended(WriteKind::Remove, "a", outcome);
        let rebuilt = audit.rebuilt(None);
        let expected = Audit(before).rebuilt(None);
        assert_eq!(rebuilt.members[0].owned, expected.members[0].owned);
    }
}

#[test]
fn what_was_adopted_forgotten_or_contradicted_is_not_ours_also_where_the_witness_was_not_told() {
    let adopted = EventKind::AccessAdopted {
        assignment: viewer("a").to_string(),
        by: "ops".to_owned(),
        reason: "stays".to_owned(),
    };
    let forgotten = EventKind::AccessForgotten {
        assignment: viewer("a").to_string(),
        by: "ops".to_owned(),
        confirmed_by: "dev".to_owned(),
        reason: "its project is gone".to_owned(),
    };
    let contradicted = EventKind::Drift {
        kind: "contradicted".to_owned(),
        assignment: viewer("a").to_string(),
        action: String::new(),
    };
    for (end, is_watched) in [(adopted, false), (forgotten, true), (contradicted, false)] {
        let told = || {
            let mut audit = Audit::default();
            audit.given(1, "a", 700);
            audit.put(None, end.clone());
            audit
        };
        let rebuilt = told().rebuilt(None);
        assert_eq!(rebuilt.assignments, [], "{end:?}");
        let watched = &rebuilt.members[0].evidence.forgotten;
        assert_eq!(watched.len(), usize::from(is_watched));
        let gone = EventKind::Drift {
            kind: "forgotten_gone".to_owned(),
            assignment: viewer("a").to_string(),
            action: String::new(),
        };
        for (more, watched) in [(&end, usize::from(is_watched)), (&gone, 0)] {
            let mut audit = told();
            audit.put(None, more.clone());
            let members = audit.rebuilt(None).members;
            let forgotten = members.iter().map(|record| record.evidence.forgotten.len());
            assert_eq!(forgotten.sum::<usize>(), watched, "{end:?}, then {more:?}");
        }
        // A crash kept the decision from the witness.
        let stale = told().rebuilt(Some(&[intent("a", 2, 722)]));
        assert_eq!(stale.assignments, [], "{end:?}");
        assert!(!stale.is_proven);
        // It was given once more since.
        let mut again = told();
        again.given(2, "a", 900);
        let again = again.rebuilt(Some(&[intent("a", 7, 950)]));
        assert_eq!(again.assignments.len(), 1, "{end:?}");
    }
}

#[test]
fn a_person_who_joins_gets_what_has_begun_and_not_what_starts_later() {
    for (to, given) in [("scheduled", 0), ("activating", 1)] {
        let mut audit = Audit::default();
        let email = Subject::parse("email:ada@example.com").expect("valid");
        audit.accepted(1, "a", 600);
        let accepted = &mut audit.0[0].event;
        accepted.subject = Some(email.to_string());
        let EventKind::GrantAccepted { state, .. } = &mut accepted.kind else {
            panic!("accepted first");
        };
        *state = "awaiting_member".to_owned();
        audit.changed(1, to, None);
        audit.put(
            None,
            EventKind::MemberJoined {
                email: "ada@example.com".to_owned(),
                user_id: "1".to_owned(),
            },
        );
        let rebuilt = audit.rebuilt(None);
        let grants = rebuilt.members.iter().map(|one| one.grants.len());
        assert_eq!(grants.sum::<usize>(), given, "{to}");
        assert_eq!(rebuilt.left_out.len(), 1 - given, "{to}");
    }
}

#[test]
fn an_end_whose_commit_is_under_way_reaches_a_witness_that_is_begun_anew() {
    let ledger = Arc::new(MemoryLedger::new());
    let witness = Arc::new(MemoryWitness::new());
    let accord = Arc::new(Accord::new(
        ledger,
        Arc::new(ManualClock::default()),
        Some(Arc::clone(&witness) as Arc<dyn Witness>),
        vec![key().integration],
    ));
    let begin = || {
        let alone = accord.alone().now_or_never().expect("nobody else");
        let binding = Binding {
            ledger: "a".to_owned(),
            generation: 1,
        };
        // What the ledger owned when it was read.
        let intents = vec![intent("a", 1, 9)];
        let begun = alone.begin(binding, 0, intents).now_or_never();
        begun.expect("memory never waits").expect("writable");
    };
    let open = || {
        let open = witness.open_intents().now_or_never();
        open.expect("memory never waits").expect("readable").len()
    };
    begin();
    assert_eq!(open(), 1);
    let ending = accord.end_before_commit(&key(), vec![viewer("a")]);
    assert_eq!(open(), 0);
    begin();
    assert_eq!(open(), 0, "the ledger was read before the commit");
    drop(ending);
    begin();
    assert_eq!(open(), 1, "that commit is over");
}

#[test]
fn a_call_without_an_answer_leaves_what_it_may_have_given() {
    let mut audit = Audit::default();
    audit.accepted(1, "a", 600);
    audit.intended(WriteKind::Add, "a");
    let rebuilt = audit.rebuilt(None);
    let until = 2 + 600 + 120;
    assert_eq!(shown(&rebuilt), [(viewer("a").to_string(), "audit", until)]);
}

#[test]
fn a_grant_on_its_way_out_is_due_at_once() {
    let mut audit = Audit::default();
    audit.given(1, "a", 700);
    audit.changed(1, "revoking", None);
    assert_eq!(
        shown(&audit.rebuilt(None)),
        [(viewer("a").to_string(), "audit", 100)]
    );
}

#[test]
fn the_witness_has_the_later_word_and_agreement_of_both_is_proof() {
    let both = || {
        let mut audit = Audit::default();
        audit.given(1, "a", 700);
        audit.given(2, "b", 800);
        audit
    };
    let (a, b) = (intent("a", 2, 722), intent("b", 6, 726));
    let agreed = both().rebuilt(Some(&[a.clone(), b.clone()]));
    assert!(agreed.is_proven, "{agreed:?}");
    assert!(shown(&agreed).iter().all(|one| one.1 == "audit+witness"));
    // One is over by the witness, and one the audit does not know.
    let differing = both().rebuilt(Some(&[a, intent("c", 50, 500)]));
    assert!(!differing.is_proven);
    assert_eq!(
        shown(&differing),
        [
            (viewer("a").to_string(), "audit+witness", 700),
            (viewer("c").to_string(), "witness", 500),
        ]
    );
    assert!(differing.left_out.iter().any(|words| words.contains("b")));
    let alone = Audit::default().rebuilt(Some(&[b, intent("c", 50, 90)]));
    assert!(!alone.is_proven);
    assert_eq!(
        shown(&alone),
        [
            (viewer("b").to_string(), "witness", 726),
            (viewer("c").to_string(), "witness", 100),
        ]
    );
}

#[test]
fn what_a_rebuilt_grant_rests_on_is_rebuilt_with_it_and_a_review_also_when_the_grant_has_ended() {
    let emergency = |token: &str| EventKind::BreakGlassUsed {
        key: "safe".to_owned(),
        id: format!("id of {token}"),
        reason: "the plane is gone".to_owned(),
        token: token.to_owned(),
        until: Some(at(5_000)),
    };
    let mut audit = Audit::default();
    audit.accepted(1, "a", 600);
    audit.put(Some(1), emergency("t1"));
    audit.accepted(2, "b", 600);
    let approved = EventKind::Approved {
        approvers: vec!["bob (bob@example.com)".to_owned()],
        ids: vec!["id-1".to_owned()],
        request: String::new(),
    };
    audit.put(Some(2), approved);
    audit.accepted(3, "c", 600);
    audit.put(Some(3), emergency("t3"));
    audit.changed(3, "ended", None);
    let closed = EventKind::ReviewClosed {
        by: "cy".to_owned(),
        note: "looked".to_owned(),
    };
    audit.put(Some(3), closed);
    let rebuilt = audit.rebuilt(None);
    let grants: Vec<&Grant> = rebuilt.members.iter().flat_map(|one| &one.grants).collect();
    let used = grants[0].break_glass().expect("an emergency grant still");
    assert_eq!((used.token.as_str(), used.until), ("t1", at(5_000)));
    let authority = grants[1].authority.as_ref().expect("approved");
    assert_eq!(authority.approvals[0].person, "bob@example.com");
    let reviews: Vec<_> = rebuilt
        .reviews
        .iter()
        .map(|one| (one.grant_id, one.used.token.as_str(), one.closed.is_some()))
        .collect();
    assert_eq!(reviews, [(id(1), "t1", false), (id(3), "t3", true)]);
}
