//! What is measured of grants, and what counts as in time.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::facts::{ada, grant_in};
use super::world::Fault;
use super::*;
use crate::domain::member::WriteKind;

/// Plays a story and hands out what was measured meanwhile, without the help texts.
pub(super) fn measured(story: impl FnOnce()) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        crate::reconcile::metrics::begin(&main_integration());
        story();
    });
    handle.render()
}

pub(super) fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    let (_, value) = line.rsplit_once(' ').expect("a sample");
    value.parse().expect("a number")
}

fn outcomes(text: &str) -> (f64, f64) {
    let of = |outcome: &str| {
        let name = main_integration();
        let series =
            format!("latchkey_revocations_total{{integration=\"{name}\",outcome=\"{outcome}\"}}");
        value(text, &series)
    };
    (of("on_time"), of("late"))
}

#[test]
fn a_grant_that_ends_as_it_should_is_measured_from_due_to_gone_and_counts_as_in_time() {
    let text = measured(|| {
        let mut bench = Bench::new();
        bench.grant("ada", &[viewer("a")], 60);
        bench.run(HOUR);
        bench.assert_clean(&["ada"]);
    });
    assert_eq!(outcomes(&text), (1.0, 0.0));
    assert_eq!(value(&text, "latchkey_activation_seconds_count"), 1.0);
    assert_eq!(value(&text, "latchkey_revocation_seconds_count"), 1.0);
    let took = value(&text, "latchkey_revocation_seconds_sum");
    assert!(
        (2.0..60.0).contains(&took),
        "staleness, then a read: {took}"
    );
}

#[test]
fn a_removal_that_is_answered_and_not_done_for_minutes_counts_as_late_by_all_of_them() {
    let text = measured(|| {
        let mut bench = Bench::new();
        bench.world.change(|world| {
            for _ in 0..12 {
                world.removes.push_back(Some(Fault::Lie));
            }
        });
        bench.grant("ada", &[viewer("a")], 60);
        bench.run(2 * HOUR);
        bench.assert_clean(&["ada"]);
    });
    assert_eq!(outcomes(&text), (0.0, 1.0));
    assert!(
        value(&text, "latchkey_revocation_seconds_sum") > 60.0,
        "{text}"
    );
}

#[test]
fn what_was_not_ours_to_take_away_does_not_count() {
    let text = measured(|| {
        let mut bench = Bench::new();
        // Standing access covers the first grant, and the administrator takes the second one's away.
        bench.gives("ada", &viewer("a"));
        bench.grant("ada", &[viewer("a")], 60);
        bench.grant("bob", &[viewer("b")], HOUR);
        bench.run(5);
        bench.takes("bob", &viewer("b"));
        bench.run(2 * HOUR);
        bench.assert_clean(&["ada", "bob"]);
    });
    assert_eq!(outcomes(&text), (0.0, 0.0));
    let drift = format!(
        "latchkey_drift_total{{integration=\"{}\",kind=\"missing\"}}",
        main_integration()
    );
    assert!(value(&text, &drift) >= 1.0, "{text}");
}

/// A series of the organization of the scenarios.
fn of_main(text: &str, name: &str, labels: &str) -> f64 {
    let integration = main_integration();
    value(
        text,
        &format!("{name}{{integration=\"{integration}\"{labels}}}"),
    )
}

#[test]
fn a_removal_is_measured_from_due_to_sent_once_however_often_it_is_sent() {
    let text = measured(|| {
        let mut bench = Bench::new();
        bench
            .world
            .change(|world| world.removes.push_back(Some(Fault::Lie)));
        bench.grant("ada", &[viewer("a")], 60);
        bench.run(HOUR);
        assert!(bench.removals() > 1);
    });
    let name = "latchkey_revocation_lateness_seconds_count";
    assert_eq!(of_main(&text, name, ""), 1.0);
    let ended = "latchkey_grants_ended_total";
    assert_eq!(of_main(&text, ended, ",cause=\"expired\""), 1.0);
    let verified = "latchkey_revocation_verified_seconds_count";
    assert_eq!(of_main(&text, verified, ""), 1.0);
}

#[test]
fn lateness_counts_to_the_first_byte_for_grants_that_nothing_was_sent_for() {
    let bench = Bench::new();
    let now = bench.now();
    let revoking = |pair: &str| {
        let state = GrantState::Revoking {
            since: now - seconds(10),
            cause: EndCause::Expired,
        };
        grant_in(state, &[viewer(pair)])
    };
    let mut record = ada(Vec::new());
    let mut sent = revoking("a");
    sent.removal_sent_at = Some(now - seconds(5));
    record.grants = vec![revoking("a"), sent, revoking("b")];
    let text = measured(|| {
        for kind in [WriteKind::Add, WriteKind::Remove] {
            bench
                .reconciler
                .count_lateness(&record, kind, &[viewer("a")], 4_000);
        }
    });
    let name = "latchkey_revocation_lateness_seconds";
    assert_eq!(of_main(&text, &format!("{name}_count"), ""), 1.0);
    assert_eq!(of_main(&text, &format!("{name}_sum"), ""), 6.0);
}

#[test]
fn a_removal_without_the_ledger_is_counted_by_its_outcome() {
    let text = measured(|| {
        let mut replica = super::outage::Replica::new();
        replica.about_to_end(&[viewer("a")]);
        replica.bench.clock.advance(seconds(3));
        replica.pass();
    });
    let name = "latchkey_removals_without_ledger_total";
    assert_eq!(of_main(&text, name, ",outcome=\"done\""), 1.0);
    let waiting = value(&text, "latchkey_journal_waiting");
    assert_eq!(waiting, 1.0, "the ledger has not been told");
}

#[test]
fn open_differences_and_repairs_that_wait_are_shown_until_they_are_over() {
    let mut bench = Bench::new();
    bench.settings.reapply = crate::reconcile::Reapply::Sso;
    bench.settings.reapply_max_members = 0;
    bench.restart();
    bench.gives("ada", &editor("m"));
    bench.grant("ada", &[viewer("a"), viewer("b")], 600);
    bench.run(5);
    bench.takes("ada", &viewer("a"));
    bench.takes("ada", &viewer("b"));
    let text = measured(|| {
        bench.look_at("ada");
        bench.run(5);
    });
    let held = of_main(&text, "latchkey_breaker_open", "");
    assert_eq!(held, 1.0, "at once, not with the next sweep");
    let missing = ",kind=\"missing\"";
    for (open, differences) in [(1.0, 2.0), (0.0, 0.0)] {
        let text = measured(|| {
            ready(bench.reconciler.sweep()).expect("readable");
        });
        assert_eq!(of_main(&text, "latchkey_breaker_open", ""), open);
        assert_eq!(of_main(&text, "latchkey_drift_open", missing), differences);
        assert_eq!(of_main(&text, "latchkey_key_refused", ""), 0.0);
        bench.run(HOUR);
    }
}

#[test]
fn a_key_to_which_everything_is_refused_is_shown() {
    let mut bench = Bench::new();
    bench.grant("ada", &[viewer("a"), editor("b")], 60);
    bench.run(10);
    bench.world.change(|world| {
        world.deny_all = true;
        world.status.sees_owners = Some(false);
    });
    bench.run(120);
    let text = measured(|| {
        ready(bench.reconciler.sweep()).expect("readable");
    });
    assert_eq!(of_main(&text, "latchkey_key_refused", ""), 1.0);
}
