//! One end of a copy from database to database: rows as they are.
//!
//! Owns reading them in order of their keys and writing them. Never looks into a body.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Row};

use super::engine::{self, Conn, Db, Held, built, query};
use crate::store::copy::{Cell, End, Kind, Table};

/// An open ledger that nobody works on.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) conn: Conn,
    /// Kept until the copy is done.
    pub(super) _held: Held,
}

fn push_cells<'q>(text: &mut QueryBuilder<Db>, cells: impl IntoIterator<Item = &'q Cell>) {
    let mut list = text.separated(", ");
    for cell in cells {
        match cell {
            Cell::Text(value) => list.push_bind(value.clone()),
            Cell::Number(value) => list.push_bind(*value),
        };
    }
}

fn names(table: &Table, count: usize) -> String {
    let names: Vec<&str> = table.columns().iter().map(|(name, _)| *name).collect();
    names[..count].join(", ")
}

#[async_trait]
impl End for Open {
    async fn begin(&mut self, reads: bool) -> Result<(), sqlx::Error> {
        let text = if reads {
            engine::BEGIN_COPY
        } else {
            engine::BEGIN_FILL
        };
        engine::run(&mut self.conn, text).await
    }

    async fn is_in_use(&mut self) -> Result<bool, sqlx::Error> {
        let found = query(engine::IN_USE).fetch_one(&mut self.conn).await?;
        Ok(found.try_get::<i64, _>(0)? > 0)
    }

    async fn is_empty(&mut self) -> Result<bool, sqlx::Error> {
        let found = query(
            "SELECT (SELECT COUNT(*) FROM grants) + (SELECT COUNT(*) FROM members) \
             + (SELECT COUNT(*) FROM requests) + (SELECT COUNT(*) FROM organizations)",
        )
        .fetch_one(&mut self.conn)
        .await?;
        Ok(found.try_get::<i64, _>(0)? == 0)
    }

    async fn make_room(&mut self) -> Result<(), sqlx::Error> {
        engine::run(&mut self.conn, engine::MAKE_ROOM).await
    }

    async fn page(
        &mut self,
        table: &Table,
        after: Option<&[Cell]>,
        limit: i64,
    ) -> Result<Vec<Vec<Cell>>, sqlx::Error> {
        let columns = table.columns();
        let (all, key) = (names(table, columns.len()), names(table, table.key));
        let mut text: QueryBuilder<Db> =
            QueryBuilder::new(format!("SELECT {all} FROM {}", table.name));
        // The turn is a lock, and not of the ledger.
        text.push(if table.name == "meta" {
            " WHERE name <> 'turn'"
        } else {
            " WHERE true"
        });
        if let Some(after) = after {
            text.push(format!(" AND ({key}) > ("));
            push_cells(&mut text, after);
            text.push(")");
        }
        text.push(format!(" ORDER BY {key} LIMIT "))
            .push_bind(limit);
        let mut rows = Vec::new();
        for row in built(&mut text).fetch_all(&mut self.conn).await? {
            let mut cells = Vec::with_capacity(columns.len());
            for (at, (_, kind)) in columns.iter().enumerate() {
                cells.push(match kind {
                    Kind::Text => Cell::Text(row.try_get(at)?),
                    Kind::Number => Cell::Number(row.try_get(at)?),
                });
            }
            rows.push(cells);
        }
        Ok(rows)
    }

    async fn put(&mut self, table: &Table, rows: Vec<Vec<Cell>>) -> Result<(), sqlx::Error> {
        let all = names(table, table.columns().len());
        let mut text: QueryBuilder<Db> =
            QueryBuilder::new(format!("INSERT INTO {} ({all}) VALUES ", table.name));
        for (at, row) in rows.iter().enumerate() {
            text.push(if at == 0 { "(" } else { ", (" });
            push_cells(&mut text, row);
            text.push(")");
        }
        built(&mut text).execute(&mut self.conn).await?;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), sqlx::Error> {
        engine::run(&mut self.conn, "COMMIT").await
    }
}
