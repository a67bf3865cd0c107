//! Usage of energy of the person who calls, and what would have cost less.

use std::collections::HashSet;
use std::str::FromStr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::{Timestamp, ToSpan};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::cache::{Found, Source};
use crate::clock;
use crate::domain::Unacceptable;
use crate::domain::plan::Recommendation;
use crate::domain::principal::Role;
use crate::domain::tariff::region::Region;
use crate::domain::tariff::{Reading, watt_hours, zone};
use crate::http::answer::{Answer, Kept};
use crate::http::error::{ApiError, Fields, Problem};
use crate::http::extract::{Body, Caller, Key, Writer, query};
use crate::routing::StoreError;
use crate::store::usage::{AnalyseUsage, Analysis, FindRecommendation, Recommend, SaveUsage};

/// Readings of one request: more than a year of hours.
const MOST_READINGS: usize = 10_000;
/// Greatest energy of an hour in watt hours.
const MOST_ENERGY: i64 = 1_000_000_000;

/// Routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(save))
        .routes(routes!(analyse))
        .routes(routes!(recommend))
}

/// Usage to write down.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageRequest {
    /// Where the energy is used, such as `DE`; what was said before stays if absent.
    pub region: Option<String>,
    /// The plan by which it is paid, with a region.
    pub current_plan_id: Option<Uuid>,
    /// Hours, each once; at most 10,000.
    pub readings: Vec<ReadingRequest>,
}

/// Energy of one hour.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadingRequest {
    /// When the hour begins: a full hour of UTC.
    pub at: Timestamp,
    /// Kilowatt hours, at most three decimals, written as text.
    #[schema(value_type = String, example = "0.425")]
    pub kwh: Decimal,
}

/// How much was written down.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UsageSaved {
    /// Hours.
    pub saved: u64,
}

/// Writes usage down. An hour that is there already is replaced, so the request may be repeated.
#[utoipa::path(post, path = "/usage", tag = "usage", security(("bearer" = ["write"])), request_body = UsageRequest, responses(
    (status = 200, body = UsageSaved),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn save(
    State(app): State<App>,
    Writer(caller): Writer,
    key: Key,
    body: Body<UsageRequest>,
) -> Result<Answer<UsageSaved>, ApiError> {
    let mut fields = Fields::default();
    let readings = fields.check("readings", parse(&body.value.readings));
    let region = body.value.region.as_deref().map(Region::parse).transpose();
    let region = fields.check("region", region);
    if body.value.current_plan_id.is_some() && body.value.region.is_none() {
        fields.check::<()>(
            "region",
            Err(Unacceptable("is needed with current_plan_id".to_owned())),
        );
        return Err(fields.into_error());
    }
    let (Some(readings), Some(region)) = (readings, region) else {
        return Err(fields.into_error());
    };
    let key = key.of(&caller, &body);
    let save = SaveUsage {
        user_id: caller.person.user_id,
        region,
        current_plan_id: body.value.current_plan_id,
        readings,
    };
    let written = app.database().write_once(caller.scope, save, key).await;
    let written = written.map_err(|error| match error {
        StoreError::Taken(_) => ApiError::field("current_plan_id", "is no plan"),
        other => other.into(),
    })?;
    Ok(Answer::written(&app, StatusCode::OK, written).map(|saved| UsageSaved { saved }))
}

fn parse(requests: &[ReadingRequest]) -> Result<Vec<Reading>, Unacceptable> {
    let refused = |text: String| Err(Unacceptable(text));
    if !(1..=MOST_READINGS).contains(&requests.len()) {
        return refused(format!("must be 1 to {MOST_READINGS} hours"));
    }
    let mut seen = HashSet::with_capacity(requests.len());
    let mut readings = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        if request.at.as_nanosecond() % 3_600_000_000_000 != 0 {
            return refused(format!("number {index} does not begin at a full hour"));
        }
        if !seen.insert(request.at) {
            return refused(format!("number {index} is an hour that was named before"));
        }
        let energy = watt_hours(request.kwh).filter(|energy| (0..=MOST_ENERGY).contains(energy));
        let Some(watt_hours) = energy else {
            return refused(format!(
                "number {index} has no energy between 0 and 1,000,000 kWh with at most three decimals"
            ));
        };
        readings.push(Reading {
            at: request.at,
            watt_hours,
        });
    }
    Ok(readings)
}

/// What is to be added up.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AnalysisQuery {
    /// Full months before this one, 0 to 60; 12 if absent.
    pub months: Option<String>,
    /// Time zone of months and hours; `UTC` if absent.
    pub time_zone: Option<String>,
}

/// The caller's usage by month and by hour of the day.
#[utoipa::path(get, path = "/usage/analysis", tag = "usage", security(("bearer" = ["read"])), params(AnalysisQuery), responses(
    (status = 200, body = Analysis),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json"),
))]
async fn analyse(State(app): State<App>, caller: Caller, uri: axum::http::Uri) -> Result<Kept, ApiError> {
    let AnalysisQuery { months, time_zone } = query(&uri)?;
    let mut fields = Fields::default();
    let months = months.map_or(Ok(12), |text| i32::from_str(&text).map_err(drop));
    let months = months
        .ok()
        .filter(|months| (0..=60).contains(months))
        .ok_or_else(|| Unacceptable("must be between 0 and 60".to_owned()));
    let months = fields.check("months", months);
    let name = time_zone.unwrap_or_else(|| "UTC".to_owned());
    let zone = fields.check("time_zone", zone::parse(&name));
    let (Some(months), Some(zone)) = (months, zone) else {
        return Err(fields.into_error());
    };
    // The same moment all month long, so that the answer can be cached.
    let from = clock::now()
        .to_zoned(zone)
        .first_of_month()
        .and_then(|first| first.start_of_day())
        .and_then(|first| first.checked_sub(months.months()))
        .map_err(|error| ApiError::Internal(error.to_string()))?
        .timestamp();
    let analyse = AnalyseUsage {
        user_id: caller.person.user_id,
        from,
        time_zone: name,
    };
    Ok(Kept(app.cache().read(&caller.scope, &analyse).await?))
}

/// The active plans of a person's region by what the person's usage of the last year would have cost. `me` is the caller; owners and
/// admins may ask for people of their tenant.
#[utoipa::path(get, path = "/recommendations/{user}", tag = "usage", security(("bearer" = ["read"])),
    params(("user" = String, Path, description = "An id, or `me`")), responses(
    (status = 200, body = Recommendation),
    (status = 401, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn recommend(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Kept, ApiError> {
    let me = caller.person.user_id;
    let user_id = match user.as_str() {
        "me" => me,
        id => Uuid::try_parse(id).map_err(|_| ApiError::NotFound)?,
    };
    if user_id != me && !matches!(caller.person.role, Role::Owner | Role::Admin) {
        // As for whoever is not there: nobody learns who is.
        return Err(ApiError::NotFound);
    }
    match app
        .cache()
        .read(&caller.scope, &FindRecommendation(user_id))
        .await
    {
        // An entry may outlive what it holds.
        Ok(found) if found.read::<Recommendation>()?.expires_at > clock::now() => return Ok(Kept(found)),
        Ok(_) | Err(StoreError::Missing) => {}
        Err(error) => return Err(error.into()),
    }
    let recommend = Recommend {
        user_id,
        now: clock::now(),
        ttl: app.config().cache.ttl.recommendations.get(),
    };
    let written = app.database().write(caller.scope, recommend).await?;
    let json = serde_json::to_vec(&written.output).map_err(StoreError::from)?;
    Ok(Kept(Found {
        json: json.into(),
        source: Source::Database(written.served),
    }))
}
