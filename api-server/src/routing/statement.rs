//! Every statement of a request passes here: it is counted for the request, timed, and logged when it was slow, with its text and
//! never with its parameters. The clock stops when the result was read, failed, or was abandoned, so that what fails slowly shows too.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::time::Instant;

use crate::config::Live;
use crate::metrics::{DatabaseMetrics, StatementLabels};
use crate::tally;

/// Characters of a statement that are logged.
const MOST_LOGGED: usize = 2_000;

/// Where statements are timed to.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) metrics: DatabaseMetrics,
    pub(super) live: Live,
}

/// A connection whose statements are watched.
#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    watch: Arc<Watch>,
}

impl Session {
    pub(super) fn new(connection: PoolConnection<Postgres>, watch: Arc<Watch>) -> Self {
        Self { connection, watch }
    }

    /// The connection itself, for what belongs to no request: the frame of a transaction.
    pub(super) fn unwatched(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Events of one channel that clients may come back to.
    pub(crate) fn history_size(&self) -> i64 {
        i64::from(self.watch.live.get().websocket.history_size)
    }

    pub(super) fn close_on_drop(&mut self) {
        self.connection.close_on_drop();
    }

    fn start<'q, E: Execute<'q, Postgres>>(&self, query: E) -> (Statement, Timer) {
        let statement = Statement::of(query);
        tally::statement();
        let timer = Timer {
            // Made for traces only: logs name the request.
            _span: tracing::debug_span!("statement", db.statement = condense(statement.sql.as_str())),
            sql: statement.sql.clone(),
            watch: self.watch.clone(),
            started: Instant::now(),
        };
        (statement, timer)
    }
}

/// Observes one statement when it ends, however that happens.
struct Timer {
    _span: tracing::Span,
    sql: SqlStr,
    watch: Arc<Watch>,
    started: Instant,
}

impl Drop for Timer {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let kind = kind(self.sql.as_str());
        let metrics = &self.watch.metrics;
        metrics
            .statements
            .get_or_create(&StatementLabels { kind })
            .observe(took.as_secs_f64());
        if took >= self.watch.live.get().database.slow_query_threshold.get() {
            metrics.slow.inc();
            tracing::warn!(
                db.statement = condense(self.sql.as_str()),
                duration_ms = took.as_secs_f64() * 1_000.0,
                "slow statement"
            );
        }
    }
}

/// The verb of a statement, from a closed set.
fn kind(sql: &str) -> &'static str {
    let verb = sql.split_ascii_whitespace().next().unwrap_or_default();
    ["select", "insert", "update", "delete", "with"]
        .into_iter()
        .find(|known| verb.eq_ignore_ascii_case(known))
        .unwrap_or("other")
}

/// One line of bounded length.
fn condense(sql: &str) -> String {
    let words: Vec<&str> = sql.split_ascii_whitespace().collect();
    words.join(" ").chars().take(MOST_LOGGED).collect()
}

/// A statement whose text was read, and which can still be run.
struct Statement {
    sql: SqlStr,
    arguments: Option<Result<Option<PgArguments>, sqlx::error::BoxDynError>>,
    persistent: bool,
    prepared: Option<PgStatement>,
}

impl Statement {
    fn of<'q, E: Execute<'q, Postgres>>(mut query: E) -> Self {
        Self {
            prepared: query.statement().cloned(),
            arguments: Some(query.take_arguments()),
            persistent: query.persistent(),
            sql: query.sql(),
        }
    }
}

impl Execute<'_, Postgres> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.prepared.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.arguments.take().unwrap_or(Ok(None))
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (statement, timer) = self.start(query);
        let rows = self.unwatched().fetch_many(statement);
        rows.inspect(move |_| {
            // The timer lives as long as the stream does.
            let _ = &timer;
        })
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (statement, timer) = self.start(query);
        let row = self.unwatched().fetch_optional(statement);
        Box::pin(async move {
            let row = row.await;
            drop(timer);
            row
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.unwatched().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.unwatched().describe(sql)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("SELECT 1", "select")]
    #[case("\n  with place AS (", "with")]
    #[case("SET LOCAL x = 1", "other")]
    #[case("", "other")]
    fn verbs_are_a_closed_set(#[case] sql: &str, #[case] verb: &str) {
        assert_eq!(kind(sql), verb);
    }

    #[test]
    fn a_logged_statement_is_one_line_of_bounded_length() {
        assert_eq!(condense("SELECT a,\n       b\n  FROM c"), "SELECT a, b FROM c");
        assert_eq!(condense(&"é".repeat(5_000)).chars().count(), MOST_LOGGED);
    }
}
