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

const TABLES: [&str; 10] = [
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

#[tokio::test]
async fn the_list_of_conversations_uses_its_indexes() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut connection = connect("tanka_app", 0).await;
    let statement = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{}'; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
         EXPLAIN (FORMAT TEXT) SELECT c.id, m.content FROM conversations c LEFT JOIN LATERAL (
             SELECT content FROM messages WHERE conversation_id = c.id ORDER BY created_at DESC, id DESC LIMIT 1) m ON true
          WHERE c.user_id = '{}' AND c.deleted_at IS NULL ORDER BY c.last_message_at DESC, c.id DESC LIMIT 20",
        person.tenant_id, person.user_id
    );
    let plan = connection
        .fetch_all(sqlx::raw_sql(AssertSqlSafe(statement)))
        .await
        .unwrap();
    let plan: String = plan.iter().map(|row| row.get::<String, _>(0) + "\n").collect();
    assert!(
        plan.contains("idx_conv_active") && plan.contains("idx_messages_conv_created"),
        "{plan}"
    );
    assert!(!plan.contains("Sort"), "{plan}");
}
