//! Indexes: that they are there, and that the statements that are really sent use them. Their texts come from the files that the
//! statements were checked against, so a test cannot drift away from the code.

use sqlx::{AssertSqlSafe, Executor, Row};

use crate::app::TestApp;
use crate::services::connect;

/// The one statement that contains all of these.
pub fn statement(parts: &[&str]) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let data: serde_json::Value = serde_json::from_str(&text).unwrap();
        let query = squeeze(data["query"].as_str().unwrap());
        if parts.iter().all(|part| query.contains(part)) {
            found.push(query);
        }
    }
    assert_eq!(found.len(), 1, "{parts:?} names {found:#?}");
    found.remove(0)
}

/// B13, B14, B16, C11, F37, T30, T31, T32, R23 to R27, F38, F47: the indexes of the requirements, in the form that serves.
#[tokio::test]
async fn every_index_that_was_asked_for_is_there() {
    let _app = TestApp::start().await;
    let mut connection = connect("tanka_owner", 0).await;
    for (name, parts) in [
        ("idx_messages_conv_created", "(conversation_id, created_at DESC"),
        ("idx_memories_user_type", "(user_id, memory_type, created_at DESC"),
        (
            "idx_conv_active",
            "(user_id, last_message_at DESC, id DESC) WHERE (deleted_at IS NULL)",
        ),
        (
            "idx_plan_catalog_region_active",
            "gin (available_regions) WHERE is_active",
        ),
        (
            "idx_usage_user_date",
            "UNIQUE INDEX idx_usage_user_date ON public.usage_history USING btree (user_id, usage_date DESC)",
        ),
        ("idx_recommendations_user_expires", "(user_id, expires_at DESC)"),
        ("idx_plan_rate_structure_gin", "gin (rate_structure"),
        (
            "idx_webhook_delivery_status",
            "(tenant_id, status, created_at DESC",
        ),
        ("idx_webhook_delivery_created", "(webhook_id, created_at DESC"),
        (
            "idx_sync_source_target",
            "(tenant_id, source, target, created_at DESC",
        ),
        ("idx_sync_status", "(tenant_id, status, created_at DESC"),
        ("idx_sync_created_at", "(tenant_id, created_at DESC"),
        (
            "idx_sync_partial",
            "(tenant_id, source) WHERE (status = 'pending'",
        ),
        (
            "idx_recent_resources",
            "(tenant_id, created_at DESC, id DESC) WHERE is_ready",
        ),
        ("idx_jobs_due", "(due_at) WHERE (due_at IS NOT NULL)"),
        (
            "idx_active_plans",
            "(renewable_percentage DESC, id) WHERE is_active",
        ),
    ] {
        let text: Option<String> = sqlx::query_scalar(
            "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
              WHERE c.relname = $1 AND i.indisvalid",
        )
        .bind(name)
        .fetch_optional(&mut connection)
        .await
        .unwrap();
        let text = text.unwrap_or_else(|| panic!("{name} is missing or invalid"));
        assert!(text.contains(parts), "{name}: {text}");
    }
}

/// A statement, the index that serves it, and whether its rows come out of that index in their order.
const SERVED: [(&[&str], &str, bool); 8] = [
    (
        &["FROM memories WHERE user_id = $1 AND (created_at, id) <"],
        "idx_memories_user_created",
        true,
    ),
    (
        &["FROM memories WHERE user_id = $1 AND memory_type = $5"],
        "idx_memories_user_type",
        true,
    ),
    (
        &[
            "FROM conversations c LEFT JOIN LATERAL",
            "c.last_message_at DESC, c.id DESC",
        ],
        "idx_conv_active",
        true,
    ),
    (
        &["FROM plan_catalog WHERE available_regions @>"],
        "idx_plan_catalog_region_active",
        false,
    ),
    (
        &["FROM plan_catalog WHERE is_active ORDER BY"],
        "idx_active_plans",
        true,
    ),
    (
        &["FROM usage_history WHERE user_id = $1 AND usage_date > $2"],
        "idx_usage_user_date",
        true,
    ),
    (
        &["SELECT body FROM recommendations"],
        "idx_recommendations_user_expires",
        true,
    ),
    (
        &["FROM cache_invalidations WHERE tx >="],
        "idx_cache_invalidations_tx",
        true,
    ),
];

/// R29, T28: the statements of lists read by an index, and lists come out of it in their order.
#[tokio::test]
async fn statements_use_their_indexes() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let (tenant, user) = (&person.tenant_id, &person.user_id);
    let mut owner = connect("tanka_owner", 0).await;
    // Never committed: other tests list the same catalogue.
    let seed = format!(
        "BEGIN; SET LOCAL tanka.tenant_id = '{tenant}'; SET LOCAL enable_seqscan = off;
         INSERT INTO memories (id, tenant_id, user_id, memory_type, content)
         SELECT gen_random_uuid(), '{tenant}', '{user}', 'type ' || n % 20, 'seeded ' || n FROM generate_series(1, 5000) n;
         INSERT INTO usage_history (user_id, usage_date, tenant_id, watt_hours)
         SELECT '{user}', '2026-01-01 00:00Z'::timestamptz - n * interval '1 hour', '{tenant}', n FROM generate_series(1, 5000) n;
         INSERT INTO plan_catalog (id, name, provider, available_regions, currency, time_zone, renewable_percentage, rate_structure)
         SELECT gen_random_uuid(), 'plan ' || n, 'provider', ARRAY['region ' || n % 300], 'EUR', 'UTC', n % 100, '{{}}'
           FROM generate_series(1, 5000) n;
         ANALYZE memories, usage_history, plan_catalog, recommendations, cache_invalidations"
    );
    owner.execute(sqlx::raw_sql(AssertSqlSafe(seed))).await.unwrap();
    for (parts, index, sorted) in SERVED {
        // Whether the index can serve: with few rows, and a limit that is not known, other ways are cheaper.
        let (sort, ordered) = if sorted { ("off", "on") } else { ("on", "off") };
        let explain = format!(
            "SET LOCAL enable_sort = {sort}; SET LOCAL enable_indexscan = {ordered}; EXPLAIN (GENERIC_PLAN, FORMAT TEXT) {}",
            statement(parts)
        );
        let rows = owner
            .fetch_all(sqlx::raw_sql(AssertSqlSafe(explain)))
            .await
            .unwrap();
        let plan: String = rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect();
        assert!(plan.contains(index), "{parts:?} does not use {index}:\n{plan}");
        assert!(!sorted || !plan.contains("Sort"), "{parts:?} sorts:\n{plan}");
    }
    owner.execute("ROLLBACK").await.unwrap();
}

/// A function that answers by one statement, its parameter, and the indexes that serve it.
const LOOKUPS: [(&str, &str, &[&str]); 3] = [
    ("auth_find_login", "wanted_email", &["users_email_key"]),
    (
        "auth_find_access",
        "wanted_hash",
        &["sessions_access_hash_key", "users_pkey"],
    ),
    (
        "auth_find_refresh",
        "wanted_hash",
        &[
            "sessions_refresh_hash_key",
            "used_refresh_tokens_pkey",
            "sessions_pkey",
        ],
    ),
];

/// J09, J11 to J13, B15: an address, a token, the sessions of a person and those that have expired are found by their indexes.
#[tokio::test]
async fn people_and_sessions_are_found_by_their_indexes() {
    let app = TestApp::start().await;
    let person = app.person().await;
    let mut owner = connect("tanka_owner", 0).await;
    owner
        .execute("BEGIN; SET LOCAL enable_seqscan = off")
        .await
        .unwrap();
    let begin = format!("SET LOCAL tanka.tenant_id = '{}'", person.tenant_id);
    owner.execute(sqlx::raw_sql(AssertSqlSafe(begin))).await.unwrap();
    let mut served = vec![
        (
            statement(&["FROM sessions WHERE user_id = $1 AND revoked_at IS NULL"]),
            ["idx_sessions_user_active"].as_slice(),
        ),
        (
            "SELECT s.ctid FROM public.sessions s WHERE s.refresh_expires_at < now() LIMIT $1".to_owned(),
            &["idx_sessions_expires"],
        ),
    ];
    let sweep = body(&mut owner, "maintenance_sweep").await;
    assert!(
        sweep.contains("FROM public.sessions s WHERE s.refresh_expires_at < now() LIMIT"),
        "the clean-up asks something else: {sweep}"
    );
    for (function, parameter, indexes) in LOOKUPS {
        let body = body(&mut owner, function).await;
        let (_, rest) = body.split_once("RETURN QUERY").unwrap();
        let (query, _) = rest.split_once(';').unwrap();
        served.push((query.replace(parameter, "$1"), indexes));
    }
    for (query, indexes) in served {
        let explain = format!("EXPLAIN (GENERIC_PLAN, FORMAT TEXT) {query}");
        let rows = owner
            .fetch_all(sqlx::raw_sql(AssertSqlSafe(explain)))
            .await
            .unwrap();
        let plan: String = rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect();
        for index in indexes {
            assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
        }
    }
    owner.execute("ROLLBACK").await.unwrap();
}

/// F38: a function that asks for what is due or has expired compares with one time, so that an index can find it.
#[tokio::test]
async fn functions_compare_with_one_time() {
    let _app = TestApp::start().await;
    let mut owner = connect("tanka_owner", 0).await;
    let of_rows: Vec<String> = sqlx::query_scalar(
        r"SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosrc ~ '<=? clock_timestamp\(\)'",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(of_rows, [] as [&str; 0]);
}

/// What a function of the database does.
async fn body(connection: &mut sqlx::PgConnection, function: &str) -> String {
    sqlx::query_scalar("SELECT prosrc FROM pg_proc WHERE proname = $1")
        .bind(function)
        .fetch_one(connection)
        .await
        .unwrap()
}
