//! Values to work with, and the ledgers in this process to run each claim against.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use latchkey::domain::Timestamp;
use latchkey::domain::assignment::{ApplicationRoles, Assignment, Target};
use latchkey::domain::event::{AuditEvent, EventKind};
use latchkey::domain::grant::{Certainty, EndCause, Grant, GrantState, GrantedAssignment, Holding};
use latchkey::domain::ids::{
    CallerName, DeploymentId, Email, GrantId, IntegrationName, RequestId, UserId,
};
use latchkey::domain::member::{
    Due, DueKind, LastWrite, MemberKey, MemberRecord, Owned, Phase, Subject, WriteKind,
    WriteOutcome,
};
use latchkey::domain::request::Fingerprint;
use latchkey::domain::ttl::Ttl;
use latchkey::ports::Ledger;
use latchkey::ports::ledger::{Accept, Accepted, MemberCommit};
use latchkey::store::sqlite::Options;
use latchkey::store::{MemoryLedger, SqliteLedger};
use tokio::task::JoinSet;

/// Makes a test per claim and adapter.
macro_rules! on_every_ledger {
    ($($claim:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $claim() {
                crate::support::on_memory(super::$claim).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $claim() {
                crate::support::on_sqlite(super::$claim).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $claim() {
                crate::server::on_postgres(super::$claim).await;
            })*
        }
        mod pooler {
            $(#[tokio::test]
            async fn $claim() {
                crate::server::on_pooler(super::$claim).await;
            })*
        }
    };
}
pub(crate) use on_every_ledger;

pub(crate) type AnyLedger = Arc<dyn Ledger>;

pub(crate) async fn on_memory<F: Future<Output = ()>>(claim: impl FnOnce(AnyLedger) -> F) {
    claim(Arc::new(MemoryLedger::new())).await;
}

pub(crate) async fn on_sqlite<F: Future<Output = ()>>(claim: impl FnOnce(AnyLedger) -> F) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = File::open(&folder.path().join("ledger.db"), Options::default()).await;
    claim(Arc::new(file.ledger.clone())).await;
    file.close().await;
}

/// An open SQLite ledger and the task of its writer.
pub(crate) struct File {
    pub(crate) ledger: SqliteLedger,
    pub(crate) writer: JoinSet<()>,
}

impl File {
    pub(crate) async fn open(path: &Path, options: Options) -> Self {
        let (ledger, run) = SqliteLedger::open(path, options)
            .await
            .expect("the ledger opens");
        let mut writer = JoinSet::new();
        writer.spawn(run);
        Self { ledger, writer }
    }

    pub(crate) async fn close(mut self) {
        self.ledger.close().await;
        while let Some(ended) = self.writer.join_next().await {
            ended.expect("the writer ends in order");
        }
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).expect("in range")
}

pub(crate) fn integration(name: &str) -> IntegrationName {
    IntegrationName::parse(name).expect("valid")
}

pub(crate) fn caller(name: &str) -> CallerName {
    CallerName::parse(name).expect("valid")
}

pub(crate) fn request_id(text: &str) -> RequestId {
    RequestId::parse(text).expect("valid")
}

pub(crate) fn user(id: &str) -> Subject {
    Subject::Member(UserId::parse(id).expect("valid"))
}

pub(crate) fn invitee(email: &str) -> Subject {
    Subject::Invitee(Email::parse(email).expect("valid"))
}

pub(crate) fn key(subject: Subject) -> MemberKey {
    MemberKey {
        integration: integration("main"),
        subject,
    }
}

pub(crate) fn deployment(id: &str) -> Target {
    Target::Deployment {
        id: DeploymentId::parse(id).expect("valid"),
    }
}

pub(crate) fn assignment(target: Target) -> Assignment {
    Assignment {
        role: "deployment-viewer".to_owned(),
        target,
        application_roles: ApplicationRoles::Exactly(BTreeSet::new()),
    }
}

pub(crate) fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint([byte; 32])
}

/// Grant number `n`: its id, request id (`r<n>`) and creation follow from the number.
pub(crate) fn grant(n: u8, subject: Subject) -> Grant {
    Grant {
        id: GrantId::new(at(i64::from(n)), [n; 10]),
        integration: integration("main"),
        beneficiary: subject.to_string(),
        subject,
        caller: caller("control-plane"),
        request_id: request_id(&format!("r{n}")),
        requester: String::new(),
        justification: "incident 7".to_owned(),
        assignments: vec![GrantedAssignment {
            assignment: assignment(deployment("a")),
            holding: Holding::Undecided,
        }],
        duration: Ttl::from_seconds(3600).expect("valid"),
        starts_at: None,
        not_after: None,
        created_at: at(i64::from(n)),
        state: GrantState::Activating {
            since: at(i64::from(n)),
            must_end_by: None,
        },
        version: 1,
        certainty: Certainty::Unknown,
        externally_modified: false,
        invited: false,
        attempts: 0,
        last_error: None,
        verified_at: None,
        removal_sent_at: None,
        authority: None,
    }
}

pub(crate) fn due(seconds: i64, kind: DueKind, weight: u32) -> Due {
    Due {
        at: at(seconds),
        kind,
        weight,
    }
}

pub(crate) fn event_of(grant: &Grant) -> AuditEvent {
    AuditEvent::grant(
        grant.created_at,
        grant,
        EventKind::GrantAccepted {
            state: grant.state.name().to_owned(),
            assignments: vec!["deployment-viewer on deployment/a".to_owned()],
            duration_s: 3600,
            requester: String::new(),
            justification: "incident 7".to_owned(),
            policies: Vec::new(),
        },
    )
}

/// An event that belongs to no grant, told apart by its action.
pub(crate) fn lifecycle(action: &str) -> AuditEvent {
    AuditEvent {
        at: at(0),
        integration: None,
        subject: None,
        grant_id: None,
        caller: None,
        kind: EventKind::Lifecycle {
            action: action.to_owned(),
            version: "0".to_owned(),
        },
    }
}

pub(crate) fn accept(grant: Grant) -> Accept {
    Accept {
        fingerprint: fingerprint(1),
        remember_until: at(86_400),
        due: Due {
            at: grant.created_at,
            kind: DueKind::Grant,
            weight: 10,
        },
        audit: vec![event_of(&grant)],
        grant,
    }
}

/// Accepts a grant that must be new.
pub(crate) async fn create(ledger: &AnyLedger, grant: Grant) -> Grant {
    match ledger.accept(accept(grant)).await {
        Ok(Accepted::Created(grant)) => grant,
        other => panic!("not created: {other:?}"),
    }
}

pub(crate) fn commit(record: MemberRecord) -> MemberCommit {
    MemberCommit {
        record,
        audit: Vec::new(),
        request: None,
    }
}

pub(crate) fn owned(target: Target) -> Owned {
    Owned {
        assignment: assignment(target),
        phase: Phase::Live,
        since: at(0),
        must_end_by: None,
        last_write: LastWrite {
            kind: WriteKind::Add,
            at: at(0),
            outcome: WriteOutcome::Done,
        },
        seen: false,
        echo_until: None,
        removal_echo_until: None,
        must_survive: Vec::new(),
        blocked: None,
        isolate: false,
        attempts: 0,
    }
}

/// Ends every grant of a record at `seconds`.
pub(crate) fn end_all(record: &mut MemberRecord, seconds: i64) {
    for grant in &mut record.grants {
        grant.state = GrantState::Ended {
            at: at(seconds),
            cause: EndCause::Expired,
        };
    }
    record.due = None;
}
