//! When ledger and witness disagree, and what is rebuilt from which evidence.

use super::*;
use crate::domain::assignment::{ApplicationRoles, Target};
use crate::domain::event::CallEvidence;
use crate::domain::grant::Grant;
use crate::domain::ids::{CallerName, DeploymentId, GrantId, UserId};
use crate::ports::ledger::{Identity, StoredEvent};
use crate::ports::witness::{Binding, Condition, Found};

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
        self.put(
            None,
            EventKind::CallIntended {
                write,
                assignments: vec![viewer(deployment).to_string()],
                must_survive: Vec::new(),
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
    audit.put(
        None,
        EventKind::Drift {
            kind: "survivor_missing".to_owned(),
            assignment: viewer("c").to_string(),
            action: "put back as it was".to_owned(),
        },
    );
    audit.intended(WriteKind::Add, "c");
    audit.ended(WriteKind::Add, "c", "done");
    let rebuilt = audit.rebuilt(None);
    assert_eq!((rebuilt.members, rebuilt.assignments), (vec![], vec![]));
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
