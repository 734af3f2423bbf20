//! What is measured of grants, and what counts as in time.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::world::Fault;
use super::*;

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
