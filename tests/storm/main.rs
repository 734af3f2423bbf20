//! Storms of revocations in virtual time: the real driver, passes, shared reads, ledger in memory and rate limiter in
//! front of an organization that counts and limits calls. Nothing here waits for real time.
//!
//! `cargo test --profile sim --no-default-features --test storm -- --nocapture` prints the figures of
//! docs/performance.md; without that profile the storms are a tenth of the size.

mod admission;
mod clock;
mod outage;
mod stage;
mod storms;
mod upstream;
