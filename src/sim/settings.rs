//! Every behaviour of the real service that is not established, as a choice.
//!
//! Owns the choices, their names and their defaults. `docs/simulator.md` explains each.

use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$item:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$item])* $variant),+ }
    };
}

choice!(
    /// Adding what is already held.
    AddHeld {
        /// 200, nothing changes
        Ok,
        /// 400
        BadRequest,
    }
);
choice!(
    /// Removing what is not held.
    RemoveNotHeld {
        /// 200, nothing changes
        Ok,
        /// 403
        Forbidden,
        /// 404
        NotFound,
    }
);
choice!(
    /// A status for an unknown user, membership or path.
    Missing {
        /// 400
        BadRequest,
        /// 404
        NotFound,
        /// 501
        NotImplemented,
    }
);
choice!(
    /// Whether a questionable request passes.
    Leniency {
        /// 400
        Reject,
        /// It passes
        Accept,
    }
);
choice!(
    /// Role ids without their prefix.
    ShortRoleIds {
        /// 400
        Reject,
        /// Taken for the prefixed role
        Alias,
        /// Taken and shown as they came
        Store,
    }
);
choice!(
    /// A resource id that does not exist.
    UnknownTarget {
        /// 403
        Forbidden,
        /// 400
        BadRequest,
        /// It passes
        Accept,
    }
);
choice!(
    /// What DELETE compares beside role and resource.
    Match {
        /// Stack roles are ignored
        Ignore,
        /// Stack roles must be equal
        Exact,
    }
);
choice!(
    /// Removing one id while holding *all*.
    UnderAll {
        /// 200, nothing changes
        NoOp,
        /// 400
        Error,
    }
);
choice!(
    /// Where *all* is refused because a deployment is hidden.
    HiddenBlocksAll {
        /// Nowhere
        Never,
        /// In invitations
        Invitations,
        /// In invitations and role assignments
        Everywhere,
    }
);
choice!(
    /// The order of ids and entries in listings.
    IdOrder {
        /// Another one at each read
        Shuffled,
        /// By value
        Sorted,
        /// As they arrived
        Insertion,
    }
);
choice!(
    /// How "holds nothing" is written.
    EmptyAssignments {
        /// The field is absent
        Absent,
        /// `{}`
        Object,
    }
);
choice!(
    /// A second invitation to one address.
    SecondInvitation {
        /// 400
        Conflict,
        /// 201, the old token stops working
        Refresh,
    }
);
choice!(
    /// Whether something is shown.
    Shown {
        /// It is
        Shown,
        /// It is not
        Hidden,
    }
);
choice!(
    /// A list of ids of which one is unknown.
    PartialCsv {
        /// Nothing happens
        AllOrNothing,
        /// The known ones are removed
        BestEffort,
    }
);
choice!(
    /// Removing the last organization owner.
    LastOwner {
        /// 400
        Protect,
        /// It works
        Allow,
    }
);
choice!(
    /// Whether a header is there.
    Presence {
        /// It is
        Present,
        /// It is not
        Absent,
    }
);
choice!(
    /// How the rate-limit window is written.
    IntervalFormat {
        /// `60s`
        Duration,
        /// `60`
        Seconds,
    }
);
choice!(
    /// What shares one rate limit.
    RateScope {
        /// Each key has its own
        Key,
        /// One for all keys of an organization
        Organization,
    }
);
choice!(
    /// Which keys are listed.
    KeyScope {
        /// Those of the organization
        Organization,
        /// Those of the same creator
        Creator,
    }
);
choice!(
    /// What keys without ownership may do with keys.
    NonOwnerKeys {
        /// Nothing
        Forbidden,
        /// List them
        ListOnly,
        /// Everything
        Allowed,
    }
);
choice!(
    /// Whether a field must be there.
    Need {
        /// It must
        Required,
        /// It need not
        Optional,
    }
);
choice!(
    /// The format of `X-Elastic-Api-Key-Expiration`.
    ExpirationHeader {
        /// `2026-01-01T00:00:00Z`
        Rfc3339,
        /// `Thu, 01 Jan 2026 00:00:00 GMT`
        HttpDate,
        /// No header
        Absent,
    }
);

/// All choices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Adding what is already held
    pub add_held: AddHeld,
    /// Removing what is not held
    pub remove_not_held: RemoveNotHeld,
    /// An unknown user in a role assignment call: 400 or 404
    pub unknown_user: Missing,
    /// A role id that does not exist
    pub unknown_role: Leniency,
    /// `all` together with ids, or neither
    pub all_with_ids: Leniency,
    /// An entry without an organization id
    pub missing_organization_id: Leniency,
    /// The code of the 400 for the three above
    pub invalid_assignment_code: String,
    /// Role ids without their prefix
    pub short_role_ids: ShortRoleIds,
    /// A resource id that does not exist
    pub unknown_target: UnknownTarget,
    /// What DELETE compares
    pub remove_matches: Match,
    /// Removing one id while holding *all*
    pub remove_id_under_all: UnderAll,
    /// Whether a hidden deployment makes every change that names it fail
    pub hidden_blocks_changes: bool,
    /// Where *all* is refused because a deployment is hidden
    pub hidden_blocks_all: HiddenBlocksAll,
    /// Whether entries that differ only in ids are listed as one
    pub collapse_entries: bool,
    /// The order of ids and entries
    pub id_order: IdOrder,
    /// How "holds nothing" is written
    pub empty_role_assignments: EmptyAssignments,
    /// Whether `"all": false` is written beside ids
    pub show_all_false: bool,
    /// A second invitation to one address
    pub second_invitation: SecondInvitation,
    /// How many invitations may be sent in a window; 0 for any number
    pub invitation_limit: u32,
    /// The length of that window, in seconds
    pub invitation_window_seconds: i64,
    /// Whether its 429 carries `Retry-After`
    pub invitation_retry_after: Presence,
    /// The longest `expires_in`, in seconds; 0 for any
    pub invitation_max_seconds: i64,
    /// Expired invitations in the listing
    pub expired_invitations: Shown,
    /// Whether only the invited address may accept
    pub accept_requires_email: bool,
    /// A list of ids of which one is unknown
    pub partial_csv: PartialCsv,
    /// The status of `organization.membership_not_found`: 400 or 404
    pub membership_not_found: Missing,
    /// Removing or demoting the last owner
    pub last_owner: LastOwner,
    /// The code of that refusal
    pub last_owner_code: String,
    /// Calls in one rate window; 0 for any number
    pub rate_limit: u64,
    /// The length of the rate window, in seconds
    pub rate_interval_seconds: i64,
    /// What shares one rate limit
    pub rate_scope: RateScope,
    /// The `x-ratelimit-*` headers
    pub rate_headers: Presence,
    /// How the interval header is written
    pub rate_interval_format: IntervalFormat,
    /// `Retry-After` on 429
    pub rate_retry_after: Presence,
    /// The code of that 429
    pub rate_code: String,
    /// Which keys are listed
    pub key_scope: KeyScope,
    /// What keys without ownership may do with keys
    pub non_owner_keys: NonOwnerKeys,
    /// The code of "you may not"
    pub forbidden_code: String,
    /// The longest key expiration, in seconds; 0 for any
    pub key_max_seconds: i64,
    /// The expiration `never`
    pub key_never: Leniency,
    /// Keys in one organization; 0 for any number
    pub key_limit: usize,
    /// The description of a new key
    pub key_description: Need,
    /// Deleting keys faster than this, in milliseconds, is a 500; 0 for any speed
    pub key_delete_min_interval_ms: i64,
    /// The code of 401
    pub credentials_code: String,
    /// The format of `X-Elastic-Api-Key-Expiration`
    pub expiration_header: ExpirationHeader,
    /// Member listings that still show the past after a change
    pub stale_reads: u32,
    /// Milliseconds for which they do
    pub stale_ms: i64,
    /// Draw the number of stale reads from 0 to `stale_reads`
    pub stale_random: bool,
    /// Answer as ECE does: no organizations
    pub ece: bool,
    /// What ECE answers on organization paths: 404 or 501
    pub ece_organization_paths: Missing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            add_held: AddHeld::Ok,
            remove_not_held: RemoveNotHeld::Ok,
            unknown_user: Missing::BadRequest,
            unknown_role: Leniency::Reject,
            all_with_ids: Leniency::Reject,
            missing_organization_id: Leniency::Reject,
            invalid_assignment_code: "root.invalid_data".to_owned(),
            short_role_ids: ShortRoleIds::Reject,
            unknown_target: UnknownTarget::Forbidden,
            remove_matches: Match::Ignore,
            remove_id_under_all: UnderAll::NoOp,
            hidden_blocks_changes: true,
            hidden_blocks_all: HiddenBlocksAll::Invitations,
            collapse_entries: true,
            id_order: IdOrder::Shuffled,
            empty_role_assignments: EmptyAssignments::Absent,
            show_all_false: false,
            second_invitation: SecondInvitation::Conflict,
            invitation_limit: 0,
            invitation_window_seconds: 3_600,
            invitation_retry_after: Presence::Absent,
            invitation_max_seconds: 0,
            expired_invitations: Shown::Shown,
            accept_requires_email: false,
            partial_csv: PartialCsv::AllOrNothing,
            membership_not_found: Missing::NotFound,
            last_owner: LastOwner::Protect,
            last_owner_code: "organization.last_owner".to_owned(),
            rate_limit: 12_000,
            rate_interval_seconds: 60,
            rate_scope: RateScope::Key,
            rate_headers: Presence::Present,
            rate_interval_format: IntervalFormat::Duration,
            rate_retry_after: Presence::Absent,
            rate_code: "root.rate_limit_exceeded".to_owned(),
            key_scope: KeyScope::Organization,
            non_owner_keys: NonOwnerKeys::Forbidden,
            forbidden_code: "root.unauthorized".to_owned(),
            key_max_seconds: 0,
            key_never: Leniency::Accept,
            key_limit: 500,
            key_description: Need::Required,
            key_delete_min_interval_ms: 0,
            credentials_code: "root.unauthorized".to_owned(),
            expiration_header: ExpirationHeader::Rfc3339,
            stale_reads: 0,
            stale_ms: 0,
            stale_random: false,
            ece: false,
            ece_organization_paths: Missing::NotFound,
        }
    }
}

/// A setting that does not exist or does not take this value.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// Not `KEY=VALUE`
    #[error("{0:?} is not KEY=VALUE")]
    Form(String),
    /// Refused by the type of the setting, or unknown
    #[error("setting {key}")]
    Value {
        /// Which
        key: String,
        /// Why
        #[source]
        source: serde_json::Error,
    },
}

impl Settings {
    /// Sets one choice from text: the value is read as JSON if it is JSON, else as a text.
    ///
    /// # Errors
    /// When there is no such setting or it does not take this value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let parsed = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        let mut patch = serde_json::Map::new();
        patch.insert(key.to_owned(), parsed);
        self.patch(&patch).map_err(|source| SettingError::Value {
            key: key.to_owned(),
            source,
        })
    }

    /// Sets one choice from `KEY=VALUE`.
    ///
    /// # Errors
    /// As [`Settings::set`], and when there is no `=`.
    pub fn set_pair(&mut self, pair: &str) -> Result<(), SettingError> {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| SettingError::Form(pair.to_owned()))?;
        self.set(key.trim(), value.trim())
    }

    /// Sets several choices at once, or none of them.
    ///
    /// # Errors
    /// What serde says about the first one that is wrong.
    pub fn patch(
        &mut self,
        patch: &serde_json::Map<String, Value>,
    ) -> Result<(), serde_json::Error> {
        let mut all = serde_json::to_value(&*self)?;
        if let Value::Object(fields) = &mut all {
            for (key, value) in patch {
                fields.insert(key.clone(), value.clone());
            }
        }
        *self = serde_json::from_value(all)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_set_by_its_name() {
        let mut settings = Settings::default();
        settings
            .set_pair("remove_not_held=not_found")
            .expect("a choice");
        settings.set_pair("rate_limit=10").expect("a number");
        assert_eq!(settings.remove_not_held, RemoveNotHeld::NotFound);
        assert_eq!(settings.rate_limit, 10);
    }

    #[test]
    fn unknown_settings_and_choices_are_refused() {
        let mut settings = Settings::default();
        for wrong in ["nothing=1", "add_held=maybe", "add_held"] {
            assert!(settings.set_pair(wrong).is_err(), "{wrong}");
        }
        assert_eq!(settings, Settings::default());
    }
}
