//! Keys and their rotation over the wire.
//!
//! Owns the conversion of their messages, field by field. Never decides anything.

use chrono::TimeDelta;

use crate::domain::grant::LastError;
use crate::domain::ids::IntegrationName;
use crate::domain::rotation::{KeyMark, KeyRotation, Stage};
use crate::ports::provider::KeyStatus;
use crate::service::{KeyReport, Result, ServiceError};

use super::{convert, pb, render};

/// What a request for a new key says.
pub(super) struct Asked {
    pub(super) integration: Option<IntegrationName>,
    pub(super) lives: Option<TimeDelta>,
    pub(super) requester: String,
    pub(super) reason: String,
}

pub(super) fn asked(value: pb::RotateKeyRequest) -> Result<Asked> {
    let pb::RotateKeyRequest {
        integration,
        expires_in,
        requester,
        reason,
    } = value;
    let lives = |value: prost_types::Duration| {
        TimeDelta::try_seconds(value.seconds)
            .filter(|_| value.nanos == 0)
            .ok_or_else(|| ServiceError::invalid("expires_in", "must be whole seconds"))
    };
    Ok(Asked {
        integration: convert::integration("integration", integration)?,
        lives: expires_in.map(lives).transpose()?,
        requester: convert::requester(requester)?,
        reason: convert::required_reason(reason)?,
    })
}

pub(super) fn report(value: KeyReport) -> pb::GetKeyResponse {
    let KeyReport {
        integration,
        status,
        id,
        place,
        can_be_replaced,
        schedule,
        rotation: last,
    } = value;
    let KeyStatus {
        loaded: _,
        fingerprint,
        expires_at,
        own_user_id,
        roles,
        sees_owners,
        last_success_at,
        last_failure,
        skew_ms: _,
    } = status;
    pb::GetKeyResponse {
        integration: integration.into(),
        key_id: id.unwrap_or_default(),
        fingerprint: fingerprint.unwrap_or_default(),
        expires_at: expires_at.map(render::instant),
        user_id: own_user_id.map(|id| id.to_string()).unwrap_or_default(),
        roles: roles.unwrap_or_default(),
        sees_owners,
        last_success_at: last_success_at.map(render::instant),
        last_failure_code: last_failure.map(|(code, _)| code).unwrap_or_default(),
        place,
        can_be_replaced,
        rotated_every: schedule.map(|schedule| prost_types::Duration {
            seconds: schedule.every.num_seconds(),
            nanos: 0,
        }),
        rotation: last.map(rotation),
    }
}

pub(super) fn rotation(value: KeyRotation) -> pb::KeyRotation {
    let KeyRotation {
        integration: _,
        version: _,
        id,
        stage,
        stage_since,
        asked_at,
        asked_by,
        reason,
        lives_seconds: _,
        old,
        new,
        tries: _,
        strays_until: _,
        switched_at,
        delete_at,
        last_error,
    } = value;
    let stage = match stage {
        Stage::Intended => pb::KeyRotationStage::Intended,
        Stage::Creating => pb::KeyRotationStage::Creating,
        Stage::Created => pb::KeyRotationStage::Created,
        Stage::Storing => pb::KeyRotationStage::Storing,
        Stage::Stored => pb::KeyRotationStage::Stored,
        Stage::Switched => pb::KeyRotationStage::Switched,
        Stage::Deleting => pb::KeyRotationStage::Deleting,
        Stage::Done => pb::KeyRotationStage::Done,
        Stage::Retrying => pb::KeyRotationStage::Retrying,
        Stage::Discarding => pb::KeyRotationStage::Discarding,
        Stage::Abandoned => pb::KeyRotationStage::Abandoned,
    };
    // The digest stays with us: nobody needs it.
    let id_of = |mark: Option<KeyMark>| mark.map(|KeyMark { id, digest: _ }| id);
    pb::KeyRotation {
        id,
        stage: stage.into(),
        stage_since: Some(render::instant(stage_since)),
        asked_at: Some(render::instant(asked_at)),
        asked_by,
        reason,
        old_key_id: id_of(old).unwrap_or_default(),
        new_key_id: id_of(new).unwrap_or_default(),
        switched_at: switched_at.map(render::instant),
        delete_at: delete_at.map(render::instant),
        last_error: last_error.map(|LastError { code, message, at }| pb::GrantError {
            code,
            message,
            at: Some(render::instant(at)),
        }),
    }
}
