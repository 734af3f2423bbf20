//! The calls of the provider port, as the connector makes them.
//!
//! Owns what each call asks and how its answer reads. How it gets there and back stands in the module above.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use latchkey::domain::assignment::{Assignment, ProjectType, Target};
use latchkey::domain::ids::{
    DeploymentId, Email, InvitationToken, OrganizationId, ProjectId, UserId,
};
use latchkey::domain::member::WriteKind;
use latchkey::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember, meet};
use latchkey::ports::provider::{
    Claim, Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, Rate, ReadResult, Turn,
};
use latchkey::ports::{AccessProvider, Clock};

use super::super::cast::{ROBOT, each};
use super::super::clock::Ms;
use super::super::invariants::PAUSE;
use super::super::network::{Reply, refusal};
use super::super::stage::{Inner, Stage, say};
use super::super::world::{Invited, Pending, Verdict};
use super::{Cloud, Held, WAIT, evidence};

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
