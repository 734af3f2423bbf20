//! Elastic Cloud as the connector reaches it: behind the real rate limiter, through a network that loses, delays,
//! repeats and lies.
//!
//! Owns the calls of the provider port. What a request does is decided upstream, when it takes effect there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use latchkey::domain::assignment::{Assignment, ProjectType, Target};
use latchkey::domain::event::CallEvidence;
use latchkey::domain::ids::{
    DeploymentId, Email, InvitationToken, OrganizationId, ProjectId, UserId,
};
use latchkey::domain::member::WriteKind;
use latchkey::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember, meet};
use latchkey::elastic::limiter::{Feedback, Limiter, LimiterOptions, Permit};
use latchkey::ports::provider::{
    Claim, Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, Rate, ReadError, ReadResult, Refusal, Turn,
};
use latchkey::ports::{AccessProvider, Clock};

use super::cast::{ROBOT, each};
use super::clock::{Ms, sleep};
use super::invariants::PAUSE;
use super::network::{Course, Reply, refusal};
use super::stage::{Inner, Stage, say};
use super::unknowns::Lag;
use super::world::{Invited, Pending, Verdict};

/// How long a mutation waits for its turn, how long it may take, and how long a read may take: as in the adapter.
const WAIT: Duration = Duration::from_secs(10);
const BUDGET: Ms = 2_500;
const READ_WAIT: Duration = Duration::from_secs(30);
/// A removal waits no longer than this for the read that comes before it.
const URGENT_READ_WAIT: Duration = Duration::from_secs(5);

/// One process's way to Elastic Cloud.
#[derive(Debug)]
pub(crate) struct Cloud {
    stage: Arc<Stage>,
    life: u64,
    limiter: Limiter,
}

/// A place in the budget that was taken before it was decided what to send.
#[derive(Debug)]
struct Held(Permit);

fn evidence(call: &str, elapsed: Ms) -> CallEvidence {
    CallEvidence {
        call: call.to_owned(),
        attempts: 1,
        elapsed_ms: elapsed.unsigned_abs(),
        ..CallEvidence::default()
    }
}

impl Cloud {
    pub(crate) fn new(stage: Arc<Stage>, life: u64) -> Self {
        let limiter = Limiter::new(LimiterOptions::default());
        Self {
            stage,
            life,
            limiter,
        }
    }

    /// Waits for a turn; none when it does not come in time.
    async fn permit(&self, claim: Claim, wait: Duration) -> Option<Permit> {
        let permit = tokio::time::timeout(wait, self.limiter.acquire_claim(claim))
            .await
            .ok();
        {
            let mut on = self.stage.on();
            let went = permit.is_some();
            let rate = self.limiter.rate();
            if on.unknowns.limit.is_some() {
                say!(
                    on,
                    None,
                    "turn for {:?}: {went}, {} of {} left",
                    claim.priority,
                    rate.remaining,
                    rate.limit
                );
            }
        }
        self.stage.point(self.life).await;
        permit
    }

    /// Sends one mutation and waits for what comes back.
    async fn send(
        &self,
        pin: KeyPin,
        priority: Priority,
        turn: Option<Turn>,
        who: usize,
        mut what: Pending,
    ) -> (Result<Verdict, Reply>, Ms) {
        self.stage.point(self.life).await;
        if self.pin() != pin {
            return (Err(Reply::Refused(Refusal::KeyRotated)), 0);
        }
        let permit = match turn.and_then(Turn::take::<Held>) {
            Some(held) => held.0,
            None => match self.permit(Claim::of(priority), WAIT).await {
                Some(permit) => permit,
                None => {
                    let mut on = self.stage.on();
                    on.fault(who, PAUSE, "no turn in time");
                    let code = "budget".to_owned();
                    return (Err(Reply::Refused(Refusal::NotSent { code })), 0);
                }
            },
        };
        if self.pin() != pin {
            permit.answered(Feedback::default());
            return (Err(Reply::Refused(Refusal::KeyRotated)), 0);
        }
        let (course, sent_at, feedback) = {
            let mut on = self.stage.on();
            let what_is = |on: &Inner| match &what {
                Pending::Write { kind, set, .. } => format!("{kind:?} {}", on.cast.show(*set)),
                Pending::Invite { .. } => "invite".to_owned(),
                Pending::Cancel { token } => format!("cancel {token}"),
            };
            say!(
                on,
                Some(who),
                "connector: {} for {}",
                what_is(&on),
                on.cast.name(who)
            );
            if let Pending::Write {
                kind,
                set,
                back,
                again,
                sent,
                ..
            } = &mut what
            {
                *sent = on.now;
                (*back, *again) = on.check_sending(*kind, who, *set);
            }
            let (feedback, throttled) = on.count_call();
            let course = if throttled {
                let retry_after = feedback.retry_after;
                Course::Instead(Reply::Refused(Refusal::Throttled { retry_after }), 20)
            } else {
                on.course(&what, who)
            };
            (course, on.now, feedback)
        };
        let answer = match course {
            Course::Decided { number, at, back } if at + back - sent_at < BUDGET => {
                sleep(at - sent_at).await;
                let verdict = self.stage.on().answered(number, who, &what);
                sleep(back).await;
                Ok(verdict)
            }
            Course::Decided { .. } | Course::Silence => {
                sleep(BUDGET).await;
                Err(Reply::Unknown("timeout"))
            }
            Course::Instead(reply, after) => {
                sleep(after.min(BUDGET)).await;
                if matches!(reply, Reply::Refused(_))
                    && let Pending::Write {
                        kind: WriteKind::Add,
                        set,
                        ..
                    } = &what
                {
                    self.stage.on().model.refused(who, *set);
                }
                Err(reply)
            }
        };
        if matches!(answer, Err(Reply::Unknown(_))) {
            permit.answered(Feedback::default());
        } else {
            permit.answered(feedback);
        }
        let elapsed = self.stage.clock.elapsed() - sent_at;
        self.stage.point(self.life).await;
        (answer, elapsed)
    }

    async fn write(
        &self,
        kind: WriteKind,
        priority: Priority,
        turn: Option<Turn>,
        pin: KeyPin,
        user: &UserId,
        set: &[Assignment],
    ) -> Outcome<()> {
        let (who, set) = {
            let mut on = self.stage.on();
            let who = on
                .cast
                .user(user)
                .expect("grants are for people of the cast");
            let all = on.cast.set(set);
            if all.count_ones() as usize != set.len() {
                on.violate(
                    "I3 standing is sacred",
                    Some(who),
                    "an assignment that nobody asked for is changed".to_owned(),
                );
            }
            (who, all)
        };
        let back = 0;
        let what = Pending::Write {
            kind,
            who,
            set,
            back,
            again: false,
            sent: 0,
        };
        let earlier = self.stage.on().model.owner_in_doubt[who];
        let (answer, elapsed) = self.send(pin, priority, turn, who, what).await;
        {
            let mut on = self.stage.on();
            let is_owner = set & (1 << on.cast.owner) != 0;
            if is_owner && kind == WriteKind::Remove && !matches!(answer, Err(Reply::Unknown(_))) {
                on.model.owner_in_doubt[who] = earlier;
            }
        }
        let evidence = evidence("write", elapsed);
        match answer {
            Ok(Verdict::Done | Verdict::Invited(_)) | Err(Reply::Done) => {
                Outcome::Done((), evidence)
            }
            Ok(Verdict::Refused(status, code)) => Outcome::Refused(refusal(status, code), evidence),
            Err(Reply::Refused(refusal)) => Outcome::Refused(refusal, evidence),
            Err(Reply::Unknown(code)) => Outcome::Unknown(CallEvidence {
                code: Some(code.to_owned()),
                ..evidence
            }),
        }
    }

    /// Sends one read. Answers the instant that it shows.
    async fn read(&self, priority: Priority) -> Result<Ms, (ReadError, CallEvidence)> {
        self.stage.point(self.life).await;
        let failed = |error: ReadError, elapsed| Err((error, evidence("read", elapsed)));
        let wait = match priority {
            Priority::Revoke => URGENT_READ_WAIT,
            Priority::Verify | Priority::Retry | Priority::Grant | Priority::Discovery => READ_WAIT,
        };
        let Some(permit) = self.permit(Claim::of(priority), wait).await else {
            // A listing that finds no room holds nothing up.
            if matches!(priority, Priority::Revoke | Priority::Verify) {
                self.stage.on().excuse(None, PAUSE);
            }
            let code = "budget".to_owned();
            return failed(Refusal::NotSent { code }.into(), 0);
        };
        let (latency, broken, feedback, sent_at) = {
            let mut on = self.stage.on();
            let (feedback, throttled) = on.count_call();
            let latency = on.latency();
            let unavailable = |code: &str| ReadError::Unavailable {
                code: code.to_owned(),
            };
            let fails = on.weather.read_fails;
            let broken = if throttled {
                let retry_after = feedback.retry_after;
                Some(ReadError::Refused(Refusal::Throttled { retry_after }))
            } else if on.is_calm() {
                None
            } else if on.world.down_until > on.now {
                Some(unavailable("http_503"))
            } else if !on.world.key.valid {
                Some(refusal(401, "root.unauthorized").into())
            } else if on.dice.chance(fails) {
                Some(unavailable("timeout"))
            } else {
                None
            };
            if let Some(error) = &broken {
                on.tally.faults += 1;
                on.excuse(None, PAUSE);
                say!(on, None, "fault: a read fails, {}", error.code());
            }
            (latency, broken, feedback, on.now)
        };
        sleep(latency).await;
        permit.answered(feedback);
        self.stage.point(self.life).await;
        match broken {
            Some(error) => failed(error, latency),
            None => {
                let mut on = self.stage.on();
                let lag = match on.unknowns.lag {
                    Lag::None => 0,
                    Lag::Always(lag) => lag,
                    Lag::UpTo(most) => on.dice.range(0, most),
                };
                Ok((sent_at + latency / 2 - lag).max(0))
            }
        }
    }
}

fn observed(on: &Inner, stage: &Stage, invited: &Invited) -> ObservedInvitation {
    ObservedInvitation {
        token: InvitationToken::parse(invited.token.clone()).expect("well formed"),
        email: on.cast.emails[invited.who].clone(),
        created_at: stage.clock.upstream(invited.created),
        expires_at: stage.clock.upstream(invited.expires),
        expired: invited.expires <= on.now,
    }
}

#[async_trait]
impl AccessProvider for Cloud {
    fn pin(&self) -> KeyPin {
        KeyPin(self.stage.on().world.key.pin)
    }

    fn key_status(&self) -> KeyStatus {
        let on = self.stage.on();
        KeyStatus {
            loaded: true,
            own_user_id: Some(on.cast.users[ROBOT].clone()),
            sees_owners: on.sees_owners,
            ..KeyStatus::default()
        }
    }

    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn organization(&self, priority: Priority) -> ReadResult<Organization> {
        self.read(priority).await?;
        let id = OrganizationId::parse("1").expect("well formed");
        let name = String::new();
        Ok((Organization { id, name }, evidence("organization", 0)))
    }

    async fn read_members(
        &self,
        interest: &Interest,
        priority: Priority,
    ) -> ReadResult<MembersRead> {
        let started_at = self.stage.clock.now();
        let shows = self.read(priority).await?;
        let mut on = self.stage.on();
        let filtered_by_chance = {
            let odds = on.weather.read_filtered;
            !on.is_calm() && on.dice.chance(odds)
        };
        if filtered_by_chance {
            on.excuse(None, PAUSE);
            on.tally.faults += 1;
        }
        let filtered = filtered_by_chance || !on.world.key.owner;
        let owner = on.cast.owner;
        let mut members = BTreeMap::new();
        let mut recognized = interest.recognize();
        let (mut owners, mut total) = (0, 0);
        for who in 0..on.cast.len() {
            let Some((member_since, mut set)) = on.world.was(who, shows) else {
                continue;
            };
            total += 1;
            if filtered {
                let some = on.unknowns.filtered_shows_some;
                set &= if some { 0b10_1010_1010 } else { 0 };
            }
            owners += usize::from(set & (1 << owner) != 0);
            let (user, email) = (on.cast.users[who].clone(), on.cast.emails[who].clone());
            let is_wanted = interest.users.contains(&user) || interest.emails.contains(&email);
            let member = ObservedMember {
                user_id: user,
                member_since,
                email: Some(email),
                name: String::new(),
                assignments: each(set).map(|pair| on.cast.pairs[pair].clone()).collect(),
            };
            let (differs, _) = meet(&mut recognized, &member);
            if !is_wanted && !differs {
                continue;
            }
            say!(
                on,
                Some(who),
                "read as of {} ms ago shows {}: {}{}",
                on.now - shows,
                on.cast.name(who),
                on.cast.show(set),
                if filtered { " (filtered)" } else { "" }
            );
            members.insert(member.user_id.clone(), member);
        }
        on.sees_owners = Some(owners > 0);
        if owners == 0 && !filtered {
            on.excuse(None, PAUSE);
        }
        let read = MembersRead {
            started_at,
            finished_at: self.stage.clock.now(),
            incomplete: (owners == 0).then_some(Incomplete::KeyIsNotOwner),
            members,
            total,
            owners,
            recognized,
        };
        Ok((read, evidence("members", 0)))
    }

    async fn add(&self, pin: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.write(WriteKind::Add, Priority::Grant, None, pin, user, set)
            .await
    }

    async fn remove(&self, pin: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.write(WriteKind::Remove, Priority::Revoke, None, pin, user, set)
            .await
    }

    async fn remove_again(&self, pin: KeyPin, user: &UserId, set: &[Assignment]) -> Outcome<()> {
        self.write(WriteKind::Remove, Priority::Retry, None, pin, user, set)
            .await
    }

    async fn turn(&self, claim: Claim) -> Option<Turn> {
        let permit = self.permit(claim, WAIT).await;
        if permit.is_none() {
            self.stage.on().excuse(None, PAUSE);
        }
        permit.map(|permit| Turn::holding(Held(permit)))
    }

    async fn add_in_turn(
        &self,
        turn: Turn,
        pin: KeyPin,
        user: &UserId,
        set: &[Assignment],
    ) -> Outcome<()> {
        self.write(WriteKind::Add, Priority::Grant, Some(turn), pin, user, set)
            .await
    }

    async fn remove_in_turn(
        &self,
        turn: Turn,
        pin: KeyPin,
        user: &UserId,
        set: &[Assignment],
    ) -> Outcome<()> {
        self.write(
            WriteKind::Remove,
            Priority::Revoke,
            Some(turn),
            pin,
            user,
            set,
        )
        .await
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.limiter.rate())
    }

    fn preview(&self, _: WriteKind, _: &UserId, _: &[Assignment]) -> PlannedCall {
        PlannedCall {
            method: String::new(),
            path: String::new(),
            body: String::new(),
        }
    }

    async fn invitations(&self, priority: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        self.read(priority).await?;
        let on = self.stage.on();
        let shown = on
            .world
            .invitations
            .iter()
            .filter(|open| open.expires > on.now || on.unknowns.expired_invitations_shown)
            .map(|open| observed(&on, &self.stage, open))
            .collect();
        Ok((shown, evidence("invitations", 0)))
    }

    async fn invite(
        &self,
        pin: KeyPin,
        email: &Email,
        expires_in: Duration,
    ) -> Outcome<ObservedInvitation> {
        let who = self.stage.on().cast.email(email).unwrap_or(0);
        let lasts = Ms::try_from(expires_in.as_millis()).unwrap_or(Ms::MAX / 4);
        let again = false;
        let what = Pending::Invite { who, lasts, again };
        let (answer, elapsed) = self.send(pin, Priority::Grant, None, who, what).await;
        let evidence = evidence("invite", elapsed);
        match answer {
            Ok(Verdict::Invited(invited)) => {
                let on = self.stage.on();
                Outcome::Done(observed(&on, &self.stage, &invited), evidence)
            }
            Ok(Verdict::Refused(status, code)) => Outcome::Refused(refusal(status, code), evidence),
            // An answer without an invitation in it settles nothing.
            Ok(Verdict::Done) | Err(Reply::Done | Reply::Unknown(_)) => {
                self.stage
                    .on()
                    .unanswered(who, &Pending::Invite { who, lasts, again });
                Outcome::Unknown(evidence)
            }
            Err(Reply::Refused(refusal)) => Outcome::Refused(refusal, evidence),
        }
    }

    async fn cancel_invitation(&self, pin: KeyPin, token: &InvitationToken) -> Outcome<()> {
        let token = token.to_string();
        let who = {
            let mut on = self.stage.on();
            let found = on
                .world
                .invitations
                .iter()
                .find(|open| open.token == token)
                .cloned();
            // One that came while an unanswered one of ours may still come cannot be told apart.
            if let Some(Invited {
                ours: false, who, ..
            }) = found
                && on.excused_until(who).max(on.model.invitation_in_doubt[who]) < on.now
            {
                let text =
                    format!("{token} is an administrator's own invitation, and is cancelled");
                on.violate("I3 standing is sacred", Some(who), text);
            }
            found.map_or(0, |invited| invited.who)
        };
        let what = Pending::Cancel { token };
        let (answer, elapsed) = self.send(pin, Priority::Revoke, None, who, what).await;
        let evidence = evidence("cancel", elapsed);
        match answer {
            Ok(Verdict::Done | Verdict::Invited(_)) | Err(Reply::Done) => {
                Outcome::Done((), evidence)
            }
            Ok(Verdict::Refused(status, code)) => Outcome::Refused(refusal(status, code), evidence),
            Err(Reply::Refused(refusal)) => Outcome::Refused(refusal, evidence),
            Err(Reply::Unknown(_)) => Outcome::Unknown(evidence),
        }
    }

    async fn deployments(&self, priority: Priority) -> ReadResult<Vec<Deployment>> {
        self.read(priority).await?;
        let on = self.stage.on();
        let listed = ["a", "b"]
            .map(|id| DeploymentId::parse(id).expect("well formed"))
            .into_iter()
            .filter(|id| {
                let target = Target::Deployment { id: id.clone() };
                !on.world.hidden.contains(&target) && !on.world.deleted.contains(&target)
            })
            .map(|id| Deployment {
                name: id.to_string(),
                id,
                alias: None,
                tags: Vec::new(),
                region: String::new(),
            })
            .collect();
        Ok((listed, evidence("deployments", 0)))
    }

    async fn projects(
        &self,
        project_type: ProjectType,
        priority: Priority,
    ) -> ReadResult<Vec<Project>> {
        self.read(priority).await?;
        let project = Project {
            id: ProjectId::parse("p1").expect("well formed"),
            name: String::new(),
            project_type,
            alias: String::new(),
            region: String::new(),
            tags: Vec::new(),
        };
        let listed = if project_type == ProjectType::Elasticsearch {
            vec![project]
        } else {
            Vec::new()
        };
        Ok((listed, evidence("projects", 0)))
    }

    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        priority: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        self.read(priority).await?;
        Ok((Vec::new(), evidence("roles", 0)))
    }
}
