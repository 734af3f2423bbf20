//! A served connector over loopback: real client, real server, memory ledger, scripted organization, time by hand.

mod provider;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use latchkey::api::pb::access_service_client::AccessServiceClient;
use latchkey::api::pb::connector_service_client::ConnectorServiceClient;
use latchkey::api::pb::directory_service_client::DirectoryServiceClient;
use latchkey::api::{self, Options, pb};
use latchkey::domain::Timestamp;
use latchkey::domain::assignment::{ApplicationRoles, Assignment, ProjectType, Target};
use latchkey::domain::event::{AuditEvent, CallEvidence, EventKind};
use latchkey::domain::grant::Grant;
use latchkey::domain::ids::{
    CallerName, DeploymentId, Email, GrantId, IntegrationName, InvitationToken, OrganizationId,
    ProjectId, UserId,
};
use latchkey::domain::member::{Due, MemberKey, WriteKind};
use latchkey::domain::observation::{Incomplete, Interest, MembersRead, ObservedMember};
use latchkey::policy::Rules;
use latchkey::ports::ledger::MemberCommit;
use latchkey::ports::provider::{
    Deployment, KeyPin, KeyStatus, ObservedInvitation, Organization, Outcome, PlannedCall,
    Priority, Project, ProjectRole, ReadError, ReadResult,
};
use latchkey::ports::{AccessProvider, Clock, Law, Ledger, Seals, Wake, Witness};
use latchkey::reconcile::Observer;
use latchkey::service::{Details, IntegrationParts, Service, Settings};
use latchkey::store::MemoryLedger;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::provider::*;
pub(crate) use super::asks::*;

pub(crate) fn at(text: &str) -> Timestamp {
    chrono::DateTime::parse_from_rfc3339(text)
        .expect("a valid instant")
        .to_utc()
}

pub(crate) const START: &str = "2026-01-01T00:00:00Z";

/// Time that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct HandClock {
    now: Mutex<Timestamp>,
    boot: Mutex<Duration>,
    ids: AtomicU64,
}

impl HandClock {
    fn new() -> Self {
        Self {
            now: Mutex::new(at(START)),
            boot: Mutex::new(Duration::from_secs(1_000)),
            ids: AtomicU64::new(0),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.now.lock().expect("not poisoned") += by;
        *self.boot.lock().expect("not poisoned") += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().expect("not poisoned")
    }

    fn since_boot(&self) -> Duration {
        *self.boot.lock().expect("not poisoned")
    }

    fn entropy(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&self.ids.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        bytes
    }
}

/// Remembers who was woken.
#[derive(Debug, Default)]
pub(crate) struct Bell(pub(crate) Mutex<Vec<(MemberKey, Due)>>);

impl Wake for Bell {
    fn wake(&self, key: &MemberKey, due: Due) {
        self.0
            .lock()
            .expect("not poisoned")
            .push((key.clone(), due));
    }
}

/// What a test may set before the connector starts.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) rules: Rules,
    pub(crate) settings: Settings,
    pub(crate) options: Options,
    /// The customer's law; without one the rules alone decide.
    pub(crate) law: Option<Arc<dyn Law>>,
    /// Whose signatures are taken.
    pub(crate) seals: Option<Arc<dyn Seals>>,
    /// A witness that knows another ledger, and the integration that is in hold for it.
    pub(crate) witness: Option<(Arc<dyn Witness>, IntegrationName)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            settings: Settings {
                heartbeat: Duration::from_millis(50),
                max_members: 2,
                ..Settings::default()
            },
            options: Options::default(),
            law: None,
            seals: None,
            witness: None,
        }
    }
}

/// A served connector.
pub(crate) struct Bed {
    pub(crate) service: Arc<Service>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinSet<()>,
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// In hold, because its ledger is not the one that the witness knows.
    pub(crate) async fn held(witness: Arc<dyn Witness>, name: &IntegrationName) -> Self {
        let setup = Setup {
            witness: Some((witness, name.clone())),
            ..Setup::default()
        };
        Self::with(setup).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let clock = Arc::new(HandClock::new());
        let ledger = Arc::new(MemoryLedger::new());
        let bell = Arc::new(Bell::default());
        let provider = Arc::new(FakeProvider::new(Arc::clone(&clock)));
        let name = IntegrationName::parse("main").expect("valid");
        let observer = Observer::new(
            name.clone(),
            Arc::clone(&provider) as Arc<dyn AccessProvider>,
            Arc::clone(&ledger) as Arc<dyn Ledger>,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        let parts = IntegrationParts {
            provider: Arc::clone(&provider) as Arc<dyn AccessProvider>,
            observer: Arc::new(observer),
            details: Details {
                kind: "elastic-cloud".to_owned(),
                base_url: "https://api.example.com".to_owned(),
                custom_access_details: "Open the console.".to_owned(),
                owners: vec!["platform@example.com".to_owned()],
                resource_owner: "search team".to_owned(),
            },
        };
        let mut service = Service::new(
            Arc::clone(&ledger) as Arc<dyn Ledger>,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&bell) as Arc<dyn Wake>,
            BTreeMap::from([(name, parts)]),
            setup.rules,
            setup.settings,
        );
        if let Some((witness, name)) = setup.witness {
            let (ledger, clock): (Arc<dyn Ledger>, Arc<dyn Clock>) =
                (Arc::clone(&ledger) as _, Arc::clone(&clock) as _);
            let holds = super::holding::holds(witness, &ledger, &clock, &name).await;
            service = service.with_holds(&holds);
        }
        if let Some(law) = setup.law {
            service = service.with_law(law);
        }
        if let Some(seals) = setup.seals {
            service = service.with_seals(seals);
        }
        let service = Arc::new(service);
        let ready = watch::Sender::new(true);
        let shutdown = CancellationToken::new();
        let mut serving = JoinSet::new();
        let address = serve(&service, setup.options, &ready, &shutdown, &mut serving).await;
        Self {
            service,
            ledger,
            clock,
            provider,
            bell,
            ready,
            shutdown,
            serving,
            channel: connect(address).await,
            address,
        }
    }

    /// A second listener on the same connector, where somebody else calls.
    pub(crate) async fn stranger(&mut self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.stranger_channel().await)
    }

    /// The channel of somebody else.
    pub(crate) async fn stranger_channel(&mut self) -> Channel {
        let options = Options {
            caller: CallerName::parse("stranger").expect("valid"),
            ..Options::default()
        };
        connect(self.listen(options).await).await
    }

    /// Time, as the connector asks for it.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// One more listener on the same connector.
    pub(crate) async fn listen(&mut self, options: Options) -> SocketAddr {
        serve(
            &self.service,
            options,
            &self.ready,
            &self.shutdown,
            &mut self.serving,
        )
        .await
    }

    /// A connection of its own.
    pub(crate) async fn reconnect(&self) -> Channel {
        connect(self.address).await
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel.clone())
    }

    pub(crate) fn directory(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
    }

    pub(crate) fn connector(&self) -> ConnectorServiceClient<Channel> {
        ConnectorServiceClient::new(self.channel.clone())
    }

    /// Accepts a grant and answers it.
    pub(crate) async fn grant(&self, request_id: &str) -> pb::Grant {
        self.access()
            .create_grant(create(request_id))
            .await
            .expect("accepted")
            .into_inner()
            .grant
            .expect("a grant")
    }

    /// Does what the engine does when a grant was verified.
    pub(crate) async fn activate(&self, id: &str) {
        self.change(id, |grant, now| {
            grant.bound_before_send(now);
            assert!(grant.activate(now), "{grant} became active");
        })
        .await;
    }

    /// Does what the engine does when a grant's access was seen gone.
    pub(crate) async fn finish(&self, id: &str) {
        self.change(id, |grant, now| assert!(grant.finish(now), "{grant} ended"))
            .await;
    }

    async fn change(&self, id: &str, change: impl FnOnce(&mut Grant, Timestamp)) {
        let id = GrantId::parse(id).expect("valid");
        let grant = self
            .ledger
            .grant(id)
            .await
            .expect("readable")
            .expect("known");
        let key = MemberKey {
            integration: grant.integration,
            subject: grant.subject,
        };
        let mut record = self.ledger.member(&key).await.expect("readable");
        let now = self.clock.now();
        let grant = record
            .grants
            .iter_mut()
            .find(|grant| grant.id == id)
            .expect("it has not ended");
        let from = grant.state.name().to_owned();
        change(grant, now);
        grant.version += 1;
        let event = EventKind::GrantChanged {
            from,
            to: grant.state.name().to_owned(),
            cause: None,
            expires_at: grant.ends_at(),
        };
        let audit = vec![AuditEvent::grant(now, grant, event)];
        self.ledger
            .commit(MemberCommit {
                record,
                audit,
                request: None,
            })
            .await
            .expect("committed");
    }

    /// Grants in the ledger, of whomever.
    pub(crate) async fn count(&self) -> usize {
        self.ledger
            .list_grants(&latchkey::ports::ledger::GrantFilter::default(), None, 1000)
            .await
            .expect("readable")
            .items
            .len()
    }
}

async fn serve(
    service: &Arc<Service>,
    options: Options,
    ready: &watch::Sender<bool>,
    shutdown: &CancellationToken,
    serving: &mut JoinSet<()>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let served = api::serve(
        Arc::clone(service),
        options,
        listener,
        ready.subscribe(),
        shutdown.clone(),
    );
    serving.spawn(async move { served.await.expect("served until shutdown") });
    address
}

async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a valid address")
        .connect()
        .await
        .expect("connected")
}
