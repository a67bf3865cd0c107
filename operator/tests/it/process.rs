//! The operator's real binary, as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::harness::eventually;

/// An operator that runs. It is killed when this is dropped.
pub struct Operator {
    process: Child,
    port: u16,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Operator {
    /// Starts one with further arguments and variables.
    pub fn start(kubeconfig: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tanka-operator"))
            .env("KUBECONFIG", kubeconfig)
            .envs(environment.iter().copied())
            .args(arguments)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| println!("{line}"));
        });
        Self { process, port }
    }

    /// What its own HTTP answers.
    pub fn get(&self, path: &str) -> String {
        get(self.port, path)
    }

    /// Waits until it leads.
    pub async fn leads(&self) {
        eventually("the operator to lead", || async {
            self.get("/metrics")
                .contains("tanka_operator_leader 1")
                .then_some(())
        })
        .await;
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args([&format!("-{name}"), &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        for _ in 0..400 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the operator did not end");
    }
}

/// One request by hand: no client is needed for it. Empty while nobody answers.
fn get(port: u16, path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let _ = socket.read_to_string(&mut text);
    }
    text
}

/// Path of the API server's audit log, beside its kubeconfig.
pub fn audit_log(kubeconfig: &Path) -> PathBuf {
    let log = kubeconfig.with_file_name("audit.log");
    assert!(
        log.is_file(),
        "{} is missing: these tests need the local cluster's own API server, which writes it",
        log.display()
    );
    log
}
