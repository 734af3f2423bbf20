//! A stateful Elastic Cloud over HTTP, for `latchkey simulate`, the demo and the tests.
//!
//! It owns its own model of organizations, members, invitations, role assignments, keys,
//! deployments and projects, and a control API under `/_sim`. It never imports the rest of the
//! crate: an error shared between the connector and its simulator would cancel itself out.
//!
//! The core ([`core::Core`]) is synchronous: a request and the time go in, an answer comes out.
//! Sockets, time-outs and faults live around it, in `server` and `edge`.

mod access;
mod assignments;
mod calls;
mod clock;
mod control;
pub mod core;
mod deployments;
mod edge;
mod elasticsearch;
mod es_roles;
mod faults;
mod invitations;
mod keys;
mod members;
mod organizations;
mod projects;
mod rate;
mod reply;
mod request;
mod roles;
mod route;
mod sample;
pub mod server;
mod settings;
mod socket;
mod text;
mod world;

pub use assignments::{Assignment, Assignments, Scope};
pub use calls::{Call, CallReport};
pub use clock::SimClock;
pub use faults::{Action, FaultRule, LateAnswer, Matcher};
pub use server::{Handle, Options, Running, Simulator, StartError};
pub use settings::{SettingError, Settings};
pub use world::{
    ApiKey, Deployment, Invitation, Member, Organization, Person, Project, ProjectType, Resource,
    Tag, World, WorldError,
};
