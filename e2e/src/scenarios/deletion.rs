//! Deletion, in every order: what is to stay stays and is found again, what is to go goes, and nothing hangs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Scenario;
use super::ground::{Ground, until, until_since};
use super::operator;
use super::specs;
use super::subject::name;
use super::visitor::Visitor;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "deletion-retain",
        shows: "a deleted platform leaves its data; one of the same name finds it again",
        quick: false,
        play: |ground| Box::pin(retain(ground)),
    },
    Scenario {
        name: "deletion-delete",
        shows: "with deletionPolicy Delete nothing is left",
        quick: false,
        play: |ground| Box::pin(delete(ground)),
    },
    Scenario {
        name: "deletion-namespace",
        shows: "a namespace with a platform in it goes within a minute",
        quick: false,
        play: |ground| Box::pin(namespace(ground)),
    },
    Scenario {
        name: "deletion-no-operator",
        shows: "a platform can be deleted while no operator runs, and leaves no pod",
        quick: false,
        play: |ground| Box::pin(without_operator(ground)),
    },
    Scenario {
        name: "deletion-half-made",
        shows: "a platform that is deleted while it is being made leaves no pod, whenever that is",
        quick: false,
        play: |ground| Box::pin(half_made(ground)),
    },
];

/// How long pods may take to go: their own time to end, and Kubernetes' to notice.
const GONE_WITHIN: Duration = Duration::from_mins(2);
/// How long a namespace may take.
const NAMESPACE_WITHIN: Duration = Duration::from_mins(1);

async fn retain(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    let visitor = Visitor::enter(&acme).await?;
    let conversation = visitor.person.open_conversation("kept").await?;
    visitor.person.post(&conversation, "do not lose me").await?;
    let secrets = kept(ground, "v1", "secrets").await?;
    acme.delete().await?;
    nothing_runs(ground).await?;
    let left = kept(ground, "v1", "secrets").await?;
    ensure!(left == secrets, "Secrets were lost: {secrets:?} became {left:?}");
    ensure!(
        kept(ground, "v1", "persistentvolumeclaims").await?.len() == 1,
        "the volume is gone"
    );
    let again = ground.ready_platform(&specs::single()).await?;
    let visitor = visitor.come_back(&again).await?;
    let found = visitor.contents(&conversation).await?;
    ensure!(
        found == ["do not lose me"],
        "the platform that was made again holds {found:?}"
    );
    Ok(())
}

async fn delete(ground: &Ground<'_>) -> Result<()> {
    let spec = specs::with(specs::single(), &json!({"deletionPolicy": "Delete"}));
    let acme = ground.ready_platform(&spec).await?;
    let begun = Instant::now();
    acme.delete().await?;
    nothing_runs(ground).await?;
    until(
        "volumes, Secrets and everything else to go",
        GONE_WITHIN,
        || async { Ok(everything(ground).await?.is_empty()) },
    )
    .await?;
    ground.note(format!(
        "nothing is left after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn namespace(ground: &Ground<'_>) -> Result<()> {
    ground.ready_platform(&specs::single()).await?;
    let path = format!("/api/v1/namespaces/{}", ground.namespace);
    let begun = Instant::now();
    ground.kubernetes.delete(&path).await?;
    let took = until_since(begun, "the namespace to be gone", NAMESPACE_WITHIN, || async {
        Ok(ground.kubernetes.find(&path).await?.is_none())
    })
    .await?;
    ground.note(format!("gone after {:.1} s", took.as_secs_f64()));
    Ok(())
}

async fn without_operator(ground: &Ground<'_>) -> Result<()> {
    let acme = ground.ready_platform(&specs::single()).await?;
    operator::scale(ground, 0).await?;
    let outcome = async {
        acme.delete().await?;
        nothing_runs(ground).await
    };
    let outcome = outcome.await;
    operator::scale(ground, 2).await?;
    outcome
}

async fn half_made(ground: &Ground<'_>) -> Result<()> {
    for millis in [0, 50, 200, 500, 1_500, 5_000] {
        let acme = ground.platform(&specs::single()).await?;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        acme.delete().await?;
    }
    nothing_runs(ground).await?;
    // What was made in the very moment of the deletion is taken away by Kubernetes, since its owner is gone.
    until("all that is owned to go", GONE_WITHIN, || async {
        let left = everything(ground).await?;
        Ok(left
            .iter()
            .all(|path| path.contains("/secrets/") || path.contains("/persistentvolumeclaims/")))
    })
    .await?;
    let acme = ground.ready_platform(&specs::single()).await?;
    Visitor::enter(&acme).await.map(drop)
}

async fn nothing_runs(ground: &Ground<'_>) -> Result<()> {
    let took = until("the pods to go", GONE_WITHIN, || async {
        let pods = ground.kubernetes.get(&ground.path("v1", "pods")).await?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty))
    })
    .await?;
    ground.note(format!("the last pod went after {:.1} s", took.as_secs_f64()));
    Ok(())
}

/// Objects of a kind that carry the platform's label, with what they hold.
async fn kept(ground: &Ground<'_>, group: &str, plural: &str) -> Result<Vec<(String, Value)>> {
    let path = format!(
        "{}?labelSelector=tanka.dev/platform=acme",
        ground.path(group, plural)
    );
    let list = ground.kubernetes.get(&path).await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .iter()
        .map(|object| (name(object), object["data"].clone()))
        .collect())
}

/// Paths of all objects of the platform, its pods excepted.
async fn everything(ground: &Ground<'_>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let kinds = super::drift::KINDS
        .into_iter()
        .chain([("v1", "persistentvolumeclaims"), ("batch/v1", "jobs")]);
    for (group, plural) in kinds {
        for (object, _) in kept(ground, group, plural).await? {
            all.push(ground.object(group, plural, &object));
        }
    }
    Ok(all)
}
