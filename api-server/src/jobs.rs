//! Background work: workers that claim jobs and do them.

pub mod schedules;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Live;
use crate::domain::task::{Failure, TaskKind};
use crate::keys::Keys;
use crate::lifecycle::Lifecycle;
use crate::metrics::jobs::JobMetrics;
use crate::outbound::Outbound;
use crate::routing::{Fleet, Scope, StoreError};
use crate::store::jobs::Job;
use crate::{syncs, webhooks};

/// Limit of one step in the database.
const STEP: Duration = Duration::from_secs(10);

/// What work is done with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// PostgreSQL.
    pub database: Fleet,
    /// Configuration in force.
    pub live: Live,
    /// Keys.
    pub keys: Keys,
    /// Requests to addresses that people gave.
    pub outbound: Outbound,
    /// What is counted.
    pub metrics: Arc<JobMetrics>,
    /// Whether the process is ending.
    pub lifecycle: Lifecycle,
}

/// An attempt did not end well.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The work failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The database did.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tenant of a job, for one step.
pub fn scope(job: &Job) -> Scope {
    Scope {
        tenant: Some(job.tenant_id),
        deadline: Instant::now() + STEP,
        at_least: None,
        primary_only: true,
    }
}

/// Does a job, and settles it in the transaction of its last effect. What it only answers as failed is settled by the worker.
async fn perform(tools: &Tools, job: &Job) -> Result<(), JobError> {
    match job.kind {
        TaskKind::Sync => syncs::run::run(tools, job).await,
        TaskKind::Webhook => webhooks::deliver::run(tools, job).await,
    }
}
