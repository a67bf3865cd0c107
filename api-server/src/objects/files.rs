//! Chunks of files, wherever they are: in PostgreSQL, or each an object of a store.

use bytes::Bytes;
use uuid::Uuid;

use super::{ObjectError, Objects};
use crate::app::App;
use crate::domain::resource::StoredIn;
use crate::http::error::ApiError;
use crate::routing::{Fleet, Scope, StoreError};
use crate::store::resources::{FindChunk, Resource, StoreChunk};

/// Bytes of an object that are read at once.
const PIECE: u64 = 1 << 20;

/// What people are told.
const AWAY: &str = "The store of files cannot be used at the moment.";

/// Where the chunks of a file are.
#[derive(Debug, Clone)]
pub enum Files {
    /// Beside what is known of it.
    Postgres(Fleet),
    /// In a store.
    Objects(Box<Objects>),
}

impl Files {
    /// Where a new file goes. A store that is configured and cannot be used takes nothing; PostgreSQL does not take its place.
    pub fn for_new(app: &App) -> Result<Self, ApiError> {
        match app.objects() {
            None => Ok(Self::Postgres(app.database().clone())),
            Some(objects) => Ok(Self::Objects(Box::new(
                objects.map_err(|error| unavailable(&error))?,
            ))),
        }
    }

    /// Where a file is.
    pub fn of(app: &App, resource: &Resource) -> Result<Self, ApiError> {
        if !resource.in_objects {
            return Ok(Self::Postgres(app.database().clone()));
        }
        let missing = || Err(ObjectError::Unusable("none is configured any more".to_owned()));
        let objects = app.objects().unwrap_or_else(missing);
        Ok(Self::Objects(Box::new(
            objects.map_err(|error| unavailable(&error))?,
        )))
    }

    /// What a piece that cannot be read means to who asked for it.
    pub fn explain(&self, error: StoreError) -> ApiError {
        match (self, error) {
            (Self::Objects(_), StoreError::Unavailable(_)) => ApiError::Unavailable(AWAY),
            (_, error) => error.into(),
        }
    }

    /// Which of the two.
    pub const fn stored_in(&self) -> StoredIn {
        match self {
            Self::Postgres(_) => StoredIn::Postgres,
            Self::Objects(_) => StoredIn::S3,
        }
    }

    /// Stores a chunk.
    pub async fn put(&self, scope: Scope, id: Uuid, place: i32, data: Vec<u8>) -> Result<(), ApiError> {
        match self {
            Self::Postgres(database) => {
                let chunk = StoreChunk {
                    resource_id: id,
                    place,
                    data,
                };
                database.write(scope, chunk).await?;
                Ok(())
            }
            Self::Objects(objects) => objects
                .put(&name(scope, id, place)?, Bytes::from(data), scope.deadline)
                .await
                .map_err(|error| unavailable(&error)),
        }
    }

    /// Bytes of a file from a place on: to the end of the chunk, or fewer. Of the file, its id and the size of its chunks are known.
    pub async fn get(
        &self,
        scope: Scope,
        (id, chunk_size): (Uuid, u64),
        at: u64,
        end: u64,
    ) -> Result<Bytes, StoreError> {
        let place = i32::try_from(at / chunk_size).unwrap_or(i32::MAX);
        let from = at % chunk_size;
        let to = from.saturating_add(end - at).min(chunk_size);
        match self {
            Self::Postgres(database) => {
                let find = FindChunk {
                    resource_id: id,
                    place,
                };
                let bytes = Bytes::from(database.read(&scope, &find).await?.0);
                let within = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(within(from)..within(to)))
            }
            Self::Objects(objects) => {
                let to = to.min(from.saturating_add(PIECE));
                objects
                    .get(&name(scope, id, place)?, (from, to), scope.deadline)
                    .await
                    .map_err(|error| {
                        tracing::warn!(%error, "a file cannot be read");
                        StoreError::Unavailable("the store of files does not answer")
                    })
            }
        }
    }
}

/// The name of a chunk. The tenant comes first, so that a rule of the store can tell tenants apart.
fn name(scope: Scope, id: Uuid, place: i32) -> Result<String, StoreError> {
    let tenant = scope
        .tenant
        .ok_or_else(|| StoreError::Corrupt("file without a tenant".to_owned()))?;
    Ok(format!("{tenant}/{id}/{place:06}"))
}

fn unavailable(error: &ObjectError) -> ApiError {
    tracing::error!(%error, "files cannot be stored or read");
    ApiError::Unavailable(AWAY)
}
