//! Several commands at once, each at the server that holds its key.

use futures::future::try_join_all;
use redis::{Cmd, RedisResult, Value};

use super::Connected;

/// Commands that are sent together: one pipeline for each server.
#[derive(Debug)]
pub struct Batch<'a> {
    connected: &'a Connected,
    pipelines: Vec<redis::Pipeline>,
    /// The server of each command.
    order: Vec<usize>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(connected: &'a Connected) -> Self {
        Self {
            connected,
            pipelines: vec![redis::Pipeline::new(); connected.servers.len()],
            order: Vec::new(),
        }
    }

    /// Adds a command about a key.
    pub fn add(&mut self, key: &str, command: Cmd) {
        let server = self.connected.slots.server(key);
        self.pipelines[server].add_command(command);
        self.order.push(server);
    }

    /// Sends all; the answers in the order of the commands. The order in which they are carried out is kept for each key alone.
    pub async fn run(self) -> RedisResult<Vec<Value>> {
        let connected = self.connected;
        let sent = self.pipelines.iter().zip(&connected.servers);
        let answers = try_join_all(sent.map(async |(pipeline, server)| {
            if pipeline.is_empty() {
                return Ok(Vec::new());
            }
            let mut connection = server.connection.clone();
            pipeline.query_async::<Vec<Value>>(&mut connection).await
        }));
        let mut answers: Vec<_> = answers.await?.into_iter().map(Vec::into_iter).collect();
        Ok(self
            .order
            .into_iter()
            .map(|server| answers[server].next().unwrap_or(Value::Nil))
            .collect())
    }
}
