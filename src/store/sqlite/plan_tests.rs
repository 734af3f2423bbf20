//! What SQLite means to do for each query: the plan does not change with the size of the ledger, so it is read once here.

use sqlx::{Row, query};

use super::census::{COUNTS, OVERDUE, REVIEWS};
use super::engine::REVOKING;
use super::open::{self, Options};
use super::read::{BUCKETS, DUE, MEMBER, MEMBERS, NEXT_DUE, listing};
use super::sights::{GRANTED, OWNING, SETTLED, WATCHED};
use crate::domain::ids::{CallerName, IntegrationName};
use crate::ports::ledger::GrantFilter;

/// What SQLite says it will do for a query.
async fn plan(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("ledger.db");
    let _lock = open::files(&path).expect("a file");
    let mut conn = open::permitted_writer(&path, &Options::default())
        .await
        .expect("a ledger");
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
    query(explain)
        .fetch_all(&mut conn)
        .await
        .expect("explained")
        .iter()
        .map(|row| row.get::<String, _>("detail"))
        .collect()
}

#[tokio::test]
async fn what_runs_all_the_time_never_looks_at_every_grant_or_member() {
    for (name, text) in [
        ("buckets", BUCKETS),
        ("due", DUE),
        ("next due", NEXT_DUE),
        ("member", MEMBER),
        ("members", MEMBERS),
        ("counts", COUNTS),
        ("overdue", OVERDUE),
        ("reviews", REVIEWS),
        ("revoking", REVOKING),
        ("granted", GRANTED),
        ("owning", OWNING),
        ("watched", WATCHED),
        ("settled", SETTLED),
    ] {
        for step in plan(text).await {
            let everything = ["SCAN members", "SCAN grants", "SCAN m", "SCAN reviews"]
                .iter()
                .any(|scan| step == *scan || step.starts_with(&format!("{scan} ")));
            // Few reviews are open, however many there are.
            let everything = everything && step != "SCAN reviews USING INDEX reviews_open";
            // An index of everything that is open is as long as everything.
            let everything = everything || step.ends_with("INDEX grants_open (integration=?)");
            assert!(!everything, "{name}: {step}");
        }
    }
}

#[tokio::test]
async fn what_is_due_is_read_in_the_order_of_an_index_and_never_sorted() {
    for text in [BUCKETS, DUE] {
        let plan = plan(text).await;
        assert!(
            plan.iter().any(|step| step.contains("members_due")),
            "{plan:?}"
        );
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "{plan:?}"
        );
    }
}

#[tokio::test]
async fn a_search_for_drift_reads_indexes_and_no_bodies() {
    for (text, index) in [
        (GRANTED, "grants_open"),
        (OWNING, "members_owning"),
        (WATCHED, "members_watched"),
        (SETTLED, "COVERING INDEX members_settled"),
    ] {
        let plan = plan(text).await;
        assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "{plan:?}"
        );
    }
}

#[tokio::test]
async fn the_grants_of_a_subject_are_found_by_their_own_indexes() {
    let filter = GrantFilter {
        subject: Some("user:1".to_owned()),
        states: vec!["active".to_owned()],
        ..GrantFilter::default()
    };
    let plan = plan(listing(&filter, None, None, 50).sql().as_str()).await;
    for index in ["grants_by_subject", "grants_by_beneficiary"] {
        assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
    }
    assert!(
        !plan.iter().any(|step| step.contains("grants_by_state")),
        "{plan:?}"
    );
}

#[tokio::test]
async fn a_page_of_a_list_is_read_in_its_order_and_never_sorted() {
    let names = |states: &[&str]| states.iter().map(|&state| state.to_owned()).collect();
    let integration = IntegrationName::parse("main").ok();
    let caller = CallerName::parse("local").ok();
    for states in [names(&[]), names(&["active"]), names(&["ended"])] {
        let filter = GrantFilter {
            integration: integration.clone(),
            caller: caller.clone(),
            states,
            ..GrantFilter::default()
        };
        let state = filter.states.first().map(String::as_str);
        let text = listing(&filter, state, None, 50).sql().as_str().to_owned();
        let plan = plan(&text).await;
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "{plan:?}"
        );
        let index = if state.is_some() {
            "grants_by_state"
        } else {
            "sqlite_autoindex_grants_1"
        };
        assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
    }
}
