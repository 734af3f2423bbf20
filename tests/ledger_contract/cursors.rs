//! Cursors of the sinks: each of its own, moved only from where they stand, there after a restart and in a copy.

use latchkey::ports::Ledger;
use latchkey::ports::audit::AuditStore;
use latchkey::store::postgres;
use latchkey::store::sqlite::Options;
use latchkey::store::{Place, copy};

use crate::server::{Served, database};
use crate::support::*;

async fn a_cursor_moves_only_from_where_it_stands(store: &dyn AuditStore) {
    let cursor = async |sink| store.cursor(sink).await.expect("readable");
    let moves = async |sink, from, to| store.move_cursor(sink, from, to).await.expect("writable");
    assert_eq!(cursor("siem").await, 0);
    assert!(!moves("siem", 3, 7).await, "it stands at 0");
    assert_eq!(cursor("siem").await, 0);
    assert!(moves("siem", 0, 7).await);
    assert!(!moves("siem", 0, 9).await, "another replica was first");
    assert!(!moves("siem", 6, 9).await);
    assert!(moves("siem", 7, 9).await);
    assert_eq!(cursor("siem").await, 9);
    assert_eq!(cursor("file").await, 0, "each sink has its own");
    assert!(moves("file", 0, 1).await);
    assert_eq!(cursor("siem").await, 9);
}

#[tokio::test]
async fn cursors_of_a_file_are_there_after_a_restart_and_tell_no_follower() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let file = File::open(&path, Options::default()).await;
    let (before, changes) = (file.ledger.stamp(), file.ledger.changes());
    a_cursor_moves_only_from_where_it_stands(&file.ledger).await;
    assert_eq!(file.ledger.stamp(), before, "nothing became due");
    assert!(!changes.has_changed().expect("open"));
    file.close().await;
    let file = File::open(&path, Options::default()).await;
    assert_eq!(file.ledger.cursor("siem").await.expect("readable"), 9);
    file.close().await;
}

#[tokio::test]
async fn cursors_of_a_server_go_along_with_a_copy() {
    let (from, to) = (database().await, database().await);
    let served = Served::open(&from).await;
    a_cursor_moves_only_from_where_it_stands(&served.ledger).await;
    served.close().await;
    let place = |url| Place::Server(Box::new(postgres::Options::new(url)));
    let copied = copy(&place(from.url()), &place(to.url())).await;
    let copied = copied.expect("copied");
    assert!(copied.contains(&("sink_cursors", 2)), "{copied:?}");
    let served = Served::open(&to).await;
    assert_eq!(served.ledger.cursor("siem").await.expect("readable"), 9);
    served.close().await;
}
