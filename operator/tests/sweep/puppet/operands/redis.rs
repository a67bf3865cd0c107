//! Redis and its Sentinels: one primary, and all other members in step with it.

use crds::names;

use super::Operands;

impl Operands {
    /// The answer of a pod to a command, on either of its ports.
    pub(super) fn redis(&self, pod: &str, command: &[String]) -> String {
        let upper: Vec<String> = command.iter().map(|word| word.to_uppercase()).collect();
        let words: Vec<&str> = upper.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["SENTINEL", question, _] => self.sentinel(question),
            ["INFO", ..] => bulk(&self.replication(pod)),
            _ => "+OK\r\n".to_owned(),
        }
    }

    fn sentinel(&self, question: &str) -> String {
        let Some(primary) = &self.redis_primary else {
            return "-ERR No such master with that name\r\n".to_owned();
        };
        let replicas: Vec<&String> = self.replicas().collect();
        match question {
            "MASTER" => {
                let (host, count) = (self.host(primary), replicas.len().to_string());
                let fields = [
                    ("name", names::REDIS_MASTER_NAME),
                    ("ip", &host),
                    ("port", "6379"),
                    ("flags", "master"),
                    ("config-epoch", "0"),
                    ("num-slaves", &count),
                ];
                map(&fields)
            }
            "REPLICAS" => {
                let replica = |replica: &&String| {
                    let host = self.host(replica);
                    map(&[("ip", &host), ("flags", "slave"), ("master-link-status", "ok")])
                };
                let all: String = replicas.iter().map(replica).collect();
                format!("*{}\r\n{all}", replicas.len())
            }
            "CKQUORUM" => "+OK enough Sentinels can be reached\r\n".to_owned(),
            _ => "-ERR Unknown sentinel subcommand\r\n".to_owned(),
        }
    }

    fn replication(&self, pod: &str) -> String {
        if self.redis_primary.as_deref() != Some(pod) {
            return "role:slave\r\nmaster_link_status:up\r\n".to_owned();
        }
        let mut info = format!("role:master\r\nconnected_slaves:{}\r\n", self.replicas().count());
        for (number, replica) in self.replicas().enumerate() {
            let host = self.host(replica);
            let line = format!("slave{number}:ip={host},port=6379,state=online,offset=9,lag=0\r\n");
            info.push_str(&line);
        }
        info
    }

    fn replicas(&self) -> impl Iterator<Item = &String> {
        let members = self.members.get("redis").into_iter().flatten();
        members.filter(|member| self.redis_primary.as_ref() != Some(member))
    }

    fn host(&self, member: &str) -> String {
        let set = member.rsplit_once('-').map_or(member, |(set, _)| set);
        format!("{member}.{set}.{}.svc", self.namespace)
    }
}

fn map(fields: &[(&str, &str)]) -> String {
    let words: String = fields
        .iter()
        .map(|(field, value)| bulk(field) + &bulk(value))
        .collect();
    format!("*{}\r\n{words}", 2 * fields.len())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
