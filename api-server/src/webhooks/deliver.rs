//! Sends one event to one endpoint. A worker that dies after the endpoint has answered sends it again, with the same id, by which the
//! receiver recognises it.

use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;
use tokio::time::Instant;

use super::sign;
use crate::clock;
use crate::domain::task::{Failure, Next, after};
use crate::domain::webhook::PATIENCE;
use crate::entropy;
use crate::jobs::{JobError, Tools, scope};
use crate::outbound::{OutboundError, Reply, pause};
use crate::store::deliveries::{DropDelivery, FindParcel, Parcel, SettleDelivery};
use crate::store::jobs::Job;

/// Time for an endpoint to answer.
const PATIENT: Duration = Duration::from_secs(15);

/// Does the job.
pub async fn run(tools: &Tools, job: &Job) -> Result<(), JobError> {
    let (parcel, _) = tools.database.read(&scope(job), &FindParcel(job.hold.id)).await?;
    let Some(parcel) = parcel else {
        tools.database.write(scope(job), DropDelivery(job.hold)).await?;
        return Ok(());
    };
    let (asked, status, outcome) = if parcel.enabled {
        let (status, outcome) = send(tools, &parcel).await;
        (true, status, outcome)
    } else {
        let disabled = Failure::Hopeless("the webhook is disabled".to_owned());
        (false, None, Err(disabled))
    };
    let failure = outcome.err().map(|failure| {
        let pause = match after(PATIENCE, job.attempt, &failure) {
            Next::Retry(pause) => Some(entropy::later(pause)),
            Next::GiveUp => None,
        };
        (failure.to_string(), pause)
    });
    let settle = SettleDelivery {
        hold: job.hold,
        webhook_id: parcel.webhook_id,
        response_status: status,
        failure,
        asked,
    };
    tools.database.write(scope(job), settle).await?;
    Ok(())
}

/// Asks the endpoint.
async fn send(tools: &Tools, parcel: &Parcel) -> (Option<u16>, Result<(), Failure>) {
    let now = clock::now();
    let request = match request(tools, parcel, now) {
        Ok(request) => request,
        Err(error) => {
            return (
                None,
                Err(Failure::Hopeless(format!("the address cannot be used: {error}"))),
            );
        }
    };
    match tools.outbound.tell(request, Instant::now() + PATIENT).await {
        Ok(reply) => (Some(reply.status.as_u16()), verdict(&reply, now)),
        Err(error @ OutboundError::Forbidden(_)) => (None, Err(Failure::Refused(error.to_string()))),
        Err(error) => (None, Err(Failure::unavailable(error.to_string()))),
    }
}

fn request(
    tools: &Tools,
    parcel: &Parcel,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, axum::http::Error> {
    let id = sign::message_id(parcel.message_id);
    let secrets: Vec<_> = parcel
        .secret_versions
        .iter()
        .map(|version| tools.keys.webhook(parcel.webhook_id, *version))
        .collect();
    let signatures = sign::signatures(secrets.iter().map(<[u8; 32]>::as_slice), &id, now, &parcel.body);
    Request::post(&parcel.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "tanka-webhooks/1")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.as_second())
        .header("webhook-signature", signatures)
        .body(Full::from(parcel.body.clone()))
}

/// What an answer means: 2xx is taken, 410 is never again, anything else is tried again.
fn verdict(reply: &Reply, now: Timestamp) -> Result<(), Failure> {
    let answered = format!("it answered {}", reply.status);
    match reply.status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => Err(Failure::Hopeless(answered)),
        _ => Err(Failure::Unavailable {
            cause: answered,
            after: pause::retry_after(&reply.headers, now),
        }),
    }
}
