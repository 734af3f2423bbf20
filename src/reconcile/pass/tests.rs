//! What a pass forgets of what it read before.

use super::*;

#[test]
fn a_read_from_a_time_that_is_yet_to_come_is_forgotten_and_no_other() {
    let now = Timestamp::from_timestamp(1_800_000_000, 0).expect("in range");
    for (ahead, kept) in [(-1, true), (0, true), (1, false)] {
        let snapshot = Snapshot {
            started_at: now + chrono::TimeDelta::seconds(ahead),
            complete: true,
            shown: true,
            assignments: BTreeSet::new(),
            owners: 1,
        };
        let mut progress = Progress {
            snapshot: Some(snapshot),
            ..Progress::default()
        };
        progress.forget_the_future(now);
        assert_eq!(progress.snapshot.is_some(), kept, "{ahead}");
    }
}
