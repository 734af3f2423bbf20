//! How an exchange with upstream ended, and what that ending means.
//!
//! Owns the line between refused and unknown: only what certainly had no effect is a refusal. Never decides when
//! anything is sent again, only whether it may be.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::answer::Head;
use super::{members, wire};
use crate::ports::provider::Refusal;

/// What may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Only what certainly had no effect.
    Unsent,
    /// A read, which has none.
    Read,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Got {
    Bytes(Vec<u8>),
    Members(Box<members::Shown>),
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Ended {
    NotSent(&'static str),
    KeyRotated,
    /// Sent, at least in part, and no head of an answer.
    Broken(&'static str),
    /// A head, and the body or why there is none.
    Answered(Head, Result<Got, &'static str>),
}

/// Why there is no key to send with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyless {
    NotLoaded,
    Rotated,
}

impl From<Keyless> for Ended {
    fn from(keyless: Keyless) -> Self {
        match keyless {
            Keyless::NotLoaded => Self::NotSent("no_key"),
            Keyless::Rotated => Self::KeyRotated,
        }
    }
}

impl Ended {
    pub(super) fn may_repeat(&self, repeat: Repeat) -> bool {
        match self {
            // A path or a request that cannot be built will not get better.
            Self::NotSent(code) => matches!(*code, "connect" | "dns" | "tls"),
            Self::KeyRotated => false,
            Self::Broken(_) => repeat == Repeat::Read,
            Self::Answered(head, body) => {
                head.status == StatusCode::TOO_MANY_REQUESTS
                    || (repeat == Repeat::Read
                        && (head.status.is_server_error()
                            || head.status == StatusCode::REQUEST_TIMEOUT
                            || matches!(body, Err("timeout" | "broken"))))
            }
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered(head, _) => head.retry_after,
            Self::NotSent(_) | Self::KeyRotated | Self::Broken(_) => None,
        }
    }

    /// The refusal that this ending certainly is; `None` for good answers and for those that prove nothing.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let (head, body) = match self {
            Self::NotSent(code) => {
                let code = (*code).to_owned();
                return Some(Refusal::NotSent { code });
            }
            Self::KeyRotated => return Some(Refusal::KeyRotated),
            Self::Broken(_) => return None,
            Self::Answered(head, body) => (head, body),
        };
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            return Some(Refusal::Throttled {
                retry_after: head.retry_after,
            });
        }
        // A page of some edge or half an answer does not prove that the API itself refused.
        let is_sound = match body {
            Ok(Got::Bytes(bytes)) => bytes.is_empty() || is_object(bytes),
            Ok(Got::Members(_)) => true,
            Err(_) => false,
        };
        if !head.status.is_client_error() || head.is_html || !is_sound {
            return None;
        }
        let code = head.code();
        match head.status.as_u16() {
            401 => Some(Refusal::Unauthenticated { code }),
            403 => Some(Refusal::Forbidden { code }),
            404 => Some(Refusal::NotFound { code }),
            // Said by whatever stands in between, perhaps after it passed the request on.
            408 | 499 => None,
            _ => Some(Refusal::Invalid { code }),
        }
    }

    /// Why an ending that is neither good nor a refusal is of no use.
    pub(super) fn unavailable(&self) -> String {
        match self {
            Self::NotSent(code) | Self::Broken(code) => (*code).to_owned(),
            Self::KeyRotated => "key_rotated".to_owned(),
            Self::Answered(head, body) => {
                let status = head.status;
                if status.is_redirection() {
                    "redirect".to_owned()
                } else if head.is_html && !status.is_server_error() {
                    "html".to_owned()
                } else if !status.is_success() {
                    format!("http_{}", status.as_u16())
                } else {
                    body.as_ref()
                        .err()
                        .map_or("malformed", |code| code)
                        .to_owned()
                }
            }
        }
    }
}

pub(super) fn is_object(bytes: &[u8]) -> bool {
    matches!(serde_json::from_slice(bytes), Ok(Value::Object(_)))
}

/// The body of a good answer.
pub(super) fn good_bytes(ended: &Ended) -> Option<&[u8]> {
    let Ended::Answered(head, Ok(Got::Bytes(bytes))) = ended else {
        return None;
    };
    (head.status.is_success() && !head.is_html).then_some(bytes)
}

/// Adds the codes that the body of a bad answer names to those of its head.
pub(super) fn add_codes(head: &mut Head, body: &Result<Got, &'static str>) {
    if head.status.is_success() {
        return;
    }
    let Ok(Got::Bytes(bytes)) = body else { return };
    if let Ok(wire::Failure { errors }) = serde_json::from_slice(bytes) {
        head.add_codes(errors.iter().filter_map(|error| error.code.as_str()));
    }
}
