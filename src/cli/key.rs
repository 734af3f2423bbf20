//! `latchkey key show` and `latchkey key rotate`: what is known of the key, and another one.
//!
//! Owns how both are shown. Never sees a key: the connector makes it and stores it.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::RequesterArgs;
use super::connect::Connector;
use super::exit::{Exit, Failure};
use super::streams::{Format, Paint, Streams};
use super::view::{GrantError, instant, present};
use super::{text, time};
use crate::api::pb;
use crate::domain::Timestamp;

/// Pause between two looks at a rotation that is under way.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `key`.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// Integration, when several are configured
    #[arg(long, global = true, value_name = "NAME")]
    pub integration: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What can be done with a key.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Show what the key may do, when it dies, and how its rotation stands
    Show,
    /// Replace the key: make a new one, prove it, store it, use it, delete the old one
    Rotate(RotateArgs),
}

/// Arguments of `key rotate`.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// How long the new key lives, such as 90d [default: as configured]
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    pub expires: Option<Duration>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asks.
    #[command(flatten)]
    pub by: RequesterArgs,
    /// Do not wait until the new key is in use
    #[arg(long)]
    pub no_wait: bool,
}

/// A rotation, as a document.
#[derive(Debug, Clone, Serialize)]
struct Rotation {
    id: String,
    stage: &'static str,
    stage_since: Option<Timestamp>,
    asked_at: Option<Timestamp>,
    asked_by: String,
    reason: String,
    old_key_id: Option<String>,
    new_key_id: Option<String>,
    switched_at: Option<Timestamp>,
    delete_at: Option<Timestamp>,
    last_error: Option<GrantError>,
}

impl From<pb::KeyRotation> for Rotation {
    fn from(wire: pb::KeyRotation) -> Self {
        use pb::KeyRotationStage as Stage;
        let stage = match wire.stage() {
            Stage::Intended => "intended",
            Stage::Creating => "creating",
            Stage::Created => "created",
            Stage::Storing => "storing",
            Stage::Stored => "stored",
            Stage::Switched => "switched",
            Stage::Deleting => "deleting",
            Stage::Done => "done",
            Stage::Retrying => "retrying",
            Stage::Discarding => "discarding",
            Stage::Abandoned => "abandoned",
            Stage::Unspecified => "unknown",
        };
        let pb::KeyRotation {
            id,
            stage: _,
            stage_since,
            asked_at,
            asked_by,
            reason,
            old_key_id,
            new_key_id,
            switched_at,
            delete_at,
            last_error,
        } = wire;
        Self {
            id,
            stage,
            stage_since: instant(stage_since.as_ref()),
            asked_at: instant(asked_at.as_ref()),
            asked_by,
            reason,
            old_key_id: present(&old_key_id),
            new_key_id: present(&new_key_id),
            switched_at: instant(switched_at.as_ref()),
            delete_at: instant(delete_at.as_ref()),
            last_error: last_error.map(|error| GrantError {
                code: error.code.clone(),
                message: error.message.clone(),
                at: instant(error.at.as_ref()),
            }),
        }
    }
}

/// What is known of a key, as a document.
#[derive(Debug, Clone, Serialize)]
struct Key {
    integration: String,
    key_id: Option<String>,
    fingerprint: Option<String>,
    expires_at: Option<Timestamp>,
    user_id: Option<String>,
    roles: Vec<String>,
    sees_owners: Option<bool>,
    last_success_at: Option<Timestamp>,
    last_failure_code: Option<String>,
    place: Option<String>,
    can_be_replaced: bool,
    rotated_every_seconds: Option<i64>,
    rotation: Option<Rotation>,
}

impl From<pb::GetKeyResponse> for Key {
    fn from(wire: pb::GetKeyResponse) -> Self {
        let pb::GetKeyResponse {
            integration,
            key_id,
            fingerprint,
            expires_at,
            user_id,
            roles,
            sees_owners,
            last_success_at,
            last_failure_code,
            place,
            can_be_replaced,
            rotated_every,
            rotation,
        } = wire;
        Self {
            integration,
            key_id: present(&key_id),
            fingerprint: present(&fingerprint),
            expires_at: instant(expires_at.as_ref()),
            user_id: present(&user_id),
            roles,
            sees_owners,
            last_success_at: instant(last_success_at.as_ref()),
            last_failure_code: present(&last_failure_code),
            place: present(&place),
            can_be_replaced,
            rotated_every_seconds: rotated_every.map(|every| every.seconds),
            rotation: rotation.map(Rotation::from),
        }
    }
}

async fn get(connector: &Connector, integration: &str) -> Result<Key, Failure> {
    let request = pb::GetKeyRequest {
        integration: integration.to_owned(),
    };
    connector
        .call(request, |request| {
            let mut client = connector.operations();
            async move { client.get_key(request).await }
        })
        .await
        .map(Key::from)
}

/// `latchkey key show` and `latchkey key rotate`
pub(super) async fn key(
    connector: &Connector,
    format: Format,
    args: &KeyArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let integration = args.integration.clone().unwrap_or_default();
    match &args.command {
        KeyCommand::Show => {
            let key = get(connector, &integration).await?;
            if format == Format::Table {
                show(&key, streams)
            } else {
                streams.document(format, &key)
            }
        }
        KeyCommand::Rotate(args) => rotate(connector, format, &integration, args, streams).await,
    }
}

async fn rotate(
    connector: &Connector,
    format: Format,
    integration: &str,
    args: &RotateArgs,
    streams: &mut Streams,
) -> Result<(), Failure> {
    let request = pb::RotateKeyRequest {
        integration: integration.to_owned(),
        expires_in: args.expires.map(|length| prost_types::Duration {
            seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        requester: args.by.requester.clone(),
        reason: args.reason.clone(),
    };
    let answer = connector
        .call(request, |request| {
            let mut client = connector.operations();
            async move { client.rotate_key(request).await }
        })
        .await?;
    let mut rotation = Rotation::from(answer.rotation.unwrap_or_default());
    let id = rotation.id.clone();
    let mut told = "";
    while !args.no_wait && !is_settled(rotation.stage) {
        if told != rotation.stage {
            told = rotation.stage;
            streams.note(&format!("{}: {}", rotation.stage, meaning(rotation.stage)))?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        match get(connector, integration).await?.rotation {
            Some(now) if now.id == id => rotation = now,
            // Another one was begun since, so this one is over.
            Some(_) | None => break,
        }
    }
    if format == Format::Table {
        table(&rotation, streams)?;
    } else {
        streams.document(format, &rotation)?;
    }
    if matches!(rotation.stage, "abandoned" | "discarding") {
        let why = rotation.last_error.as_ref();
        return Err(Failure::new(
            Exit::Failed,
            format!(
                "the key was not rotated ({}); the one that worked before works on",
                why.map_or("unknown", |error| error.code.as_str())
            ),
            why.map_or_else(String::new, |error| text::safe(&error.message).into_owned()),
        ));
    }
    Ok(())
}

/// Whether nobody has to wait any longer: the new key is in use, or will not be.
fn is_settled(stage: &str) -> bool {
    matches!(
        stage,
        "switched" | "deleting" | "done" | "discarding" | "abandoned"
    )
}

fn meaning(stage: &str) -> &'static str {
    match stage {
        "intended" => "the connector takes it up within seconds",
        "creating" => "a new key is being made",
        "created" => "the new key is being proven",
        "storing" => "the new key is being written to the secret store",
        "stored" => "the new key is being taken into use",
        "switched" => "the new key is in use; the old one lives on a little",
        "deleting" => "the old key is being deleted",
        "done" => "the old key is gone",
        "retrying" => "a key whose text was lost is being deleted; another one follows",
        "discarding" => "given up; what was made is being deleted",
        "abandoned" => "given up; the old key works on",
        _ => "this connector is newer than this command",
    }
}

fn table(rotation: &Rotation, streams: &mut Streams) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let clock = |at: Option<Timestamp>| {
        at.map_or_else(|| "-".to_owned(), |at| time::clock_time(at, now, zone))
    };
    let paint = match rotation.stage {
        "done" | "switched" | "deleting" => Paint::Green,
        "abandoned" | "discarding" => Paint::Red,
        _ => Paint::Yellow,
    };
    let stage = streams.paint(paint, rotation.stage);
    streams.line(&format!(
        "Rotation  {stage} since {}: {}",
        clock(rotation.stage_since),
        meaning(rotation.stage)
    ))?;
    streams.line(&format!(
        "  asked   {} by {}: {}",
        clock(rotation.asked_at),
        text::safe(&rotation.asked_by),
        text::safe(&rotation.reason)
    ))?;
    let id = |id: &Option<String>| text::safe(id.as_deref().unwrap_or("-")).into_owned();
    streams.line(&format!(
        "  keys    {} replaces {}",
        id(&rotation.new_key_id),
        id(&rotation.old_key_id)
    ))?;
    if rotation.stage == "switched" {
        streams.line(&format!(
            "  deletes {} at {}",
            id(&rotation.old_key_id),
            clock(rotation.delete_at)
        ))?;
    }
    if let Some(error) = &rotation.last_error {
        let (code, message) = (text::safe(&error.code), text::safe(&error.message));
        streams.line(&format!("  held up {code}: {message}"))?;
    }
    Ok(())
}

fn show(key: &Key, streams: &mut Streams) -> Result<(), Failure> {
    let (now, zone) = (streams.now(), streams.zone);
    let or = |value: &Option<String>, absent: &str| {
        text::safe(value.as_deref().unwrap_or(absent)).into_owned()
    };
    let (paint, dies) = match key.expires_at {
        None => (Paint::Yellow, "unknown, or never".to_owned()),
        Some(at) => {
            let days = (at - now).num_days();
            let paint = match days {
                ..3 => Paint::Red,
                3..30 => Paint::Yellow,
                _ => Paint::Green,
            };
            let left = text::count(days.max(0), "day", "days");
            (
                paint,
                format!("{} ({left} left)", time::clock_time(at, now, zone)),
            )
        }
    };
    let dies = streams.paint(paint, &dies);
    let may = if key.roles.is_empty() {
        "not told by its record".to_owned()
    } else {
        text::safe(&key.roles.join(", ")).into_owned()
    };
    let owner = match key.sees_owners {
        Some(true) => "yes, by the last complete read",
        Some(false) => "NO: nothing can be proven gone with it",
        None => "not known yet",
    };
    let kept = if key.can_be_replaced {
        "can be replaced by Latchkey"
    } else {
        "is replaced by hand"
    };
    let every = match key.rotated_every_seconds {
        Some(seconds) => format!("every {} days", seconds / 86_400),
        None => "only when somebody asks".to_owned(),
    };
    let lines = [
        format!("Key       {}", or(&key.key_id, "does not tell its id")),
        format!("  print   {}", or(&key.fingerprint, "none is loaded")),
        format!("  dies    {dies}"),
        format!("  may     {may}"),
        format!("  owner   {owner}"),
        format!("  member  {}", or(&key.user_id, "not known")),
        format!("  kept    {}; {kept}", or(&key.place, "unknown")),
        format!("  rotated {every}"),
    ];
    for line in lines {
        streams.line(&line)?;
    }
    if let Some(code) = &key.last_failure_code {
        streams.line(&format!("  failed  {}", text::safe(code)))?;
    }
    match &key.rotation {
        Some(rotation) => table(rotation, streams),
        None => Ok(()),
    }
}
