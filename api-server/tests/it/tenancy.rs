//! The wall between tenants, tried with plain SQL.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::app::TestApp;
use crate::services::connect;

async fn count(connection: &mut PgConnection, statement: &str) -> i64 {
    let row = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement.to_owned())))
        .await
        .unwrap();
    row.get(0)
}

const TABLES: [&str; 14] = [
    "tenants",
    "users",
    "sessions",
    "used_refresh_tokens",
    "ws_tickets",
    "conversations",
    "messages",
    "channels",
    "events",
    "idempotency_keys",
    "memories",
    "workrooms",
    "workroom_members",
    "workroom_messages",
];

#[tokio::test]
async fn without_a_tenant_nobody_sees_a_row_not_even_the_owner_of_the_tables() {
    let app = TestApp::start().await;
    let person = app.person().await;
    app.conversation(&person, "Secret").await;
    for user in ["tanka_app", "tanka_owner"] {
        let mut connection = connect(user, 0).await;
        for table in TABLES {
            assert_eq!(
                count(&mut connection, &format!("SELECT count(*) FROM {table}")).await,
                0,
                "{user} {table}"
            );
        }
    }
    let mut app_role = connect("tanka_app", 0).await;
    let mut transaction = app_role.begin().await.unwrap();
    let set = format!("SET LOCAL tanka.tenant_id = '{}'", person.tenant_id);
    transaction
        .execute(sqlx::raw_sql(AssertSqlSafe(set)))
        .await
        .unwrap();
    assert_eq!(
        count(&mut transaction, "SELECT count(*) FROM conversations").await,
        1
    );
    transaction.rollback().await.unwrap();
    assert_eq!(
        count(&mut app_role, "SELECT count(*) FROM conversations").await,
        0,
        "the setting ended"
    );
}

#[tokio::test]
async fn a_row_cannot_be_written_into_another_tenant() {
    let app = TestApp::start().await;
    let (person, other) = (app.person().await, app.person().await);
    let mut connection = connect("tanka_app", 0).await;
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}';
         INSERT INTO conversations (id, tenant_id, user_id, title) VALUES (gen_random_uuid(), '{}', '{}', 'Planted')",
        person.tenant_id, other.tenant_id, other.user_id
    );
    let error = connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501");
}

#[tokio::test]
async fn every_table_with_a_tenant_forces_its_policy() {
    let _app = TestApp::start().await;
    let mut connection = connect("postgres", 0).await;
    let open = count(
        &mut connection,
        "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
          WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND a.attname = 'tenant_id'
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
    )
    .await;
    assert_eq!(open, 0);
    let owned = count(
        &mut connection,
        "SELECT count(*) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE r.rolname = 'tanka_app'",
    )
    .await;
    assert_eq!(owned, 0);
    let bypass = count(
        &mut connection,
        "SELECT count(*) FROM pg_roles WHERE rolname IN ('tanka_app', 'tanka_owner') AND (rolbypassrls OR rolsuper)",
    )
    .await;
    assert_eq!(bypass, 0);
}

#[tokio::test]
async fn password_hashes_cannot_be_listed() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut connection = connect("tanka_app", 0).await;
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}'; SELECT password_hash FROM users",
        person.tenant_id
    );
    let error = connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501");
}

/// The plan of the statement that the server sends: its text comes from what the compiled statements were checked against, so that
/// it is no copy. It is the one statement whose text has all of these parts.
async fn plan(connection: &mut PgConnection, tenant: &str, parts: &[&str]) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .map(|text| {
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["query"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .filter(|query| parts.iter().all(|part| query.contains(part)))
        .collect();
    assert_eq!(found.len(), 1, "{parts:?}: {found:#?}");
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}'; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
         EXPLAIN (GENERIC_PLAN) {}",
        found.remove(0)
    );
    let rows = connection
        .fetch_all(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    connection.execute("ROLLBACK").await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect()
}

/// C10, J14, J15, J16, C12, F38: lists of a tenant are read from indexes in their order.
#[tokio::test]
async fn lists_of_people_and_logs_use_their_indexes() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut connection = connect("tanka_app", 0).await;
    for (parts, indexes) in [
        (
            vec!["FROM users u LEFT JOIN user_settings", "WHERE u.is_active AND"],
            vec!["idx_tenant_users_active"],
        ),
        (
            vec!["FROM audit_logs WHERE (created_at"],
            vec!["idx_audit_tenant_time"],
        ),
        // Which of the two depends on how many of the tenant's entries are about one person.
        (
            vec!["FROM audit_logs WHERE user_id = $4"],
            vec!["idx_audit_user_time", "idx_audit_tenant_time"],
        ),
        (
            vec!["FROM audit_logs WHERE event_type = $4"],
            vec!["idx_audit_event_type"],
        ),
        (
            vec!["FROM activity_logs WHERE (created_at"],
            vec!["idx_activity_tenant_time"],
        ),
    ] {
        let plan = plan(&mut connection, &person.tenant_id, &parts).await;
        assert!(
            indexes.iter().any(|index| plan.contains(index)),
            "{indexes:?}: {plan}"
        );
        assert!(!plan.contains("Sort"), "{indexes:?}: {plan}");
    }
}

/// R-wall: without any check of the application, another tenant's rows can be neither seen nor changed, in any table.
#[tokio::test]
async fn the_database_alone_keeps_tenants_apart() {
    let app = TestApp::start().await;
    let (owner, stranger) = (app.person().await, app.person().await);
    app.conversation(&owner, "Mine").await;
    let mut superuser = connect("postgres", 0).await;
    let tables = superuser
        .fetch_all(
            "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
              WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND a.attname = 'tenant_id'",
        )
        .await
        .unwrap();
    assert!(tables.len() >= 14, "{}", tables.len());
    let mut connection = connect("tanka_app", 0).await;
    let mut filled = 0;
    for table in tables.iter().map(|row| row.get::<String, _>(0)) {
        let theirs = format!("FROM {table} WHERE tenant_id = '{}'", owner.tenant_id);
        filled += i64::from(count(&mut superuser, &format!("SELECT count(*) {theirs}")).await > 0);
        let mut transaction = connection.begin().await.unwrap();
        let set = format!("SET LOCAL tanka.tenant_id = '{}'", stranger.tenant_id);
        transaction
            .execute(sqlx::raw_sql(AssertSqlSafe(set)))
            .await
            .unwrap();
        assert_eq!(
            count(&mut transaction, &format!("SELECT count(*) {theirs}")).await,
            0,
            "{table}"
        );
        for change in [
            format!("DELETE {theirs}"),
            format!(
                "UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = '{}'",
                owner.tenant_id
            ),
        ] {
            let mut attempt = transaction.begin().await.unwrap();
            match attempt.execute(sqlx::raw_sql(AssertSqlSafe(change))).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{table}"),
                Err(error) => assert_eq!(
                    error.as_database_error().unwrap().code().unwrap(),
                    "42501",
                    "{table}"
                ),
            }
            attempt.rollback().await.unwrap();
        }
        transaction.rollback().await.unwrap();
    }
    assert!(filled >= 6, "only {filled} tables had rows to try it with");
}

#[tokio::test]
async fn the_list_of_conversations_uses_its_indexes() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut connection = connect("tanka_app", 0).await;
    let plan = plan(
        &mut connection,
        &person.tenant_id,
        &["FROM conversations c", "c.last_message_at DESC"],
    )
    .await;
    assert!(
        plan.contains("idx_conv_active") && plan.contains("idx_messages_conv_created"),
        "{plan}"
    );
    assert!(!plan.contains("Sort"), "{plan}");
}
