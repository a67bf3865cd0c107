//! What is done with data beside storing it: cache, search, jobs, files.

use std::path::PathBuf;

use garde::Validate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

section! {
    /// The two-tier cache.
    Cache {
        /// Off: every read goes to PostgreSQL.
        enabled: bool = true, [skip];
        /// Memory of the in-process tier.
        l1_capacity: Size = Size::from_mib(64), [skip];
        /// Time to live of each kind of entry.
        ttl: CacheTtl = CacheTtl::default(), [skip];
        /// Loading before the first request.
        warm_up: WarmUp = WarmUp::default(), [dive];
    }
}

section! {
    /// Loading before the first request.
    WarmUp {
        /// Whether a starting process loads what is asked most, unless another one has just done so.
        on_start: bool = true, [skip];
        /// Cron expressions (five fields, UTC) at which one process of all loads it anew.
        schedules: Vec<String> = Vec::new(), [length(max = 8)];
    }
}

section! {
    /// Time to live of each kind of entry.
    CacheTtl {
        /// Validated access tokens.
        tokens: Span = Span::from_secs(300), [skip];
        /// A person's profile.
        user_profile: Span = Span::from_secs(900), [skip];
        /// A person's permissions.
        permissions: Span = Span::from_secs(900), [skip];
        /// Lists of memories.
        memories: Span = Span::from_secs(60), [skip];
        /// The plan catalogue.
        plans: Span = Span::from_secs(3_600), [skip];
        /// Recommendations.
        recommendations: Span = Span::from_secs(86_400), [skip];
        /// Analyses of usage.
        usage_analysis: Span = Span::from_secs(604_800), [skip];
        /// Anything else.
        default: Span = Span::from_secs(300), [skip];
    }
}

/// An OpenAI-compatible endpoint that turns texts into vectors. Without one, memories are searched by their words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Embeddings {
    /// Base address, such as `https://api.openai.com/v1`; `/embeddings` is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(min = 8, max = 512)), custom(web_address()))]
    pub url: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(min = 1, max = 128)), custom(model_of(self.url.as_ref())))]
    pub model: Option<String>,
    /// Length of its vectors, where the model allows to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 4000)))]
    pub dimensions: Option<u32>,
    /// File that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub api_key_file: Option<PathBuf>,
}

fn web_address() -> impl FnOnce(&Option<String>, &()) -> garde::Result {
    |url, ()| {
        let known = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if url.as_ref().is_none_or(known) {
            Ok(())
        } else {
            Err(garde::Error::new("must begin with https:// or http://"))
        }
    }
}

fn model_of(url: Option<&String>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |model, ()| {
        if url.is_some() && model.is_none() {
            Err(garde::Error::new("name the model of the endpoint"))
        } else {
            Ok(())
        }
    }
}

section! {
    /// Background work: syncs, webhooks, schedules.
    Jobs {
        /// Jobs that this process runs at the same time. 0: it runs none.
        concurrency: u32 = 4, [range(min = 0, max = 64)];
        /// How long a job waits for its worker to come back before another one takes it.
        lease: Span = Span::from_secs(60), [skip];
    }
}

section! {
    /// Requests that the server sends to addresses that people gave: webhooks and syncs.
    Outbound {
        /// Networks that they may reach although they are not public. Empty: none.
        allowed_networks: Vec<IpNet> = Vec::new(), [length(max = 64)];
    }
}

section! {
    /// Files of people.
    Resources {
        /// Largest file.
        max_size: Size = Size::from_mib(25), [skip];
        /// Content types that may be stored, such as `image/png` or `text/*`. Empty: all.
        content_types: Vec<String> = Vec::new(), [length(max = 64)];
        /// An S3-compatible store for what is uploaded from now on. Without one it goes into PostgreSQL.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_store: Option<ObjectStore> = None, [dive];
    }
}

/// A bucket of an S3-compatible store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectStore {
    /// Base address, such as `https://s3.eu-central-1.amazonaws.com`.
    #[garde(length(min = 8, max = 512), custom(store_address()))]
    pub endpoint: String,
    /// The bucket; it exists.
    #[garde(length(min = 3, max = 63))]
    pub bucket: String,
    /// Its region.
    #[serde(default = "default_region")]
    #[garde(length(min = 1, max = 64))]
    pub region: String,
    /// What all names begin with.
    #[serde(default)]
    #[garde(length(max = 256))]
    pub prefix: String,
    /// Whether the bucket stands in the path of addresses, and not before their host.
    #[serde(default = "path_style")]
    #[garde(skip)]
    pub path_style: bool,
    /// File that holds the access key.
    #[garde(skip)]
    pub access_key_file: PathBuf,
    /// File that holds the secret key.
    #[garde(skip)]
    pub secret_key_file: PathBuf,
}

/// Region of stores that have none.
pub const DEFAULT_REGION: &str = "us-east-1";

fn default_region() -> String {
    DEFAULT_REGION.to_owned()
}

const fn path_style() -> bool {
    true
}

fn store_address() -> impl FnOnce(&String, &()) -> garde::Result {
    |url, ()| web_address()(&Some(url.clone()), &())
}
