//! An organization that a test scripts, and the provider that shows it. It refuses to change anything.

use super::*;

/// An organization as a test scripts it.
#[derive(Debug)]
pub(crate) struct Org {
    pub(crate) members: BTreeMap<UserId, ObservedMember>,
    pub(crate) incomplete: Option<Incomplete>,
    pub(crate) down: Option<ReadError>,
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) projects: Vec<Project>,
    pub(crate) invitations: Vec<ObservedInvitation>,
    pub(crate) key: KeyStatus,
}

#[derive(Debug)]
pub(crate) struct FakeProvider {
    clock: Arc<HandClock>,
    org: Mutex<Org>,
    pub(crate) member_reads: AtomicUsize,
    pub(crate) deployment_reads: AtomicUsize,
}

impl FakeProvider {
    /// Three members and the key's own, three deployments, three projects.
    pub(super) fn new(clock: Arc<HandClock>) -> Self {
        Self {
            clock,
            org: Mutex::new(Org {
                members: [
                    member("1", "ada@example.com"),
                    member("2", "bob@example.com"),
                    member("3", "cy@example.com"),
                    member("9", "key@example.com"),
                ]
                .into_iter()
                .map(|member| (member.user_id.clone(), member))
                .collect(),
                incomplete: None,
                down: None,
                deployments: ["a", "b", "c"].map(deployment).to_vec(),
                projects: vec![
                    project(ProjectType::Security, "s1"),
                    project(ProjectType::Elasticsearch, "e2"),
                    project(ProjectType::Elasticsearch, "e1"),
                ],
                invitations: Vec::new(),
                key: KeyStatus {
                    loaded: true,
                    own_user_id: Some(user("9")),
                    ..KeyStatus::default()
                },
            }),
            member_reads: AtomicUsize::new(0),
            deployment_reads: AtomicUsize::new(0),
        }
    }

    pub(crate) fn script(&self, change: impl FnOnce(&mut Org)) {
        change(&mut self.org.lock().expect("not poisoned"));
    }

    fn read<T>(&self, value: impl FnOnce(&Org) -> T) -> ReadResult<T> {
        let org = self.org.lock().expect("not poisoned");
        match &org.down {
            Some(error) => Err((error.clone(), CallEvidence::default())),
            None => Ok((value(&org), CallEvidence::default())),
        }
    }
}

const NO_MUTATION: &str = "the surface never changes anything upstream";

#[async_trait]
impl AccessProvider for FakeProvider {
    fn pin(&self) -> KeyPin {
        KeyPin(1)
    }

    fn key_status(&self) -> KeyStatus {
        self.org.lock().expect("not poisoned").key.clone()
    }

    fn request_lifetime(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn organization(&self, _: Priority) -> ReadResult<Organization> {
        self.read(|_| Organization {
            id: OrganizationId::parse("42").expect("valid"),
            name: "Acme".to_owned(),
        })
    }

    async fn read_members(&self, interest: &Interest, _: Priority) -> ReadResult<MembersRead> {
        self.member_reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let now = self.clock.now();
        self.read(|org| {
            let paged = |member: &ObservedMember| {
                interest.pages.iter().any(|(after, size)| {
                    org.members
                        .keys()
                        .filter(|id| after.as_ref().is_none_or(|after| *id > after))
                        .take(*size)
                        .any(|id| *id == member.user_id)
                })
            };
            MembersRead {
                started_at: now,
                finished_at: now,
                incomplete: org.incomplete,
                members: org
                    .members
                    .values()
                    .filter(|member| {
                        interest.users.contains(&member.user_id)
                            || member
                                .email
                                .as_ref()
                                .is_some_and(|email| interest.emails.contains(email))
                            || paged(member)
                    })
                    .map(|member| (member.user_id.clone(), member.clone()))
                    .collect(),
                total: org.members.len(),
                owners: 1,
                recognized: Vec::new(),
            }
        })
    }

    async fn add(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("{NO_MUTATION}");
    }

    async fn remove(&self, _: KeyPin, _: &UserId, _: &[Assignment]) -> Outcome<()> {
        panic!("{NO_MUTATION}");
    }

    fn preview(&self, kind: WriteKind, user: &UserId, assignments: &[Assignment]) -> PlannedCall {
        PlannedCall {
            method: match kind {
                WriteKind::Add => "POST",
                WriteKind::Remove => "DELETE",
            }
            .to_owned(),
            path: format!("/api/v1/users/{user}/role_assignments"),
            body: assignments.iter().map(ToString::to_string).collect(),
        }
    }

    async fn invitations(&self, _: Priority) -> ReadResult<Vec<ObservedInvitation>> {
        self.read(|org| org.invitations.clone())
    }

    async fn invite(&self, _: KeyPin, _: &Email, _: Duration) -> Outcome<ObservedInvitation> {
        panic!("{NO_MUTATION}");
    }

    async fn cancel_invitation(&self, _: KeyPin, _: &InvitationToken) -> Outcome<()> {
        panic!("{NO_MUTATION}");
    }

    async fn deployments(&self, _: Priority) -> ReadResult<Vec<Deployment>> {
        self.deployment_reads.fetch_add(1, Ordering::SeqCst);
        self.read(|org| org.deployments.clone())
    }

    async fn projects(&self, project_type: ProjectType, _: Priority) -> ReadResult<Vec<Project>> {
        self.read(|org| {
            org.projects
                .iter()
                .filter(|project| project.project_type == project_type)
                .cloned()
                .collect()
        })
    }

    async fn project_roles(
        &self,
        _: ProjectType,
        _: &ProjectId,
        _: Priority,
    ) -> ReadResult<Vec<ProjectRole>> {
        self.read(|_| {
            ["b", "a"]
                .map(|name| ProjectRole {
                    name: name.to_owned(),
                    description: String::new(),
                })
                .to_vec()
        })
    }
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("valid")
}

pub(crate) fn member(id: &str, email: &str) -> ObservedMember {
    ObservedMember {
        user_id: user(id),
        member_since: at("2025-01-01T00:00:00Z"),
        email: Some(Email::parse(email).expect("valid")),
        name: String::new(),
        assignments: BTreeSet::new(),
    }
}

pub(crate) fn deployment(id: &str) -> Deployment {
    Deployment {
        id: DeploymentId::parse(id).expect("valid"),
        name: format!("deployment {id}"),
        alias: None,
        tags: vec![("team".to_owned(), "search".to_owned())],
        region: "eu".to_owned(),
    }
}

pub(crate) fn project(kind: ProjectType, id: &str) -> Project {
    Project {
        id: ProjectId::parse(id).expect("valid"),
        name: id.to_owned(),
        project_type: kind,
        alias: String::new(),
        region: "eu".to_owned(),
        tags: Vec::new(),
    }
}

pub(crate) fn assignment(role: &str, deployment: &str) -> Assignment {
    Assignment {
        role: role.to_owned(),
        target: Target::Deployment {
            id: DeploymentId::parse(deployment).expect("valid"),
        },
        application_roles: ApplicationRoles::Mapped,
    }
}
