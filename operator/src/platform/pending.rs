//! Platforms whose objects have changed and which wait to be looked at. Each waits once, however often it changes, so nothing here
//! grows beyond the number of platforms.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream::poll_fn;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::cache::Guarded;

/// Namespace and name of a platform.
pub type Place = (String, String);

/// Who waits, and since when.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Bounded by `queued`: a platform is sent again only after it has been taken out.
    sender: UnboundedSender<Place>,
    queued: Arc<Mutex<HashSet<Place>>>,
    since: Arc<Mutex<HashMap<Place, Instant>>>,
}

impl Pending {
    /// Nobody waits yet. The stream yields each platform that is marked.
    pub fn new() -> (Self, impl Stream<Item = ObjectRef<Guarded>> + Send + 'static) {
        let (sender, receiver) = unbounded_channel();
        let pending = Self {
            sender,
            queued: Arc::default(),
            since: Arc::default(),
        };
        let stream = stream(receiver, Arc::clone(&pending.queued));
        (pending, stream)
    }

    /// A platform has to be looked at.
    pub fn mark(&self, place: Place) {
        lock(&self.since)
            .entry(place.clone())
            .or_insert_with(Instant::now);
        if lock(&self.queued).insert(place.clone()) {
            // Nobody takes any more: the process ends.
            let _ = self.sender.send(place);
        }
    }

    /// A look begins; answers how long the platform has waited for it, if a change of its objects was the cause.
    pub fn begin(&self, namespace: &str, name: &str) -> Option<Duration> {
        let place = (namespace.to_owned(), name.to_owned());
        lock(&self.since).remove(&place).map(|since| since.elapsed())
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        lock(&self.since).len()
    }

    /// Forgets whoever is not in one of these namespaces any more.
    pub fn keep_only(&self, namespaces: &HashSet<String>) {
        lock(&self.since).retain(|(namespace, _), _| namespaces.contains(namespace));
    }
}

fn stream(
    mut receiver: UnboundedReceiver<Place>,
    queued: Arc<Mutex<HashSet<Place>>>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    poll_fn(move |context| {
        receiver.poll_recv(context).map(|place| {
            let place = place?;
            // Out before it is looked at: what changes from now on marks it again.
            lock(&queued).remove(&place);
            Some(ObjectRef::new(&place.1).within(&place.0))
        })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_platform_waits_once_and_again_after_it_was_taken() {
        let (pending, mut stream) = Pending::new();
        let acme = || ("shop".to_owned(), "acme".to_owned());
        pending.mark(acme());
        pending.mark(acme());
        assert_eq!(pending.depth(), 1);
        assert_eq!(stream.next().await.unwrap().name, "acme");
        pending.mark(acme());
        assert_eq!(stream.next().await.unwrap().name, "acme");
        assert!(pending.begin("shop", "acme").is_some());
        assert!(pending.begin("shop", "acme").is_none());
        let mut next = std::pin::pin!(stream.next());
        assert!(futures::poll!(next.as_mut()).is_pending());
    }
}
