//! A PostgreSQL and a Redis that somebody else runs: what is missing in the Secrets, or wrong in them, is named, and the platform goes
//! on by itself once it is there.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Scenario;
use super::ground::Ground;
use super::specs;
use super::status::row;
use super::subject::{Complaint, Subject, TOLD_WITHIN};
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "external",
    shows: "a Secret that is missing, lacks a key or holds a wrong password is named; with the right one the platform works",
    quick: false,
    play: |ground| Box::pin(external(ground)),
}];

/// The platform whose PostgreSQL and Redis stand for somebody else's.
const BACKING: &str = "backing";

async fn external(ground: &Ground<'_>) -> Result<()> {
    let open = specs::with(specs::single(), &json!({"networkPolicy": {"enabled": false}}));
    let backing = ground.platform_named(BACKING, &open).await?;
    backing.ready().await?;
    database(&backing).await?;
    let spec = json!({
        "api": specs::single()["api"],
        "postgres": {"managed": null, "external": {"primarySecretRef": {"name": "their-database", "key": "primary"}}},
        "redis": {"managed": null, "external": {"secretRef": {"name": "their-cache", "key": "url"}}},
    });
    let password = password(&backing).await?;
    let cache = format!(
        "redis://:{password}@backing-redis-0.backing-redis.{}.svc:6379/0",
        ground.namespace
    );
    secret(ground, "their-cache", "url", &cache).await?;
    let acme = ground.platform(&spec).await?;
    row(
        &acme,
        "no Secret, then no key",
        &Complaint::new("DatabaseReady", "SecretMissing", &["their-database"]),
        async { Ok(()) },
        async |()| {
            secret(ground, "their-database", "unused", "x").await?;
            let begun = Instant::now();
            let no_key = Complaint::new(
                "DatabaseReady",
                "SecretMissing",
                &["their-database", "key primary"],
            );
            acme.complains(begun, &no_key, TOLD_WITHIN).await?;
            secret(ground, "their-database", "primary", &url(ground, "wrong")).await
        },
    )
    .await?;
    row(
        &acme,
        "wrong password",
        &Complaint::new("DatabaseReady", "Unreachable", &["password"]),
        async { Ok(()) },
        async |()| secret(ground, "their-database", "primary", &url(ground, "right")).await,
    )
    .await?;
    acme.ready().await?;
    let visitor = Visitor::enter(&acme).await?;
    let conversation = visitor.person.open_conversation("elsewhere").await?;
    visitor
        .person
        .post(&conversation, "kept by somebody else")
        .await
        .map(drop)
}

fn url(ground: &Ground<'_>, password: &str) -> String {
    format!(
        "postgres://theirs:{password}@backing-postgres-rw.{}.svc:5432/theirs",
        ground.namespace
    )
}

/// A login and a database of its own.
async fn database(backing: &Subject<'_>) -> Result<()> {
    let ground = backing.ground;
    let pod = "backing-postgres-0";
    for statement in [
        "CREATE ROLE theirs LOGIN PASSWORD 'right'",
        "GRANT tanka_app TO theirs",
        "CREATE DATABASE theirs OWNER theirs",
    ] {
        ground.sql(pod, statement).await?;
    }
    let extension = "PGPASSWORD=$PATRONI_SUPERUSER_PASSWORD psql -XqAt -h 127.0.0.1 -U postgres theirs -c 'CREATE EXTENSION IF NOT EXISTS vector'";
    ground.shell(pod, "postgres", extension).await.map(drop)
}

async fn password(backing: &Subject<'_>) -> Result<String> {
    let line = [
        "get",
        "secret",
        "backing-redis",
        "-o",
        "go-template={{range .data}}{{. | base64decode}}{{end}}",
    ];
    let password = backing.ground.kubectl(&line).await?;
    Ok(password.trim().to_owned())
}

async fn secret(ground: &Ground<'_>, name: &str, key: &str, value: &str) -> Result<()> {
    let object: Value = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {key: value},
    });
    ground
        .kubernetes
        .apply(&ground.object("v1", "secrets", name), "scenarios", &object)
        .await
        .map(drop)
        .with_context(|| format!("Secret {name}"))
}
