//! What `services run` promises to a test of the API server.

use anyhow::Result;
use e2e::{paths::Paths, services::Platform};

#[tokio::test]
async fn replicas_have_what_the_primary_wrote_and_refuse_writes() -> Result<()> {
    let platform = Platform::start(&Paths::from_environment()?).await?;
    platform
        .postgres
        .query(0, "CREATE TABLE seen AS SELECT 1 AS one")
        .await?;
    let written = platform.postgres.query(0, "SELECT pg_current_wal_lsn()").await?;
    for replica in 1..=2 {
        while platform
            .postgres
            .query(
                replica,
                &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"),
            )
            .await?
            != "t"
        {}
        assert_eq!(
            platform.postgres.query(replica, "SELECT one FROM seen").await?,
            "1"
        );
        assert!(
            platform
                .postgres
                .query(replica, "CREATE TABLE other()")
                .await
                .is_err()
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_application_role_neither_owns_nor_bypasses() -> Result<()> {
    let platform = Platform::start(&Paths::from_environment()?).await?;
    let roles = "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles
                  WHERE rolname LIKE 'tanka%' AND NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)";
    assert_eq!(
        platform.postgres.query(0, roles).await?,
        "tanka_app,tanka_monitor,tanka_owner"
    );
    let rights = "SET ROLE tanka_owner; CREATE TABLE made (id bigserial); RESET ROLE;
                  SELECT has_table_privilege('tanka_app', 'made', 'INSERT'), has_table_privilege('tanka_app', 'made', 'TRUNCATE'),
                         has_sequence_privilege('tanka_app', 'made_id_seq', 'USAGE'),
                         has_schema_privilege('tanka_app', 'public', 'CREATE'), has_database_privilege('tanka_app', 'tanka', 'TEMP')";
    assert_eq!(
        platform.postgres.query(0, rights).await?.lines().last(),
        Some("t|f|t|f|f")
    );
    Ok(())
}
