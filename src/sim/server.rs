//! Starting and stopping the simulator, and reaching into it from the same process.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::decompression::RequestDecompressionLayer;

use super::assignments::Assignments;
use super::calls::CallReport;
use super::clock::SimClock;
use super::control;
use super::core::Core;
use super::edge::{self, Shared};
use super::faults::FaultRule;
use super::settings::Settings;
use super::socket::{Cut, CuttableListener};
use super::world::{World, WorldError};

/// What to simulate, and where.
#[derive(Debug)]
pub struct Options {
    /// A loopback address; port 0 picks one
    pub listen: SocketAddr,
    /// What exists
    pub world: World,
    /// How it behaves
    pub settings: Settings,
    /// Makes ids, orders and faults repeat
    pub seed: u64,
    /// The simulated time
    pub clock: SimClock,
}

impl Options {
    /// A world on a free loopback port, with defaults for everything else.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            world,
            settings: Settings::default(),
            seed: 1,
            clock: SimClock::default(),
        }
    }
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control API has no authentication, so it never leaves the machine
    #[error("the simulator listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The address is taken or not ours
    #[error("listen on {address}")]
    Listen {
        /// Which
        address: SocketAddr,
        /// Why
        #[source]
        source: std::io::Error,
    },
    /// The world does not fit together
    #[error(transparent)]
    World(#[from] WorldError),
}

/// Starts simulators.
#[derive(Debug)]
pub struct Simulator;

/// A simulator that answers. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    tasks: JoinSet<()>,
}

/// Reaches into a running simulator without HTTP.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Simulator {
    /// Binds, then serves in the background. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is not loopback or not free, or the world is inconsistent.
    pub async fn start(options: Options) -> Result<Running, StartError> {
        if !options.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(options.listen));
        }
        options.world.check()?;
        let listen_error = |source| StartError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let base_url = format!("http://{address}");
        let core = Core::new(options.world, options.settings, options.seed, base_url);
        let shared = Arc::new(Shared::new(core, options.seed, options.clock));
        let service = Router::new()
            .fallback(edge::serve)
            .with_state(Arc::clone(&shared))
            .layer(RequestDecompressionLayer::new())
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .into_make_service_with_connect_info::<Cut>();
        let stop = shared.stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let serving = axum::serve(CuttableListener(listener), service)
                .with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::warn!(%error, "The simulator stopped serving");
            }
        });
        Ok(Running {
            address,
            handle: Handle { shared },
            tasks,
        })
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The id of the first organization.
    #[must_use]
    pub fn organization_id(&self) -> String {
        self.handle.read(|core| main_organization(core).0)
    }

    /// The value of an owner's key of the first organization; empty if it has none.
    #[must_use]
    pub fn api_key(&self) -> String {
        self.handle.read(|core| main_organization(core).1)
    }

    /// What `latchkey simulate` prints when it is ready.
    #[must_use]
    pub fn ready_line(&self) -> Value {
        self.handle.read(ready_line)
    }

    /// Reaches into it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Cuts what hangs, finishes what is under way, and ends.
    pub async fn shutdown(mut self) {
        self.handle.shared.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shared.stop.cancel();
    }
}

impl Handle {
    /// Looks at the world and changes it at will, with everything applied that is due.
    pub fn with<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        let (mut state, _) = self.shared.settled();
        state.core.touch();
        work(&mut state.core)
    }

    /// Looks at the world, with everything applied that is due.
    pub fn read<R>(&self, look: impl FnOnce(&Core) -> R) -> R {
        look(&self.shared.settled().0.core)
    }

    /// The world in its normal order.
    #[must_use]
    pub fn world(&self) -> World {
        self.read(|core| core.world.normalised())
    }

    /// What a member holds, in normal order; nothing for strangers.
    #[must_use]
    pub fn assignments(&self, user_id: &str) -> Assignments {
        self.read(|core| {
            core.world
                .membership(user_id)
                .map(|(_, member)| member.role_assignments.normalised())
                .unwrap_or_default()
        })
    }

    /// The simulated time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// Moves the simulated time.
    pub fn advance(&self, by: TimeDelta) {
        self.shared.clock.advance(by);
    }

    /// Replaces all faults.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        self.shared.settled().0.faults.set(rules);
    }

    /// What was called.
    #[must_use]
    pub fn calls(&self) -> CallReport {
        self.shared.settled().0.calls.report()
    }

    /// Forgets what was called.
    pub fn reset_calls(&self) {
        self.shared.settled().0.calls.reset();
    }

    /// A control call without HTTP, such as `("POST", "sso-login", {...})`.
    ///
    /// # Errors
    /// The error body, when the control API refuses.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let reply = control::call(&self.shared, method, path, body);
        let value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        if reply.status < 300 {
            Ok(value)
        } else {
            Err(value)
        }
    }
}

fn main_organization(core: &Core) -> (String, String) {
    let Some(organization) = core.world.organizations.first() else {
        return (String::new(), String::new());
    };
    let owners_key = organization.api_keys.iter().find(|key| {
        key.role_assignments
            .has_organization_role(&organization.id, "organization-admin")
    });
    let key = owners_key.map(|key| key.key.clone()).unwrap_or_default();
    (organization.id.clone(), key)
}

pub(crate) fn ready_line(core: &Core) -> Value {
    let (organization_id, api_key) = main_organization(core);
    let projects: Vec<Value> = core
        .world
        .organizations
        .iter()
        .take(1)
        .flat_map(|organization| &organization.projects)
        .map(|project| {
            let mut line = json!({
                "id": project.id,
                "type": project.kind.name(),
                "name": project.name,
                "elasticsearch_url": core.elasticsearch_url(&project.id),
            });
            if let Some(key) = &project.elasticsearch_key {
                line["elasticsearch_key"] = json!(key);
            }
            line
        })
        .collect();
    json!({
        "base_url": core.base_url,
        "organization_id": organization_id,
        "api_key": api_key,
        "projects": projects,
    })
}
