//! What the core needs from the world, as traits: time, ledger, access provider, secret store, witness, journal.
//!
//! Owns the contracts between the core and its adapters. Never contains an implementation that does I/O.

pub mod audit;
pub mod clock;
pub mod journal;
pub mod keys;
pub mod law;
pub mod ledger;
pub mod ownership;
pub mod provider;
pub mod seals;
pub mod secrets;
pub mod wake;
pub mod witness;

pub use clock::Clock;
pub use journal::Journal;
pub use keys::KeyDesk;
pub use law::Law;
pub use ledger::Ledger;
pub use ownership::Ownership;
pub use provider::AccessProvider;
pub use seals::Seals;
pub use secrets::SecretStore;
pub use wake::Wake;
pub use witness::Witness;
