//! Faults: which calls go wrong, and how.
//!
//! Owns the rules, their counters and their seeded luck. Never carries a fault out; `edge` does.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::Request;
use super::route::Route;
use super::text;

/// Which calls a rule is about. Every given part must fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// A kind such as `role_assignments.add`, or `role_assignments.*`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// An HTTP method
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of the path
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The user the call is about
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A part of the body
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What an applied-late call is told at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LateAnswer {
    /// As if it had been done
    #[default]
    Ok,
    /// Nothing: the connection is closed
    Drop,
    /// Nothing: the connection stays open
    Hang,
    /// 504
    Timeout,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Wait before anything happens; further rules still apply
    Delay {
        /// Milliseconds
        ms: u64,
        /// Up to this many more, drawn by the seed
        #[serde(default)]
        jitter_ms: u64,
    },
    /// 429
    Throttle {
        /// The value of `Retry-After`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<String>,
    },
    /// A failure
    Fail {
        /// The status
        status: u16,
        /// The error code
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// The message
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// HTML instead of JSON
        #[serde(default)]
        html: bool,
        /// Whether the call is applied all the same
        #[serde(default)]
        applied: bool,
    },
    /// Applied, then the connection is closed without an answer
    DropAfterApply,
    /// The connection is closed, nothing is applied
    DropBeforeApply,
    /// Answered at once, applied later
    ApplyLate {
        /// Simulated milliseconds until it is applied
        ms: u64,
        /// What is answered
        #[serde(default)]
        answer: LateAnswer,
    },
    /// Applied, and once more later
    ApplyTwice {
        /// Simulated milliseconds until the second time
        ms: u64,
    },
    /// 200, and nothing is applied
    Lie,
    /// A redirect; nothing is applied
    Redirect {
        /// Where to
        location: String,
        /// The status, 302 if absent
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// Applied; half of the body is sent, then the connection is closed
    Truncate,
    /// Applied; half of the body is sent as if it were whole
    Malformed,
    /// Applied; the answer is changed by a JSON merge patch
    Rewrite {
        /// The patch; null removes a field
        merge: Value,
    },
    /// 200 with a page of HTML; nothing is applied
    GarbageHtml,
    /// 200 with a very long body; nothing is applied
    Huge {
        /// How long
        bytes: u64,
    },
    /// 200 with a very long body, compressed; nothing is applied
    GzipBomb {
        /// How long when unpacked
        bytes: u64,
    },
    /// No answer, the connection stays open; nothing is applied
    Hang,
}

impl Action {
    /// The name in the call log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Throttle { .. } => "throttle",
            Self::Fail { .. } => "fail",
            Self::DropAfterApply => "drop_after_apply",
            Self::DropBeforeApply => "drop_before_apply",
            Self::ApplyLate { .. } => "apply_late",
            Self::ApplyTwice { .. } => "apply_twice",
            Self::Lie => "lie",
            Self::Redirect { .. } => "redirect",
            Self::Truncate => "truncate",
            Self::Malformed => "malformed",
            Self::Rewrite { .. } => "rewrite",
            Self::GarbageHtml => "garbage_html",
            Self::Huge { .. } => "huge",
            Self::GzipBomb { .. } => "gzip_bomb",
            Self::Hang => "hang",
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Which calls
    #[serde(default, rename = "match")]
    pub matcher: Matcher,
    /// What happens
    pub action: Action,
    /// The share of matching calls it happens to
    #[serde(default = "always")]
    pub probability: f64,
    /// The first matching calls that are spared
    #[serde(default)]
    pub after: u64,
    /// How often it happens at most; without end if absent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Matching calls so far
    #[serde(default)]
    pub matched: u64,
    /// How often it has happened
    #[serde(default)]
    pub fired: u64,
}

fn always() -> f64 {
    1.0
}

impl FaultRule {
    /// A rule that hits every call.
    #[must_use]
    pub fn every(action: Action) -> Self {
        Self {
            matcher: Matcher::default(),
            action,
            probability: always(),
            after: 0,
            times: None,
            matched: 0,
            fired: 0,
        }
    }

    /// A rule that hits every call of a kind.
    #[must_use]
    pub fn on(kind: &str, action: Action) -> Self {
        let mut rule = Self::every(action);
        rule.matcher.kind = Some(kind.to_owned());
        rule
    }

    /// The same rule, this many times at most.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn fits(&self, route: &Route, request: &Request) -> bool {
        let m = &self.matcher;
        let kind = route.kind();
        m.kind
            .as_deref()
            .is_none_or(|wanted| match wanted.strip_suffix('*') {
                Some(prefix) => kind.starts_with(prefix),
                None => kind == wanted,
            })
            && m.method
                .as_deref()
                .is_none_or(|wanted| request.method.as_str().eq_ignore_ascii_case(wanted))
            && m.path
                .as_deref()
                .is_none_or(|wanted| request.path.contains(wanted))
            && m.user
                .as_deref()
                .is_none_or(|wanted| route.user() == Some(wanted))
            && m.body
                .as_deref()
                .is_none_or(|wanted| String::from_utf8_lossy(&request.body).contains(wanted))
    }
}

/// What was decided about one call.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay_ms: u64,
    pub(crate) action: Option<Action>,
}

/// All rules.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: Vec<FaultRule>,
    luck: ChaCha8Rng,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rules: Vec::new(),
            luck: ChaCha8Rng::seed_from_u64(seed ^ 0xfa17_0002),
        }
    }

    pub(crate) fn set(&mut self, rules: Vec<FaultRule>) {
        self.rules = rules;
    }

    pub(crate) fn rules(&self) -> &[FaultRule] {
        &self.rules
    }

    /// Delays add up; the first other rule that fires decides.
    pub(crate) fn decide(&mut self, route: &Route, request: &Request) -> Verdict {
        let mut verdict = Verdict::default();
        for rule in &mut self.rules {
            let is_delay = matches!(rule.action, Action::Delay { .. });
            if (verdict.action.is_some() && !is_delay) || !rule.fits(route, request) {
                continue;
            }
            rule.matched += 1;
            let is_spent = rule.times.is_some_and(|times| rule.fired >= times);
            if rule.matched <= rule.after || is_spent {
                continue;
            }
            if rule.probability < 1.0 && !text::chance(&mut self.luck, rule.probability) {
                continue;
            }
            rule.fired += 1;
            if let Action::Delay { ms, jitter_ms } = rule.action {
                let more = usize::try_from(jitter_ms).unwrap_or(usize::MAX);
                let drawn = text::below(&mut self.luck, more.saturating_add(1));
                verdict.delay_ms += ms + u64::try_from(drawn).unwrap_or(0);
            } else {
                verdict.action = Some(rule.action.clone());
            }
        }
        verdict
    }
}
