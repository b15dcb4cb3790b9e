//! What goes over the wire to a PostgreSQL server: a socket in front of it that counts round trips.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// A socket that passes everything on to the server of `options`.
pub struct Wire {
    folder: tempfile::TempDir,
    round_trips: Arc<AtomicUsize>,
}

impl Wire {
    /// Listens. Connections are served for as long as the test's runtime lives.
    pub fn before(options: &PgConnectOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("eventseal-").tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("a socket");
        let round_trips = Arc::new(AtomicUsize::new(0));
        let (counter, options) = (Arc::clone(&round_trips), options.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                match options.get_socket() {
                    Some(socket) => {
                        let name = format!(".s.PGSQL.{}", options.get_port());
                        let path: PathBuf = socket.join(name);
                        let server = UnixStream::connect(path).await.expect("the server");
                        tokio::spawn(pass(client, server, counter));
                    }
                    None => {
                        let at = (options.get_host().to_owned(), options.get_port());
                        let server = TcpStream::connect(at).await.expect("the server");
                        tokio::spawn(pass(client, server, counter));
                    }
                }
            }
        });
        Self { folder, round_trips }
    }

    /// The same database, through this socket. Nothing is encrypted, whether the driver could do that or not: messages
    /// are counted.
    pub fn options(&self, direct: &PgConnectOptions) -> PgConnectOptions {
        direct.clone().socket(self.folder.path()).port(5432).ssl_mode(PgSslMode::Disable)
    }

    /// How many round trips there were since the last call.
    pub fn take(&self) -> usize {
        self.round_trips.swap(0, Ordering::SeqCst)
    }
}

async fn pass<S: AsyncRead + AsyncWrite + Send + 'static>(client: UnixStream, server: S, counter: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let answers = tokio::spawn(async move {
        let copied = tokio::io::copy(&mut from_server, &mut to_client).await;
        drop((copied, to_client.shutdown().await));
    });
    let (mut buffer, mut messages) = (vec![0; 64 * 1024], Messages::default());
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        counter.fetch_add(messages.round_trips_in(&buffer[..read]), Ordering::SeqCst);
        if to_server.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    drop(to_server.shutdown().await);
    drop(answers.await);
}

/// Reads the messages of a client, however they are cut.
#[derive(Default)]
struct Messages {
    pending: Vec<u8>,
    has_started: bool,
}

impl Messages {
    /// How many messages end here for whose answer a client waits: `Sync` and `Query`.
    fn round_trips_in(&mut self, bytes: &[u8]) -> usize {
        self.pending.extend_from_slice(bytes);
        let mut found = 0;
        loop {
            // The first message has no type.
            let kind = usize::from(self.has_started);
            let Some(length) = self.pending.get(kind..kind + 4) else { return found };
            let end = kind + u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if self.pending.len() < end {
                return found;
            }
            found += usize::from(self.has_started && matches!(self.pending[0], b'S' | b'Q'));
            self.has_started = true;
            self.pending.drain(..end);
        }
    }
}
