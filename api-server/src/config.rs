//! The running configuration: `tanka.yaml`, read at start and again whenever its content changes.
//! The schema is in the crate `crds`, because the operator writes the file.

pub mod load;
pub mod reload;

use std::sync::Arc;

use arc_swap::ArcSwap;
use crds::config::Config;
use tokio::sync::watch;

/// The configuration in force. Clones see the same one.
#[derive(Debug, Clone)]
pub struct Live {
    current: Arc<ArcSwap<Config>>,
    changed: watch::Sender<()>,
}

impl Live {
    /// Starts with a configuration.
    pub fn new(config: Config) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(config)),
            changed: watch::Sender::new(()),
        }
    }

    /// The configuration of this moment.
    pub fn get(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Replaces it for everybody at once.
    pub fn set(&self, config: Config) {
        self.current.store(Arc::new(config));
        self.changed.send_replace(());
    }

    /// Tells about every later replacement.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
