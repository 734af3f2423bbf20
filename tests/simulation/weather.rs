//! Which faults a run meets, and how often.
//!
//! Owns the draw. Every class of fault is absent from most runs, so that each is met alone as well as with others.

use super::clock::{Dice, MINUTE, Ms};

/// Probabilities are for one call each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// The request never arrives.
    pub(crate) lost_before: f64,
    /// It takes effect, and the answer is lost.
    pub(crate) lost_after: f64,
    /// It takes effect long after the caller gave up.
    pub(crate) late: f64,
    /// It takes effect twice.
    pub(crate) duplicate: f64,
    /// It is answered "done" and has no effect.
    pub(crate) lie: f64,
    pub(crate) throttle: f64,
    pub(crate) forbidden: f64,
    pub(crate) unauthenticated: f64,
    pub(crate) not_sent: f64,
    pub(crate) slow: f64,
    pub(crate) read_fails: f64,
    pub(crate) read_filtered: f64,
    pub(crate) ledger_fails: f64,
    /// The commit is answered "unknown", applied or not.
    pub(crate) ledger_unknown: f64,
    pub(crate) ledger_stalls: f64,
    pub(crate) outages: bool,
    pub(crate) ledger_outages: bool,
    pub(crate) crashes: bool,
    pub(crate) jumps: bool,
    pub(crate) keys: bool,
    pub(crate) meddling: bool,
    pub(crate) sso: bool,
    pub(crate) hiding: bool,
    pub(crate) comings: bool,
    /// Owners of the organization are made and unmade.
    pub(crate) owners: bool,
    /// Callers retry, reorder, cancel.
    pub(crate) impatience: f64,
    /// From here on nothing goes wrong any more.
    pub(crate) calm_from: Ms,
}

/// How a run is set up beside its faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// How long a call of unknown outcome may still land.
    pub(crate) look_after: Ms,
    /// Pause between tries of a blocked removal.
    pub(crate) blocked_retry: Ms,
    /// Mean pause between the requests of one caller.
    pub(crate) pace: Ms,
    pub(crate) callers: usize,
}

impl Setup {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            look_after: dice.pick(&[10 * MINUTE, 10 * MINUTE, 3 * MINUTE]),
            blocked_retry: dice.pick(&[10 * MINUTE, 10 * MINUTE, 2 * MINUTE]),
            pace: dice.pick(&[20_000, 60_000, 120_000]),
            callers: dice.pick(&[1, 2, 3]),
        }
    }
}

impl Weather {
    pub(crate) fn draw(dice: &mut Dice, calm_from: Ms) -> Self {
        let mut weather = Self {
            calm_from,
            ..Self::default()
        };
        weather.meddling = dice.chance(0.5);
        weather.sso = dice.chance(0.2);
        weather.comings = dice.chance(0.4);
        weather.owners = dice.chance(0.3);
        if dice.chance(0.6) {
            weather.impatience = 0.3;
        }
        // One run in eight meets no fault at all: there every bound is tight.
        if dice.chance(0.125) {
            return weather;
        }
        let mut rate = |odds: f64, most: i64| {
            if dice.chance(odds) {
                dice.range(1, most) as f64 / 100.0
            } else {
                0.0
            }
        };
        weather.lost_before = rate(0.35, 20);
        weather.lost_after = rate(0.35, 20);
        weather.late = rate(0.35, 20);
        weather.duplicate = rate(0.25, 20);
        weather.lie = rate(0.3, 30);
        weather.throttle = rate(0.25, 15);
        weather.forbidden = rate(0.2, 8);
        weather.unauthenticated = rate(0.2, 8);
        weather.not_sent = rate(0.25, 20);
        weather.slow = rate(0.25, 30);
        weather.read_fails = rate(0.35, 30);
        weather.read_filtered = rate(0.25, 10);
        weather.ledger_fails = rate(0.25, 5);
        weather.ledger_unknown = rate(0.35, 8);
        weather.ledger_stalls = rate(0.2, 10);
        weather.outages = dice.chance(0.25);
        weather.ledger_outages = dice.chance(0.25);
        weather.crashes = dice.chance(0.5);
        weather.jumps = dice.chance(0.2);
        weather.keys = dice.chance(0.3);
        weather.hiding = dice.chance(0.3);
        weather
    }
}
