//! The wall between tenants, tried with plain SQL.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row, Transaction};

use crate::app::TestApp;
use crate::ground::{CONFIG, Table, Tenant, snapshot, tables};
use crate::services::connect;

async fn count(connection: &mut PgConnection, statement: &str) -> i64 {
    let row = connection
        .fetch_one(sqlx::raw_sql(AssertSqlSafe(statement.to_owned())))
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn without_a_tenant_nobody_sees_a_row_not_even_the_owner_of_the_tables() {
    let app = TestApp::start().await;
    let person = app.person().await;
    app.conversation(&person, "Secret").await;
    let tables = tables().await;
    for user in ["tanka_app", "tanka_owner"] {
        let mut connection = connect(user, 0).await;
        for Table { name, .. } in &tables {
            assert_eq!(
                count(&mut connection, &format!("SELECT count(*) FROM {name}")).await,
                0,
                "{user} {name}"
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

/// What the application's role may do with a table, as the catalogue has it.
struct Rights {
    /// Columns that a new row can name.
    columns: String,
    /// One that may be read and changed.
    changeable: Option<String>,
    insert: bool,
    delete: bool,
}

impl Rights {
    async fn of(superuser: &mut PgConnection, table: &str) -> Self {
        let read = format!(
            "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
                        FILTER (WHERE a.attgenerated = '' AND a.attidentity = ''),
                    min(quote_ident(a.attname))
                        FILTER (WHERE a.attgenerated = '' AND a.attidentity = ''
                            AND has_column_privilege('tanka_app'::name, a.attrelid, a.attnum, 'SELECT')
                            AND has_column_privilege('tanka_app'::name, a.attrelid, a.attnum, 'UPDATE')),
                    has_table_privilege('tanka_app'::name, '{table}'::regclass::oid, 'INSERT'),
                    has_table_privilege('tanka_app'::name, '{table}'::regclass::oid, 'DELETE')
               FROM pg_attribute a
              WHERE a.attrelid = '{table}'::regclass AND a.attnum > 0 AND NOT a.attisdropped"
        );
        let row = superuser
            .fetch_one(sqlx::raw_sql(AssertSqlSafe(read)))
            .await
            .unwrap();
        Self {
            columns: row.get(0),
            changeable: row.get(1),
            insert: row.get(2),
            delete: row.get(3),
        }
    }
}

/// A transaction in the name of a tenant.
async fn in_the_name_of<'c>(connection: &'c mut PgConnection, tenant: &str) -> Transaction<'c, Postgres> {
    let mut transaction = connection.begin().await.unwrap();
    let set = format!("SET LOCAL tanka.tenant_id = '{tenant}'");
    transaction
        .execute(sqlx::raw_sql(AssertSqlSafe(set)))
        .await
        .unwrap();
    transaction
}

/// Rows that are seen in the name of a tenant.
async fn seen(connection: &mut PgConnection, tenant: &str, rows: &str) -> i64 {
    let mut transaction = in_the_name_of(connection, tenant).await;
    let seen = count(&mut transaction, &format!("SELECT count(*) FROM {rows}")).await;
    transaction.rollback().await.unwrap();
    seen
}

/// What comes of a change in the name of a tenant, of which nothing stays: how many rows it touches, or why it is refused.
async fn tried(connection: &mut PgConnection, tenant: &str, change: &str) -> Result<u64, String> {
    let mut transaction = in_the_name_of(connection, tenant).await;
    let done = transaction
        .execute(sqlx::raw_sql(AssertSqlSafe(change.to_owned())))
        .await;
    transaction.rollback().await.unwrap();
    match done {
        Ok(done) => Ok(done.rows_affected()),
        Err(error) => {
            let refused = error.as_database_error().unwrap();
            assert_eq!(refused.code().unwrap(), "42501", "{change}: {error}");
            Err(refused.message().to_owned())
        }
    }
}

/// In the name of one tenant, a table shows and changes no row of another one, and takes none.
async fn assert_walled(
    connection: &mut PgConnection,
    superuser: &mut PgConnection,
    table: &Table,
    (own, other): (&str, &str),
    row_of_other: &str,
) {
    let Table { name, key } = table;
    let rights = Rights::of(superuser, name).await;
    let denied = format!("permission denied for table {name}");
    let untouched = |may: bool| -> Result<u64, String> { if may { Ok(0) } else { Err(denied.clone()) } };
    let ours = seen(connection, own, &format!("{name} WHERE {key} = '{own}'")).await;
    assert!(ours > 0, "{name} hides own rows");
    let foreign = seen(connection, own, &format!("{name} WHERE {key} <> '{own}'")).await;
    assert_eq!(foreign, 0, "{name} shows rows of others");

    let column = rights.changeable.as_ref().unwrap_or(key);
    let update = format!("UPDATE {name} SET {column} = {column} WHERE {key} = '{other}'");
    let updated = tried(connection, own, &update).await;
    assert_eq!(updated, untouched(rights.changeable.is_some()), "UPDATE {name}");
    let delete = format!("DELETE FROM {name} WHERE {key} = '{other}'");
    let deleted = tried(connection, own, &delete).await;
    assert_eq!(deleted, untouched(rights.delete), "DELETE FROM {name}");
    let give = format!("UPDATE {name} SET {key} = '{other}' WHERE {key} = '{own}'");
    let given = tried(connection, own, &give).await;
    assert!(given.is_err(), "own rows of {name} become another tenant's");

    // The very row that is there: the wall comes before every constraint.
    let columns = &rights.columns;
    let insert = format!(
        "INSERT INTO {name} ({columns}) SELECT {columns}
           FROM jsonb_populate_record(NULL::{name}, $row${row_of_other}$row$::jsonb)"
    );
    let refusal = if rights.insert {
        format!("new row violates row-level security policy for table \"{name}\"")
    } else {
        denied.clone()
    };
    let inserted = tried(connection, own, &insert).await;
    assert_eq!(inserted, Err(refusal), "INSERT INTO {name}");
}

/// API1, F46: without any check of the application, another tenant's rows can be neither seen nor changed nor made, in any table that the
/// catalogue has: each of two tenants, with rows in all of them, tries the other's.
#[tokio::test]
async fn the_database_alone_keeps_tenants_apart() {
    let app = TestApp::builder().config(CONFIG).start().await;
    let tenants = [Tenant::of(&app).await, Tenant::of(&app).await];
    let [one, two] = tenants
        .each_ref()
        .map(|tenant| tenant.ground.owner.tenant_id.as_str());
    let tables = tables().await;
    assert!(tables.len() > 30, "{} tables", tables.len());
    let mut superuser = connect("postgres", 0).await;
    let mut connection = connect("tanka_app", 0).await;
    for (own, other) in [(one, two), (two, one)] {
        let rows = snapshot(other).await;
        for table in &tables {
            let Some(row) = rows[&table.name].first() else {
                panic!("no row in {}: `Tenant::of` has to make one", table.name);
            };
            assert_walled(&mut connection, &mut superuser, table, (own, other), row).await;
        }
    }
    for tenant in &tenants {
        tenant.clear().await;
    }
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
