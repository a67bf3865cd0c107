//! Deletes the objects of files that are gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::app::App;
use crate::entropy;
use crate::routing::Scope;
use crate::store::objects::{ClaimGarbage, GarbageDone};

/// Time between looks of one process; jitter spreads processes.
const INTERVAL: Duration = Duration::from_secs(5);
/// Limit of one look.
const LIMIT: Duration = Duration::from_mins(1);

/// Looks until the server ends.
pub async fn run(app: App) {
    let stop = app.lifecycle().stop.clone();
    while stop
        .run_until_cancelled(tokio::time::sleep(entropy::jitter(INTERVAL)))
        .await
        .is_some()
    {
        if let Some(Ok(objects)) = app.objects()
            && let Err(error) = look(&app, &objects).await
        {
            tracing::warn!(%error, "objects of files that are gone were not deleted");
        }
    }
}

async fn look(app: &App, objects: &super::Objects) -> anyhow::Result<()> {
    let scope = Scope {
        tenant: None,
        deadline: Instant::now() + LIMIT,
        at_least: None,
        primary_only: true,
    };
    let claim = ClaimGarbage { lease: LIMIT * 2 };
    let folders = app.database().write(scope, claim).await?.output;
    let mut gone = Vec::new();
    let mut failed = None;
    for folder in folders {
        match objects.delete_all(&folder, scope.deadline).await {
            Ok(()) => gone.push(folder),
            // The others may be well; this one comes again when its lease has ended.
            Err(error) => failed = Some(error),
        }
    }
    if !gone.is_empty() {
        app.database().write(scope, GarbageDone(gone)).await?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
