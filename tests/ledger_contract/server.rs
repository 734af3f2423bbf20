//! A PostgreSQL server of this test run, and a database of its own for each test.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use latchkey::store::PostgresLedger;
use latchkey::store::postgres::Options;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, raw_sql};
use tokio::task::JoinSet;

use crate::support::AnyLedger;

/// The server ends with this process: then nobody holds its standard input open any more.
pub(crate) struct Server {
    _child: Child,
    server: String,
    pooler: String,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
    let mut child = Command::new(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/postgres starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut address = |name: &str| {
        let line = lines.next().expect("PostgreSQL started").expect("text");
        let (found, address) = line.split_once(' ').expect("a name and an address");
        assert_eq!(found, name);
        address.to_owned()
    };
    Server {
        server: address("server"),
        pooler: address("pooler"),
        _child: child,
    }
});

/// A database that nobody else uses.
pub(crate) struct Database {
    pub(crate) name: String,
}

impl Database {
    /// Its address, straight to the server.
    pub(crate) fn url(&self) -> String {
        self.url_as("latchkey")
    }

    pub(crate) fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@{}/{}", SERVER.server, self.name)
    }

    /// Its address through the pooler.
    pub(crate) fn pooled_url(&self) -> String {
        format!("postgres://latchkey@{}/{}", SERVER.pooler, self.name)
    }

    /// Runs statements beside the ledger.
    pub(crate) async fn run(&self, text: &str) {
        run(&self.name, text).await;
    }
}

impl Database {
    /// Runs statements beside it, in no transaction of its own and whatever it refuses.
    pub(crate) async fn run_outside(&self, text: &str) {
        run("postgres", text).await;
    }
}

async fn run(database: &str, text: &str) {
    let url = format!("postgres://latchkey@{}/{database}", SERVER.server);
    let mut conn = PgConnection::connect(&url).await.expect("connected");
    raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(&mut conn)
        .await
        .expect("executed");
    conn.close().await.expect("closed");
}

pub(crate) async fn database() -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    run("postgres", &format!("CREATE DATABASE {name}")).await;
    Database { name }
}

/// An open PostgreSQL ledger and the task behind it.
pub(crate) struct Served {
    pub(crate) ledger: PostgresLedger,
    work: JoinSet<()>,
}

impl Served {
    pub(crate) async fn open(database: &Database) -> Self {
        Self::with(Options::new(database.url())).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let (ledger, run) = PostgresLedger::open(options)
            .await
            .expect("the ledger opens");
        let mut work = JoinSet::new();
        work.spawn(run);
        Self { ledger, work }
    }

    pub(crate) fn any(&self) -> AnyLedger {
        Arc::new(self.ledger.clone())
    }

    pub(crate) async fn close(mut self) {
        use latchkey::ports::Ledger as _;
        self.ledger.close().await;
        while let Some(ended) = self.work.join_next().await {
            ended.expect("the work behind the ledger ends in order");
        }
    }
}

pub(crate) async fn on_postgres<F: Future<Output = ()>>(claim: impl FnOnce(AnyLedger) -> F) {
    let served = Served::open(&database().await).await;
    assert!(!served.ledger.is_pooled(), "nothing stands in between");
    claim(served.any()).await;
    served.close().await;
}

pub(crate) async fn on_pooler<F: Future<Output = ()>>(claim: impl FnOnce(AnyLedger) -> F) {
    let served = Served::with(Options::new(database().await.pooled_url())).await;
    assert!(served.ledger.is_pooled(), "the pooler is noticed");
    claim(served.any()).await;
    served.close().await;
}
