//! Findings over a provider that answers what it is told.

use super::*;
use async_trait::async_trait;
use secrecy::SecretString;

use crate::domain::assignment::{Assignment, ProjectType};
use crate::domain::event::CallEvidence;
use crate::domain::ids::{Email, InvitationToken, ProjectId, UserId};
use crate::domain::member::WriteKind;
use crate::domain::observation::MembersRead;
use crate::ports::provider::{
    Deployment, KeyPin, ObservedInvitation, ObservedKey, Outcome, PlannedCall, Project,
    ProjectRole, ReadResult,
};
use crate::ports::secrets::SecretError;
use crate::runtime::ManualClock;

#[derive(Debug, Clone)]
struct Told {
    organization: Result<Organization, ReadError>,
    incomplete: Option<Incomplete>,
    status: KeyStatus,
    secret: Result<(), SecretError>,
    keys: Vec<ObservedKey>,
}

fn key(id: &str, description: &str, is_own: bool) -> ObservedKey {
    ObservedKey {
        id: id.to_owned(),
        description: description.to_owned(),
        expires_at: None,
        is_own,
    }
}

fn well() -> Told {
    let now = ManualClock::default().now();
    Told {
        organization: Ok(Organization {
            id: organization("1"),
            name: "Example".to_owned(),
        }),
        incomplete: None,
        status: KeyStatus {
            loaded: true,
            expires_at: Some(now + TimeDelta::days(60)),
            own_user_id: Some(UserId::parse("7").expect("valid")),
            skew_ms: Some(40),
            ..KeyStatus::default()
        },
        secret: Ok(()),
        keys: vec![key("k1", "latchkey", true)],
    }
}

fn organization(id: &str) -> OrganizationId {
    OrganizationId::parse(id).expect("valid")
}

fn evidence() -> CallEvidence {
    CallEvidence::default()
}

#[async_trait]
impl SecretStore for Told {
    async fn fetch(&self) -> Result<SecretString, SecretError> {
        self.secret.clone().map(|()| SecretString::from("HUSH"))
    }
    fn describe(&self) -> String {
        "the test".to_owned()
    }
}

#[async_trait]
impl AccessProvider for Told {
    fn pin(&self) -> KeyPin {
        KeyPin(1)
    }
    fn key_status(&self) -> KeyStatus {
        self.status.clone()
    }
    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(1)
    }
    async fn organization(&self, _: Priority) -> ReadResult<Organization> {
        match &self.organization {
            Ok(organization) => Ok((organization.clone(), evidence())),
            Err(error) => Err((error.clone(), evidence())),
        }
    }
    async fn read_members(&self, _: &Interest, _: Priority) -> ReadResult<MembersRead> {
        let now = ManualClock::default().now();
        let read = MembersRead {
            started_at: now,
            finished_at: now,
            incomplete: self.incomplete,
            members: BTreeMap::new(),
            total: 12,
            owners: 2,
            recognized: Vec::new(),
        };
        Ok((read, evidence()))
    }
    async fn add(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("doctor changes nothing")
    }
    async fn remove(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("doctor changes nothing")
    }
    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        panic!("doctor plans nothing")
    }
    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        Ok((Vec::new(), evidence()))
    }
    async fn owner_keys(&self, _: Priority) -> ReadResult<Vec<ObservedKey>> {
        Ok((self.keys.clone(), evidence()))
    }
    async fn invite(&self, _: KeyPin, _: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        panic!("doctor changes nothing")
    }
    async fn cancel_invitation(&self, _: KeyPin, _: &InvitationToken) -> Outcome<()> {
        panic!("doctor changes nothing")
    }
    async fn deployments(&self, _: Priority) -> ReadResult<Vec<Deployment>> {
        Ok((Vec::new(), evidence()))
    }
    async fn projects(&self, _: ProjectType, _: Priority) -> ReadResult<Vec<Project>> {
        Ok((Vec::new(), evidence()))
    }
    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        _: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        Ok((Vec::new(), evidence()))
    }
}

fn probe(name: &str, pinned: Option<&str>, told: Told) -> IntegrationProbe {
    let told = Arc::new(told);
    IntegrationProbe {
        name: IntegrationName::parse(name).expect("valid"),
        pinned: pinned.map(organization),
        provider: Arc::clone(&told) as Arc<dyn AccessProvider>,
        secret: told,
    }
}

fn ledger() -> LedgerProbe {
    LedgerProbe {
        place: "ledger.db".to_owned(),
        writable: Ok(()),
        free_bytes: Some(5 << 30),
        volatile: false,
    }
}

async fn found(told: Told) -> Vec<Finding> {
    let probes = [probe("production", Some("1"), told)];
    let findings = examine(&probes, &ledger(), &ManualClock::default()).await;
    for finding in &findings {
        assert_eq!(
            finding.level == Level::Ok,
            finding.remedy.is_empty(),
            "{finding:?}"
        );
        assert!(!format!("{finding:?}").contains("HUSH"), "{finding:?}");
    }
    findings
}

fn one<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {findings:?}"))
}

fn level(findings: &[Finding], check: &str) -> Level {
    one(findings, check).level
}

#[tokio::test]
async fn a_well_installation_has_no_finding_above_ok() {
    let findings = found(well()).await;
    assert!(
        findings.iter().all(|f| f.level == Level::Ok),
        "{findings:?}"
    );
    assert!(!has_problem(&findings));
}

#[tokio::test]
async fn keys_are_warned_of_at_30_and_14_days_and_are_a_problem_at_3() {
    let now = ManualClock::default().now();
    for (days, expected) in [
        (31, Level::Ok),
        (30, Level::Warning),
        (14, Level::Warning),
        (3, Level::Problem),
        (-1, Level::Problem),
    ] {
        let mut told = well();
        told.status.expires_at = Some(now + TimeDelta::days(days));
        assert_eq!(level(&found(told).await, "key_expiry"), expected, "{days}");
    }
    let mut told = well();
    told.status.expires_at = None;
    assert_eq!(level(&found(told).await, "key_expiry"), Level::Warning);
}

#[tokio::test]
async fn a_key_that_is_not_an_owners_is_a_problem() {
    for incomplete in [
        Incomplete::KeyIsNotOwner,
        Incomplete::OtherOrganization,
        Incomplete::MorePages,
        Incomplete::Ambiguous,
    ] {
        let mut told = well();
        told.incomplete = Some(incomplete);
        assert_eq!(level(&found(told).await, "owner_role"), Level::Problem);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_a_problem_with_a_remedy() {
    let mut told = well();
    told.secret = Err(SecretError::NotFound {
        place: "the test".to_owned(),
        remedy: "look elsewhere".to_owned(),
    });
    let findings = found(told).await;
    assert!(has_problem(&findings));
    assert!(
        findings
            .iter()
            .any(|f| f.check == "secret" && f.remedy == "look elsewhere"),
        "{findings:?}"
    );
    let code = || "x".to_owned();
    for error in [
        ReadError::Refused(Refusal::Unauthenticated { code: code() }),
        ReadError::Refused(Refusal::Forbidden { code: code() }),
        ReadError::Refused(Refusal::NotSent { code: code() }),
        ReadError::Unavailable { code: code() },
    ] {
        let mut told = well();
        told.organization = Err(error);
        assert_eq!(level(&found(told).await, "organization"), Level::Problem);
    }
}

#[tokio::test]
async fn another_organization_than_the_pinned_one_is_a_problem_and_none_pinned_a_warning() {
    for (pinned, expected) in [
        (Some("1"), Level::Ok),
        (Some("2"), Level::Problem),
        (None, Level::Warning),
    ] {
        let probes = [probe("a", pinned, well())];
        let findings = examine(&probes, &ledger(), &ManualClock::default()).await;
        assert_eq!(level(&findings, "organization"), expected, "{pinned:?}");
    }
}

#[tokio::test]
async fn two_integrations_with_one_organization_are_a_problem() {
    let probes = [probe("a", None, well()), probe("b", None, well())];
    let findings = examine(&probes, &ledger(), &ManualClock::default()).await;
    assert_eq!(level(&findings, "one_writer"), Level::Problem);
}

#[tokio::test]
async fn clocks_that_disagree_are_told() {
    for (skew, expected) in [
        (1_000, Level::Ok),
        (-5_000, Level::Warning),
        (90_000, Level::Problem),
        (i64::MIN, Level::Problem),
    ] {
        let mut told = well();
        told.status.skew_ms = Some(skew);
        assert_eq!(level(&found(told).await, "clock_skew"), expected, "{skew}");
    }
    let clock = ManualClock::default();
    clock.set(Timestamp::from_timestamp(0, 0).expect("in range"));
    let findings = examine(&[], &ledger(), &clock).await;
    assert_eq!(level(&findings, "wall_time"), Level::Problem);
    let clock = ManualClock::default();
    let begun = (clock.now(), clock.since_boot());
    clock.jump(TimeDelta::minutes(5));
    assert_eq!(
        level(&examine_clock(begun, &clock), "wall_time"),
        Level::Warning
    );
}

#[test]
fn a_ledger_that_cannot_last_is_told() {
    let full = LedgerProbe {
        free_bytes: Some(1 << 20),
        ..ledger()
    };
    assert_eq!(level(&examine_ledger(&full), "free_space"), Level::Problem);
    let broken = LedgerProbe {
        writable: Err(("read-only".to_owned(), "remount it".to_owned())),
        ..ledger()
    };
    assert_eq!(level(&examine_ledger(&broken), "writable"), Level::Problem);
    let memory = LedgerProbe {
        volatile: true,
        ..ledger()
    };
    assert_eq!(level(&examine_ledger(&memory), "durable"), Level::Warning);
}

#[tokio::test]
async fn other_keys_of_owners_are_named_for_one_of_them_may_be_another_connectors() {
    let with = |keys: Vec<ObservedKey>| Told { keys, ..well() };
    let other = key("k2", "baton\nroles", false);
    let told = with(vec![key("k1", "latchkey", true), other.clone()]);
    let findings = found(told).await;
    let finding = one(&findings, "other_keys");
    assert_eq!(finding.level, Level::Warning);
    assert!(
        finding.message.contains("k2 (baton\\nroles)"),
        "{}",
        finding.message
    );
    // A key that does not name itself is the only one listed.
    let alone = with(vec![other.clone()]);
    assert_eq!(level(&found(alone).await, "other_keys"), Level::Ok);
    let many = (0..9).map(|n| key(&format!("k{n}"), "", false)).collect();
    let findings = found(with(many)).await;
    let finding = one(&findings, "other_keys");
    assert!(finding.message.ends_with("4 more"), "{}", finding.message);
}
