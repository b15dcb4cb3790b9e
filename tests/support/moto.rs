//! A KMS for tests: `kms_server.py` on a free port of this machine. It goes with the process, however the process ends.

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Builder, Credentials, Region};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

pub struct Moto {
    pub port: u16,
    /// The server ends when the first of these pipes closes, which the end of this process does.
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

static SHARED: LazyLock<Moto> = LazyLock::new(Moto::start);

impl Moto {
    /// The server that all tests of a file may use: each makes its own keys.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// A server of its own, for a test that stops it.
    #[allow(clippy::zombie_processes, reason = "the server sees that this process ends, and ends too")]
    pub fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../target/python/bin/python");
        let mut server = Command::new(&python);
        server.arg(root.join("support/kms_server.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A process group of its own, so that an interrupt from the keyboard prints no Python traceback.
        let started = server.process_group(0).spawn();
        let mut server = started.unwrap_or_else(|error| panic!("{} can't be run ({error}): {SETUP}", python.display()));
        let mut pipes = (server.stdin.take().expect("a pipe"), BufReader::new(server.stdout.take().expect("a pipe")));
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("reading the server's port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the KMS server did not start, see above: {SETUP}"));
        Self { port, pipes: Mutex::new(pipes) }
    }

    /// Closes the port: connections are refused from now on. The server keeps its keys.
    pub fn stop(&self) {
        self.command("stop\n");
    }

    /// Opens the port again.
    pub fn go_on(&self) {
        self.command("start\n");
    }

    fn command(&self, command: &str) {
        let mut pipes = self.pipes.lock().unwrap();
        pipes.0.write_all(command.as_bytes()).expect("the server runs");
        let mut answer = String::new();
        pipes.1.read_line(&mut answer).expect("the server runs");
        assert_eq!(answer, command);
    }

    pub fn client(&self) -> Client {
        Client::from_conf(config(self.port).build())
    }

    /// A new key's ARN.
    pub async fn key(&self) -> String {
        let made = self.client().create_key().send().await.expect("CreateKey");
        made.key_metadata.and_then(|key| key.arn).expect("an ARN")
    }
}

const SETUP: &str = "run ./scripts/test once, which installs moto in target/python";

/// A client for a server on this machine, over plain HTTP, that gives up soon.
pub fn config(port: u16) -> Builder {
    let times = TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(5))
        .operation_timeout(Duration::from_secs(10))
        .build();
    aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(1)))
        .timeout_config(times)
}
