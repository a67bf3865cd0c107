//! What all runs share: connections to one API server, and a view of what is really on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kube::{Client, Config};

use crate::view::View;
use crate::wire::Exchange;

/// What all runs share.
pub struct Lab {
    /// A client that no fault touches.
    pub client: Client,
    /// Connections of the operators under test.
    pub exchange: Exchange,
    /// What is really on the API server.
    pub view: Arc<View>,
    serial: AtomicUsize,
}

impl Lab {
    /// Follows the API server of `config`.
    pub fn new(config: Config) -> Self {
        let client = Client::try_from(config.clone()).unwrap();
        Self {
            view: View::start(&client),
            exchange: Exchange::new(config),
            client,
            serial: AtomicUsize::new(0),
        }
    }

    /// A name that no namespace had before.
    pub fn namespace(&self) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("sweep-{:08}-{serial:06}", std::process::id())
    }
}
