//! Columns and bodies: order of urgency, layouts, the earlier of two dues.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).expect("in range")
}

#[test]
fn ranks_sort_removals_first_then_power_and_read_back() {
    let kinds = [
        DueKind::Remove,
        DueKind::Verify,
        DueKind::Grant,
        DueKind::Look,
    ];
    let mut last = -1;
    for kind in kinds {
        for weight in [u32::MAX, 100, 1, 0] {
            let one = Due {
                at: at(7),
                kind,
                weight,
            };
            let rank = rank(&one);
            assert!(rank > last, "{kind:?} {weight}");
            assert_eq!(
                rank < REMOVALS_END,
                kind == DueKind::Remove,
                "{kind:?} {weight}"
            );
            last = rank;
            assert_eq!(due(micros(one.at), rank).expect("readable"), one);
        }
    }
    assert!(due(0, 4 << 32).is_err());
}

#[test]
fn a_body_of_a_newer_layout_is_refused_in_words() {
    let error = read_body::<u8>(|| "a grant".to_owned(), FORMAT + 1, "1")
        .expect_err("newer layouts are not read");
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[test]
fn of_two_dues_the_earlier_stays_and_at_one_instant_the_more_urgent() {
    let due = |seconds, kind| Due {
        at: at(seconds),
        kind,
        weight: 1,
    };
    let look = due(1, DueKind::Look);
    assert_eq!(earlier(Some(look), due(2, DueKind::Remove)), look);
    let remove = due(1, DueKind::Remove);
    assert_eq!(earlier(Some(look), remove), remove);
    assert_eq!(earlier(None, look), look);
}
