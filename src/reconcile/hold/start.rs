//! The comparison at start: is this the ledger that the witness knows?
//!
//! Owns what counts as a disagreement, and bringing both to one generation where there is none. Never changes the
//! witness while they disagree: the right ledger may yet be put back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::accord::Accord;
use super::recover::take_over;
use super::{Held, Hold, Open, intent_of};
use crate::domain::event::{AuditEvent, EventKind};
use crate::domain::ids::{IntegrationName, UserId};
use crate::domain::member::{Due, DueKind, MemberKey};
use crate::ports::ledger::{
    Evidence, HoldReason, HoldRecord, Identity, LedgerError, MEMBERS_AT_A_TIME, MemberCommit,
};
use crate::ports::witness::{Binding, Condition, Found, Intent, WitnessError};
use crate::ports::{Clock, Ledger, Witness};

/// Members taken over at a time.
const TAKEN_OVER_AT_A_TIME: usize = 32;

/// Everything in which a ledger and its witness disagree; empty when they agree. Pure.
///
/// `last` is the sequence of the ledger's newest event.
#[must_use]
pub fn compare(identity: &Identity, last: u64, witness: Option<&Found>) -> Vec<HoldReason> {
    let reason = |code: &str, detail: String| {
        vec![HoldReason {
            code: code.to_owned(),
            detail,
        }]
    };
    let missing = |detail: &str| {
        if identity.witnessed {
            reason("witness_missing", detail.to_owned())
        } else {
            Vec::new()
        }
    };
    let Some(found) = witness else {
        return missing("the ledger was used with a witness, and none is configured");
    };
    let binding = match (&found.condition, &found.binding) {
        (Condition::Damaged { detail }, _) => {
            return reason(
                "witness_damaged",
                format!("the witness cannot be trusted: {detail}"),
            );
        }
        (Condition::Missing, _) => {
            return missing("the ledger was used with a witness, and its file is not there");
        }
        (Condition::Whole, None) => {
            return missing(
                "the ledger was used with a witness, and this one belongs to no ledger",
            );
        }
        (Condition::Whole, Some(binding)) => binding,
    };
    if binding.ledger != identity.id {
        return reason(
            "other_ledger",
            "the witness belongs to another ledger: this one is new, or was put in its place"
                .to_owned(),
        );
    }
    if binding.generation > identity.generation {
        return reason(
            "ledger_behind",
            format!(
                "the witness knows start {} of this ledger, the ledger only {}: it was restored",
                binding.generation, identity.generation
            ),
        );
    }
    if binding.generation == identity.generation && found.mark > last {
        return reason(
            "ledger_behind",
            format!(
                "the witness knows event {} of this ledger, its newest is {last}: it was restored",
                found.mark
            ),
        );
    }
    // One behind is a start that was cut short between the two writes.
    if identity.witnessed && binding.generation + 1 < identity.generation {
        return reason(
            "witness_behind",
            format!(
                "the ledger knows start {}, the witness only {}: the witness is an old copy",
                identity.generation, binding.generation
            ),
        );
    }
    Vec::new()
}

/// Looks at ledger and witness before anything is sent, and answers how each integration stands. Where they disagree
/// the integration is in hold, durably, and what only the witness knows is taken over into the ledger.
///
/// # Errors
/// [`LedgerError`] when the ledger could not be read or written. A witness that fails is not an error: nothing is
/// granted until it works.
pub async fn settle_at_start(
    ledger: Arc<dyn Ledger>,
    witness: Option<Arc<dyn Witness>>,
    integrations: &[IntegrationName],
    clock: Arc<dyn Clock>,
) -> Result<BTreeMap<IntegrationName, Arc<Hold>>, LedgerError> {
    let identity = ledger.identity().await?;
    let last = ledger.last_sequence().await?;
    let found = match &witness {
        None => None,
        Some(witness) => Some(look_at(witness.as_ref()).await),
    };
    let reasons = compare(&identity, last, found.as_ref());
    let trusted = found.as_ref().is_some_and(|found| {
        found.condition == Condition::Whole
            && found.binding.is_some()
            && reasons.iter().all(|reason| reason.code != "witness_behind")
    });
    let known: BTreeMap<IntegrationName, HoldRecord> = ledger
        .holds()
        .await?
        .into_iter()
        .map(|hold| (hold.integration.clone(), hold))
        .collect();
    let accord = Arc::new(Accord::new(
        Arc::clone(&ledger),
        Arc::clone(&clock),
        witness.clone(),
        integrations.to_vec(),
    ));
    if reasons.is_empty()
        && let Err(error) = accord.settle().await
    {
        match error {
            SettleError::Ledger(error) => return Err(error),
            SettleError::Witness(error) => {
                accord.writable.store(false, Ordering::SeqCst);
                tracing::error!(
                    error = error.chain(),
                    "Witness cannot be written; nothing is granted until it can"
                );
            }
        }
    }
    let knowledge = if reasons.is_empty() && known.is_empty() {
        Knowledge::Nothing
    } else {
        consult(witness.as_deref(), found.as_ref(), &reasons).await
    };
    let (open, is_unread) = match knowledge {
        Knowledge::Open(open) => (Some(open), false),
        Knowledge::Nothing => (None, false),
        Knowledge::Unreadable(error) => {
            tracing::error!(
                error = error.chain(),
                "Witness cannot be read; nothing is proven or contradicted by it"
            );
            (None, true)
        }
    };
    let mut holds = BTreeMap::new();
    for name in integrations {
        let record = hold_of(
            ledger.as_ref(),
            clock.as_ref(),
            name,
            known.get(name),
            &reasons,
            trusted,
        )
        .await?;
        let held = match record {
            None => None,
            Some(record) => {
                let by_witness = record.evidence == Evidence::Witness;
                let mine = open
                    .as_ref()
                    .filter(|_| by_witness)
                    .map(|open| of(name, open));
                if let Some(mine) = &mine {
                    import(ledger.as_ref(), clock.as_ref(), mine).await?;
                }
                let codes: Vec<&str> = record.reasons.iter().map(|r| r.code.as_str()).collect();
                tracing::error!(
                    integration = %name,
                    reasons = codes.join(" "),
                    "In hold: nothing is granted and only what is proven is removed; `latchkey hold` shows why"
                );
                Some(Held {
                    record,
                    open: mine.map(names),
                    is_unread: is_unread && by_witness,
                })
            }
        };
        let hold = Hold::new(name.clone(), Arc::clone(&accord), held);
        holds.insert(name.clone(), Arc::new(hold));
    }
    Ok(holds)
}

/// What can be learned from a witness.
#[derive(Debug)]
pub(super) enum Knowledge {
    /// There is none, or it belongs to no ledger yet: there is nothing to be asked.
    Nothing,
    /// It holds these open.
    Open(Vec<Intent>),
    /// It is there, and what it holds open is not known.
    Unreadable(WitnessError),
}

/// Asks a witness that was found like this for what it holds open.
async fn consult(
    witness: Option<&dyn Witness>,
    found: Option<&Found>,
    reasons: &[HoldReason],
) -> Knowledge {
    let unreadable = |detail: &str| {
        Knowledge::Unreadable(WitnessError {
            action: "reading open intents",
            source: detail.into(),
        })
    };
    let (Some(witness), Some(found)) = (witness, found) else {
        return Knowledge::Nothing;
    };
    match &found.condition {
        Condition::Missing => return Knowledge::Nothing,
        Condition::Damaged { detail } => return unreadable(detail),
        Condition::Whole => {}
    }
    if found.binding.is_none() {
        return Knowledge::Nothing;
    }
    if reasons.iter().any(|reason| reason.code == "witness_behind") {
        return unreadable("it is an old copy");
    }
    match witness.open_intents().await {
        Ok(open) => Knowledge::Open(open),
        Err(error) => Knowledge::Unreadable(error),
    }
}

/// The intents of one integration.
pub(super) fn of(name: &IntegrationName, open: &[Intent]) -> Vec<Intent> {
    let mine = open.iter().filter(|intent| intent.integration == *name);
    mine.cloned().collect()
}

pub(super) fn names(intents: Vec<Intent>) -> Open {
    intents
        .into_iter()
        .map(|intent| (intent.subject, intent.assignment))
        .collect()
}

/// A witness that does not even answer is one that cannot be trusted.
async fn look_at(witness: &dyn Witness) -> Found {
    witness.found().await.unwrap_or_else(|error| Found {
        condition: Condition::Damaged {
            detail: error.to_string(),
        },
        binding: None,
        mark: 0,
    })
}

/// The hold of one integration, made durable where it is new.
async fn hold_of(
    ledger: &dyn Ledger,
    clock: &dyn Clock,
    name: &IntegrationName,
    known: Option<&HoldRecord>,
    reasons: &[HoldReason],
    trusted: bool,
) -> Result<Option<HoldRecord>, LedgerError> {
    if reasons.is_empty() {
        return Ok(known.cloned());
    }
    let now = clock.now();
    let mut record = known.cloned().unwrap_or_else(|| HoldRecord {
        integration: name.clone(),
        since: now,
        reasons: Vec::new(),
        evidence: if trusted {
            Evidence::Witness
        } else {
            Evidence::Ledger
        },
    });
    let before = record.clone();
    // What can be asked now is asked, also where the hold began without it.
    if trusted {
        record.evidence = Evidence::Witness;
    }
    for reason in reasons {
        match record
            .reasons
            .iter_mut()
            .find(|old| old.code == reason.code)
        {
            Some(old) => *old = reason.clone(),
            None => record.reasons.push(reason.clone()),
        }
    }
    if known.is_none() || record != before {
        let codes = record.reasons.iter().map(|reason| reason.code.clone());
        let event = EventKind::HoldBegan {
            reasons: codes.collect(),
        };
        let audit = vec![AuditEvent::integration(now, name, event)];
        ledger.put_hold(record.clone(), audit).await?;
    }
    Ok(Some(record))
}

/// Takes what only the witness knows over into the ledger, where passes find it.
pub(super) fn import<'a>(
    ledger: &'a dyn Ledger,
    clock: &'a dyn Clock,
    intents: &[Intent],
) -> BoxFuture<'a, Result<(), LedgerError>> {
    let mut by_member: BTreeMap<MemberKey, Vec<Intent>> = BTreeMap::new();
    for intent in intents {
        by_member
            .entry(intent.key())
            .or_default()
            .push(intent.clone());
    }
    let work = by_member
        .into_iter()
        .map(move |(key, intents)| import_one(ledger, clock, key, intents));
    futures::stream::iter(work)
        .buffer_unordered(TAKEN_OVER_AT_A_TIME)
        .try_collect()
        .boxed()
}

async fn import_one(
    ledger: &dyn Ledger,
    clock: &dyn Clock,
    key: MemberKey,
    intents: Vec<Intent>,
) -> Result<(), LedgerError> {
    let intents: Vec<&Intent> = intents.iter().collect();
    loop {
        let now = clock.now();
        let mut record = ledger.member(&key).await?;
        let audit = take_over(&mut record, &intents, now, || clock.entropy(), "witness");
        if audit.is_empty() {
            return Ok(());
        }
        record.due = Some(Due {
            at: now,
            kind: DueKind::Verify,
            weight: 0,
        });
        let commit = MemberCommit {
            record,
            audit,
            request: None,
        };
        match ledger.commit(commit).await {
            Err(LedgerError::Conflict { .. }) => {}
            done => return done.map(drop),
        }
    }
}

/// Why ledger and witness could not be brought together.
#[derive(Debug)]
pub(super) enum SettleError {
    Ledger(LedgerError),
    Witness(WitnessError),
}

impl From<LedgerError> for SettleError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<WitnessError> for SettleError {
    fn from(error: WitnessError) -> Self {
        Self::Witness(error)
    }
}

impl Hold {
    /// Asks a witness again that could not be read at the start.
    pub(super) async fn learn(&self) -> Result<(), LedgerError> {
        let accord = &self.accord;
        let _turn = accord.turn.lock().await;
        let Some(held) = self.held().filter(|held| held.is_unread) else {
            return Ok(());
        };
        let Knowledge::Open(open) = accord.consult().await? else {
            return Ok(());
        };
        let mine = of(&self.integration, &open);
        import(accord.ledger.as_ref(), accord.clock.as_ref(), &mine).await?;
        self.keep(Some(Held {
            record: held.record.clone(),
            open: Some(names(mine)),
            is_unread: false,
        }));
        tracing::warn!(integration = %self.integration, "Witness can be read again");
        Ok(())
    }
}

impl Accord {
    /// What the witness knows now.
    pub(super) async fn consult(&self) -> Result<Knowledge, LedgerError> {
        let Some(witness) = self.witness.as_deref() else {
            return Ok(Knowledge::Nothing);
        };
        let identity = self.ledger.identity().await?;
        let last = self.ledger.last_sequence().await?;
        let found = look_at(witness).await;
        let reasons = compare(&identity, last, Some(&found));
        Ok(consult(Some(witness), Some(&found), &reasons).await)
    }

    /// Brings ledger and witness to a new common generation, once, unless they disagree.
    pub(super) async fn settle(&self) -> Result<(), SettleError> {
        let Some(witness) = &self.witness else {
            return Ok(());
        };
        let _turn = self.turn.lock().await;
        if self.agreed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut identity = self.ledger.identity().await?;
        let last = self.ledger.last_sequence().await?;
        let found = witness.found().await?;
        if !compare(&identity, last, Some(&found)).is_empty() {
            // An operator decides.
            return Ok(());
        }
        let bound = |generation| Binding {
            ledger: identity.id.clone(),
            generation,
        };
        if !identity.witnessed {
            // First use: what is owned already becomes known to the witness.
            let alone = self.alone().await;
            let mut intents = Vec::new();
            for name in &self.integrations {
                intents.extend(owned_of(self.ledger.as_ref(), name).await?);
            }
            alone
                .begin(bound(identity.generation), last, intents)
                .await?;
        }
        let known = found.binding.as_ref().map(|binding| binding.generation);
        let cut_short =
            identity.witnessed && known.is_some_and(|known| known < identity.generation);
        if !cut_short {
            let next = identity.generation + 1;
            self.ledger.agree(next, true).await?;
            identity.generation = next;
        }
        let binding = Binding {
            ledger: identity.id,
            generation: identity.generation,
        };
        witness.bind(binding, last).await?;
        self.agreed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Everything that the ledger owns in one integration, as intents.
pub(super) async fn owned_of(
    ledger: &dyn Ledger,
    integration: &IntegrationName,
) -> Result<Vec<Intent>, LedgerError> {
    let mut intents = Vec::new();
    let mut after: Option<UserId> = None;
    loop {
        let page = ledger
            .members(integration, after.as_ref(), MEMBERS_AT_A_TIME)
            .await?;
        for record in &page.items {
            intents.extend(record.owned.iter().map(|row| intent_of(&record.key, row)));
        }
        after = page.next;
        if after.is_none() {
            return Ok(intents);
        }
    }
}
