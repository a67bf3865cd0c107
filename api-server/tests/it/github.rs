//! A server that behaves as GitHub does: tags, pages, limits, broken pages.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request that the source got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub uri: String,
    pub etag: Option<String>,
    pub token: Option<String>,
    pub status: StatusCode,
}

#[derive(Default)]
struct World {
    /// Number, text, time of the last change; in the order of changes.
    issues: Vec<(u64, String, String)>,
    asked: Vec<Asked>,
    /// Answers that are given before the true ones.
    moods: Vec<Mood>,
    /// What changes as soon as a page was read.
    meanwhile: Option<(u64, String, String)>,
    /// Until when it answers nothing but that its limit is reached.
    limited_until: i64,
}

impl World {
    fn change(&mut self, number: u64, text: &str, at: &str) {
        self.issues.retain(|(known, ..)| *known != number);
        self.issues.push((number, text.to_owned(), at.to_owned()));
        self.issues.sort_by(|one, two| one.2.cmp(&two.2));
    }
}

pub enum Mood {
    /// Its limit of requests is reached for so many seconds.
    Limited(i64),
    /// Half of a page.
    Broken,
    /// The next page is elsewhere.
    Lures,
}

/// A GitHub.
#[derive(Clone, Default)]
pub struct Github {
    world: Arc<Mutex<World>>,
    pub url: String,
}

impl Github {
    pub async fn start() -> Self {
        let mut github = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        github.url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(github.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        github
    }

    pub fn change(&self, number: u64, text: &str, at: &str) {
        self.world.lock().unwrap().change(number, text, at);
    }

    /// Changes something as soon as the next page was read.
    pub fn change_meanwhile(&self, number: u64, text: &str, at: &str) {
        self.world.lock().unwrap().meanwhile = Some((number, text.to_owned(), at.to_owned()));
    }

    pub fn mood(&self, mood: Mood) {
        self.world.lock().unwrap().moods.push(mood);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.world.lock().unwrap().asked.clone()
    }

    pub fn body(&self, repository: &str) -> Value {
        json!({"connector": "github", "repository": repository, "base_url": self.url, "token": "ghp_secret", "default": true})
    }
}

/// Issues in pages of two, comments never.
async fn answer(State(github): State<Github>, uri: Uri, headers: HeaderMap) -> Response {
    let mut world = github.world.lock().unwrap();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let none = uri.path().ends_with("/comments");
    let response = if none && text("if-none-match").is_some() {
        (StatusCode::NOT_MODIFIED, [("etag", "\"none\"")]).into_response()
    } else if none {
        ([("etag", "\"none\"")], "[]").into_response()
    } else if world.limited_until > api_server::clock::now().as_second() {
        limited(world.limited_until)
    } else if let Some(mood) = world.moods.pop() {
        sulk(&mood, &uri, &mut world)
    } else {
        let response = page(&world, &github.url, &uri, text("if-none-match").as_deref());
        if let Some((number, text, at)) = world.meanwhile.take() {
            world.change(number, &text, &at);
        }
        response
    };
    world.asked.push(Asked {
        uri: uri.to_string(),
        etag: text("if-none-match"),
        token: text("authorization"),
        status: response.status(),
    });
    response
}

fn limited(reset: i64) -> Response {
    let headers = [
        ("x-ratelimit-remaining", "0".to_owned()),
        ("x-ratelimit-reset", reset.to_string()),
    ];
    (StatusCode::FORBIDDEN, headers, "{}").into_response()
}

fn sulk(mood: &Mood, uri: &Uri, world: &mut World) -> Response {
    match mood {
        Mood::Limited(seconds) => {
            world.limited_until = api_server::clock::now().as_second() + seconds;
            limited(world.limited_until)
        }
        Mood::Broken => "[{\"id\": 1, \"number\"".into_response(),
        Mood::Lures => {
            let link = format!("<http://127.0.0.1:1{}>; rel=\"next\"", uri.path());
            ([("link", link)], "[]").into_response()
        }
    }
}

fn page(world: &World, url: &str, uri: &Uri, etag: Option<&str>) -> Response {
    let parameter = |name: &str| {
        let query = uri.query().unwrap_or_default();
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let since = parameter("since").unwrap_or_default();
    let number: usize = parameter("page").map_or(1, |text| text.parse().unwrap());
    let all: Vec<Value> = world
        .issues
        .iter()
        .filter(|(.., at)| at.as_str() >= since)
        .map(|(number, text, at)| {
            json!({"id": number * 1_000, "number": number, "title": text, "body": null, "state": "open", "updated_at": at})
        })
        .collect();
    let items: Vec<&Value> = all.iter().skip((number - 1) * 2).take(2).collect();
    let tag = format!(
        "\"{:x}\"",
        items.iter().map(|item| item.to_string().len()).sum::<usize>() * 31 + all.len()
    );
    if etag == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, [("etag", tag)]).into_response();
    }
    let body = serde_json::to_string(&items).unwrap();
    if number * 2 < all.len() {
        let query = format!("since={since}&page={}", number + 1);
        let link = format!("<{url}{}?{query}>; rel=\"next\"", uri.path());
        return ([("etag", tag), ("link", link)], body).into_response();
    }
    ([("etag", tag)], body).into_response()
}
