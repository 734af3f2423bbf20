//! Many grants: listing them and following their changes.
//!
//! Owns paging and the resumption of a broken stream. Never changes anything.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Request, Status, Streaming};

use super::args::{FilterArgs, ListArgs, State, WatchArgs};
use super::connect::Connector;
use super::directory;
use super::exit::{Exit, Failure};
use super::grants::names_for;
use super::streams::{Format, Streams};
use super::{table, text, time, view};
use crate::api::pb;

const PAGE: u32 = 500;
/// First and longest pause before a broken stream is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

const LIVE: [State; 5] = [
    State::Scheduled,
    State::AwaitingMember,
    State::Activating,
    State::Active,
    State::Revoking,
];

fn wire_state(state: State) -> pb::GrantState {
    match state {
        State::Scheduled => pb::GrantState::Scheduled,
        State::AwaitingMember => pb::GrantState::AwaitingMember,
        State::Activating => pb::GrantState::Activating,
        State::Active => pb::GrantState::Active,
        State::Revoking => pb::GrantState::Revoking,
        State::Ended => pb::GrantState::Ended,
    }
}

async fn filter(
    connector: &Connector,
    args: &FilterArgs,
    states: &[State],
) -> Result<pb::GrantFilter, Failure> {
    let integration = args.integration.as_deref();
    let beneficiary = match &args.member {
        Some(written) => Some(directory::principal(connector, integration, written).await?),
        None => None,
    };
    let written: Vec<String> = args.target.iter().cloned().collect();
    let (targets, _) = directory::targets(connector, integration, &written).await?;
    Ok(pb::GrantFilter {
        integration: integration.unwrap_or_default().to_owned(),
        states: states
            .iter()
            .map(|&state| wire_state(state).into())
            .collect(),
        beneficiary,
        target: targets.first().map(super::resolve::Target::to_pb),
    })
}

/// `latchkey list`
pub(super) async fn list(
    connector: &Connector,
    format: Format,
    args: &ListArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let states = match (args.all, args.filter.states.as_slice()) {
        (true, _) => &[],
        (false, []) => LIVE.as_slice(),
        (false, given) => given,
    };
    let filter = filter(connector, &args.filter, states).await?;
    let (mut grants, mut page_token) = (Vec::<view::Grant>::new(), String::new());
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let has_more = loop {
        let left = limit.saturating_sub(grants.len());
        let size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let request = pb::ListGrantsRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from(size).unwrap_or(0),
            page_token,
        };
        let page = connector
            .call(request, |request| {
                let mut client = connector.access();
                async move { client.list_grants(request).await }
            })
            .await?;
        grants.extend(page.grants.iter().map(view::Grant::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || grants.len() >= limit {
            break !page_token.is_empty() || grants.len() > limit;
        }
    };
    grants.truncate(limit);
    if format == Format::Table {
        let names = names_for(connector, &grants).await;
        let (now, zone) = (streams.now(), streams.zone);
        let empty = if args.all || !args.filter.states.is_empty() {
            "no grant matches"
        } else {
            "no grant matches; --all shows those that have ended, too"
        };
        table::grants(&grants, &names, now, zone).print(streams, empty)?;
    } else {
        streams.document(format, &grants)?;
    }
    if has_more {
        streams.note(&format!(
            "only the newest {limit} are shown; --limit shows more"
        ))?;
    }
    Ok(())
}

/// `latchkey watch`
pub(super) async fn watch(
    connector: &Connector,
    format: Format,
    args: &WatchArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let filter = filter(connector, &args.filter, &args.filter.states).await?;
    let mut follower = Follower {
        resume_token: String::new(),
        pause: FIRST_PAUSE,
        grants: 0,
        names: view::Names::default(),
        asked: BTreeSet::new(),
    };
    let mut stream = open(connector, &filter, "").await?;
    loop {
        // Ends by interruption, by the time limit, after the snapshot, or by an error that is not the connection's.
        match connector.within(stream.next()).await? {
            Some(Ok(message)) => {
                if format == Format::Table {
                    follower
                        .learn_names(connector, message.grant.as_ref())
                        .await;
                }
                if follower.take(&message, format, args.once, streams)? {
                    return Ok(());
                }
            }
            Some(Err(status)) if !is_broken(&status) => {
                return Err(connector.explain(&status).await);
            }
            broken => {
                let words = broken.and_then(Result::err).map_or_else(
                    || "the connector ended the stream".to_owned(),
                    |status| connector.unreachable(&status).what,
                );
                streams.note(&format!("{}; trying again", text::safe(&words)))?;
                stream = follower.open_again(connector, &filter).await?;
            }
        }
    }
}

/// How far a watch has come.
struct Follower {
    resume_token: String,
    pause: Duration,
    grants: usize,
    names: view::Names,
    /// Targets whose names were looked for, whether or not there was one.
    asked: BTreeSet<String>,
}

impl Follower {
    /// Looks the names of targets up that were not met before.
    async fn learn_names(&mut self, connector: &Connector, grant: Option<&pb::Grant>) {
        let Some(grant) = grant.map(view::Grant::from) else {
            return;
        };
        let targets = grant
            .assignments
            .iter()
            .map(|one| one.assignment.target.clone());
        let before = self.asked.len();
        self.asked.extend(targets);
        if self.asked.len() > before {
            self.names.extend(names_for(connector, &[grant]).await);
        }
    }

    /// Prints a message; true when the watch is over.
    fn take(
        &mut self,
        message: &pb::WatchGrantsResponse,
        format: Format,
        once: bool,
        streams: &mut Streams,
    ) -> Result<bool, Failure> {
        self.pause = FIRST_PAUSE;
        if !message.resume_token.is_empty() {
            self.resume_token.clone_from(&message.resume_token);
        }
        let change = view::Change::new(message.kind(), message.grant.as_ref());
        let is_synced = message.kind() == pb::WatchKind::Synced;
        match (&change.grant, format) {
            (Some(grant), Format::Table) => {
                self.grants += 1;
                let (now, zone) = (streams.now(), streams.zone);
                let line = line(grant, &self.names, now, zone);
                let line = streams.paint(table::paint(grant), &line);
                streams.line(&line)?;
                streams.out.flush()?;
            }
            (None, Format::Table) if is_synced && self.grants == 0 => {
                streams.note("no grant matches yet")?;
            }
            (grant, Format::Json | Format::Yaml) if grant.is_some() || is_synced => {
                streams.stream_item(format, &change)?;
            }
            (None, Format::Table) | (_, Format::Json | Format::Yaml) => {}
        }
        Ok(once && is_synced)
    }

    async fn open_again(
        &mut self,
        connector: &Connector,
        filter: &pb::GrantFilter,
    ) -> Result<Streaming<pb::WatchGrantsResponse>, Failure> {
        loop {
            connector.pause(self.pause).await?;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            match open(connector, filter, &self.resume_token).await {
                Err(failure) if failure.exit == Exit::Unavailable => {}
                other => return other,
            }
        }
    }
}

/// Whether a stream ended because of its connection, so that going on makes sense.
fn is_broken(status: &Status) -> bool {
    status.source().is_some()
        || matches!(
            status.code(),
            tonic::Code::Unavailable | tonic::Code::Cancelled
        )
}

async fn open(
    connector: &Connector,
    filter: &pb::GrantFilter,
    resume_token: &str,
) -> Result<Streaming<pb::WatchGrantsResponse>, Failure> {
    let mut client = connector.access();
    // No deadline on the call itself: a stream has no end.
    let request = Request::new(pb::WatchGrantsRequest {
        filter: Some(filter.clone()),
        resume_token: resume_token.to_owned(),
    });
    match connector.within(client.watch_grants(request)).await? {
        Ok(response) => Ok(response.into_inner()),
        Err(status) if status.source().is_some() => Err(match connector.stranger(&status).await {
            Some(failure) => failure,
            None => connector.unreachable(&status),
        }),
        Err(status) => Err(connector.explain(&status).await),
    }
}

/// One change as one line: when it was seen, what it is about.
fn line(
    grant: &view::Grant,
    names: &view::Names,
    now: crate::domain::Timestamp,
    zone: time::Zone,
) -> String {
    let line = format!(
        "{}  {:<15} {}  {} {} on {}: {}",
        time::clock_time(now, now, zone),
        grant.state,
        grant.short_id(),
        grant.beneficiary,
        grant.role,
        table::targets(grant, names),
        table::when(grant, now, zone),
    );
    text::safe(&line).into_owned()
}
