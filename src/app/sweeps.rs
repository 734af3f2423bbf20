//! The periodic sweeps of this process.
//!
//! Owns what each sweep asks. Never carries a revocation: sweeps find what a lost wake-up would have left lying.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;

use super::integration::Integration;
use crate::audit::Sealer;
use crate::domain::Timestamp;
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::grant::GrantState;
use crate::domain::ids::IntegrationName;
use crate::ports::{AccessProvider, Clock, Ledger, Wake};
use crate::scheduler::hidden::{LATE, raise_hidden};
use crate::scheduler::sweeps::Sweep;
use crate::service::Service;
use crate::service::rotation::{Progress, Rotator};

/// What the sweeps work on.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) integrations: Vec<Integration>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wake: Arc<dyn Wake>,
    pub(super) service: Arc<Service>,
    /// How long before its end a grant is announced.
    pub(super) remind_before: Vec<TimeDelta>,
    /// When grants were last announced.
    pub(super) reminded_at: Arc<Mutex<Option<Timestamp>>>,
    /// How long ended grants stay.
    pub(super) keep_ended: TimeDelta,
    /// Rotates the keys, by integration.
    pub(super) rotators: BTreeMap<IntegrationName, Arc<Rotator>>,
    /// Seals the audit, where that is configured.
    pub(super) sealer: Option<Arc<Sealer>>,
}

/// When each sweep runs, as cron expressions with seconds in UTC.
#[derive(Debug, Clone)]
pub(super) struct Schedules {
    pub(super) directory: String,
    pub(super) drift: String,
    pub(super) overdue: String,
    pub(super) second_looks: String,
    pub(super) key_expiry: String,
    pub(super) reminders: String,
    pub(super) retention: String,
    pub(super) secret_refresh: String,
    pub(super) audit_seal: String,
    pub(super) key_rotation: String,
}

/// Members that one overdue sweep hands over.
const OVERDUE_PAGE: usize = 1_000;
/// Members that one run looks at for announcements.
const REMINDER_PAGE: usize = 10_000;
/// Rows that one retention sweep drops at a time.
const PRUNE_PAGE: usize = 5_000;
/// Levels of warning before a key dies.
const KEY_LEVELS: [i64; 3] = [30, 14, 3];

/// The sweeps of this process.
pub(super) fn all(parts: &Parts, schedules: Schedules) -> Vec<Sweep> {
    let Schedules {
        directory,
        drift,
        overdue,
        second_looks,
        key_expiry,
        reminders,
        retention,
        secret_refresh,
        audit_seal,
        key_rotation,
    } = schedules;
    vec![
        sweep("directory", directory, parts, |parts| async move {
            sync_directory(&parts).await
        }),
        sweep("drift", drift, parts, |parts| async move {
            find_drift(&parts).await
        }),
        sweep("overdue", overdue, parts, |parts| async move {
            let due = hand_over_due(&parts, LATE).await?;
            let hidden = raise_all_hidden(&parts).await?;
            Ok(format!("{due}, {hidden} hidden removals raised"))
        }),
        sweep("second_looks", second_looks, parts, |parts| async move {
            hand_over_due(&parts, TimeDelta::zero()).await
        }),
        sweep("key_expiry", key_expiry, parts, |parts| async move {
            watch_keys(&parts)
        }),
        sweep("reminders", reminders, parts, |parts| async move {
            remind(&parts).await
        }),
        sweep("retention", retention, parts, |parts| async move {
            prune(&parts).await
        }),
        sweep(
            "secret_refresh",
            secret_refresh,
            parts,
            |parts| async move { refresh_secrets(&parts).await },
        ),
        sweep("audit_seal", audit_seal, parts, |parts| async move {
            seal(&parts).await
        }),
        sweep("key_rotation", key_rotation, parts, |parts| async move {
            rotate_keys(&parts).await
        }),
    ]
}

fn sweep<F>(
    name: &'static str,
    schedule: String,
    parts: &Parts,
    work: impl Fn(Parts) -> F + Send + Sync + 'static,
) -> Sweep
where
    F: Future<Output = Result<String, String>> + Send + 'static,
{
    let parts = parts.clone();
    Sweep {
        name,
        schedule,
        run: Arc::new(move || Box::pin(work(parts.clone()))),
    }
}

async fn seal(parts: &Parts) -> Result<String, String> {
    let Some(sealer) = &parts.sealer else {
        return Ok("not configured".to_owned());
    };
    match sealer.run(parts.clock.now()).await {
        Ok(sealed) => Ok(format!("{} records", sealed.records)),
        Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
    }
}

async fn sync_directory(parts: &Parts) -> Result<String, String> {
    parts.service.refresh_directory().await
}

async fn find_drift(parts: &Parts) -> Result<String, String> {
    let (mut compared, mut differing, mut forgotten) = (0, 0, 0);
    for integration in parts.integrations.iter().filter(|one| one.is_ours()) {
        let swept = integration
            .reconciler
            .sweep()
            .await
            .map_err(|error| error.code().to_owned())?;
        compared += swept.compared;
        differing += swept.differing;
        if let Some(code) = swept.failure {
            return Err(code);
        }
        let watched = integration
            .reconciler
            .watch_forgotten()
            .await
            .map_err(|error| error.code().to_owned())?;
        forgotten += watched.present;
        if let Some(code) = watched.failure {
            return Err(code);
        }
    }
    Ok(format!(
        "{compared} members compared, {differing} differ, {forgotten} given up and still there"
    ))
}

/// A safety net under the drivers: whatever the ledger says is due is handed over once more.
async fn hand_over_due(parts: &Parts, late_by: TimeDelta) -> Result<String, String> {
    let mut handed = 0;
    for integration in parts.integrations.iter().filter(|one| one.is_ours()) {
        let until = parts.clock.now() - late_by;
        let due = parts
            .ledger
            .due(&integration.name, until, OVERDUE_PAGE)
            .await
            .map_err(|error| error.code().to_owned())?;
        for member in due {
            parts.wake.wake(&member.key, member.due);
            handed += 1;
        }
    }
    Ok(format!("{handed} members handed over"))
}

/// Hands over removals that wait behind something less urgent of the same member. One organization that cannot be read
/// keeps no other waiting.
async fn raise_all_hidden(parts: &Parts) -> Result<usize, String> {
    let (mut raised, mut trouble) = (0, None);
    for integration in parts.integrations.iter().filter(|one| one.is_ours()) {
        let (ledger, wake) = (parts.ledger.as_ref(), parts.wake.as_ref());
        match raise_hidden(ledger, wake, &integration.name, parts.clock.now()).await {
            Ok(count) => raised += count,
            Err(error) => trouble = Some(error.code().to_owned()),
        }
    }
    trouble.map_or(Ok(raised), Err)
}

fn watch_keys(parts: &Parts) -> Result<String, String> {
    let now = parts.clock.now();
    for integration in &parts.integrations {
        let Some(expires_at) = integration.elastic.key_status().expires_at else {
            continue;
        };
        let left = expires_at - now;
        if let Some(level) = KEY_LEVELS
            .iter()
            .rev()
            .find(|days| left <= TimeDelta::days(**days))
        {
            tracing::error!(
                integration = %integration.name, days_left = left.num_days(), level,
                "Key expires soon; put a new one into the secret store, or nothing can be revoked any more"
            );
        }
    }
    Ok("keys looked at".to_owned())
}

/// Announces grants that end soon, so that the engineer can extend in time: an event on the grant, which a watch
/// delivers. Each announcement falls into exactly one run of this process.
async fn remind(parts: &Parts) -> Result<String, String> {
    let now = parts.clock.now();
    let since = {
        let mut last = parts
            .reminded_at
            .lock()
            .expect("no code panics while it holds this lock");
        last.replace(now).unwrap_or(now)
    };
    let Some(longest) = parts.remind_before.iter().max().copied() else {
        return Ok("nothing to announce".to_owned());
    };
    let code = |error: crate::ports::ledger::LedgerError| error.code().to_owned();
    let mut events = Vec::new();
    for integration in parts.integrations.iter().filter(|one| one.is_ours()) {
        // A member's next due instant is never later than the end of any of its grants.
        let soon = parts
            .ledger
            .due(&integration.name, now + longest, REMINDER_PAGE)
            .await
            .map_err(code)?;
        for member in soon {
            for grant in parts.ledger.member(&member.key).await.map_err(code)?.grants {
                let GrantState::Active { expires_at, .. } = grant.state else {
                    continue;
                };
                let fell_due = |before: &TimeDelta| {
                    expires_at - *before > since && expires_at - *before <= now
                };
                if expires_at > now && parts.remind_before.iter().any(fell_due) {
                    let seconds_left = (expires_at - now).num_seconds();
                    tracing::info!(grant.id = %grant.id, seconds_left, "Grant ends soon");
                    let kind = EventKind::GrantEndsSoon {
                        expires_at,
                        seconds_left,
                    };
                    events.push(AuditEvent::grant(now, &grant, kind));
                }
            }
        }
    }
    let announced = events.len();
    if announced > 0 {
        parts.ledger.append(events).await.map_err(code)?;
    }
    Ok(format!("{announced} grants end soon"))
}

async fn prune(parts: &Parts) -> Result<String, String> {
    let now = parts.clock.now();
    let mut dropped = 0;
    loop {
        let count = parts
            .ledger
            .prune(now, now - parts.keep_ended, PRUNE_PAGE)
            .await
            .map_err(|error| error.code().to_owned())?;
        dropped += count;
        if count < PRUNE_PAGE as u64 {
            return Ok(format!("{dropped} rows dropped"));
        }
    }
}

/// Goes on with every rotation of a key that this process may go on with.
async fn rotate_keys(parts: &Parts) -> Result<String, String> {
    let mut words = Vec::new();
    for integration in parts.integrations.iter().filter(|one| one.is_ours()) {
        let Some(rotator) = parts.rotators.get(&integration.name) else {
            continue;
        };
        let expires_at = integration.elastic.key_status().expires_at;
        // Before the key has answered once nobody knows when it ends.
        let is_known = integration.elastic.key_status().last_success_at.is_some();
        let asked = if is_known {
            rotator.ask_if_due(expires_at).await
        } else {
            Ok(false)
        };
        if let Err(error) = asked {
            words.push(format!("{}: {}", integration.name, error.code()));
        }
        match rotator
            .run()
            .await
            .map_err(|error| error.code().to_owned())?
        {
            Progress::Idle => {}
            Progress::Waits(until) => {
                words.push(format!("{}: waits until {until}", integration.name))
            }
            Progress::Troubled(code) => words.push(format!("{}: {code}", integration.name)),
            Progress::Busy => words.push(format!("{}: goes on", integration.name)),
        }
    }
    Ok(if words.is_empty() {
        "nothing to rotate".to_owned()
    } else {
        words.join(", ")
    })
}

async fn refresh_secrets(parts: &Parts) -> Result<String, String> {
    let mut words = Vec::new();
    for integration in &parts.integrations {
        words.push(format!(
            "{}: {}",
            integration.name,
            integration.refresh_key().await?
        ));
    }
    Ok(words.join(", "))
}
