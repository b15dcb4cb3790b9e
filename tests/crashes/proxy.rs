//! A proxy before PostgreSQL that counts what a client asks for, and stops at one of its requests.

use crate::{Kill, Point};
use sqlx::postgres::{PgConnectOptions, PgPool};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// Passes on what a client and the server say, until a point is reached.
pub(crate) struct Proxy {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) requests: AtomicUsize,
    /// The numbers of the requests that commit a transaction.
    pub(crate) commits: Mutex<Vec<usize>>,
    pub(crate) stop: Option<(Point, Kill)>,
    pub(crate) reached: Notify,
}

impl Proxy {
    pub(crate) async fn start(db: &Postgres, stop: Option<(Point, Kill)>) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (requests, commits) = (AtomicUsize::new(0), Mutex::default());
        let proxy = Arc::new(Self { folder, requests, commits, stop, reached: Notify::new() });
        let (serving, options, admin) = (Arc::clone(&proxy), db.options.clone(), db.pool.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serving.serve(client, &options, &admin).await;
            }
        });
        proxy
    }

    pub(crate) fn options(&self, db: &Postgres) -> PgConnectOptions {
        through(self.folder.path(), &db.options)
    }

    /// One connection: its requests one at a time, each with its answer.
    async fn serve(&self, mut client: UnixStream, options: &PgConnectOptions, admin: &PgPool) -> Option<()> {
        let mut server: Box<dyn Stream> = match options.get_socket() {
            Some(folder) => {
                Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{}", options.get_port()))).await.ok()?)
            }
            None => Box::new(tokio::net::TcpStream::connect((options.get_host(), options.get_port())).await.ok()?),
        };
        // The startup message has no type. Its answer ends as all answers do; the backend's process id is in it.
        let startup = body(&mut client).await?;
        server.write_all(&startup).await.ok()?;
        let answer = answer(&mut server).await?;
        let pid = answer
            .iter()
            .find(|message| message[0] == b'K')
            .map(|message| i32::from_be_bytes(message[5..9].try_into().unwrap()));
        client.write_all(&answer.concat()).await.ok()?;
        loop {
            let mut request = Vec::new();
            loop {
                let kind = client.read_u8().await.ok()?;
                let message = body(&mut client).await?;
                request.push(kind);
                request.extend(message);
                if kind == b'X' {
                    return None;
                }
                if matches!(kind, b'S' | b'Q') {
                    break;
                }
            }
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            if request[0] == b'Q' && request[5..].starts_with(b"COMMIT") {
                self.commits.lock().unwrap().push(number);
            }
            let stop = self.stop.filter(|(point, _)| point.request == number);
            if stop.is_none_or(|(point, _)| point.done) {
                server.write_all(&request).await.ok()?;
                let answer = self::answer(&mut server).await?;
                if stop.is_none() {
                    client.write_all(&answer.concat()).await.ok()?;
                    continue;
                }
            }
            self.reached.notify_one();
            match stop?.1 {
                Kill::Cut => {}
                Kill::Terminate => {
                    sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(admin).await.unwrap();
                    // The client is told, if the server still can.
                    let mut rest = Vec::new();
                    drop(server.read_to_end(&mut rest).await);
                    drop(client.write_all(&rest).await);
                }
                // The end of the process closes the connection.
                Kill::Process => drop(client.read_u8().await),
            }
            return None;
        }
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// A message without its type, length included.
async fn body(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    stream.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// Messages up to the one that says that the server is ready for the next request.
async fn answer(server: &mut Box<dyn Stream>) -> Option<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    loop {
        let kind = server.read_u8().await.ok()?;
        let mut message = vec![kind];
        message.extend(body(server).await?);
        messages.push(message);
        if kind == b'Z' {
            return Some(messages);
        }
    }
}

pub(crate) fn through(folder: &Path, options: &PgConnectOptions) -> PgConnectOptions {
    let database = options.get_database().unwrap();
    let options = options.clone().socket(folder).port(5432).database(database);
    options.ssl_mode(sqlx::postgres::PgSslMode::Disable)
}
