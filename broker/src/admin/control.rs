//! The control socket: how a program on the same machine asks the running broker for what cannot
//! be read from its folder.
//!
//! A Unix socket in the data folder that only the broker's own user can open: who may ask is who
//! may read the data, so there is no password. One request is known, `backup`: the answer names a
//! folder with a snapshot of the store, which is there until the asking end closes. State owned
//! here: that folder. Copying it is the asker's work (`commands/backup.rs`), with the asker's
//! rights.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hoopoe_store::Store;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};

/// The socket's name in the data folder.
const SOCKET: &str = "control";
/// The snapshot's name in the data folder: a link to a table lasts only on the same disk.
const SNAPSHOT: &str = "snapshot";
/// What asks for a snapshot.
pub const BACKUP: &str = "backup";
/// Connections open at once; more wait.
const CONNECTIONS_MAX: usize = 8;
/// Connections that may wait for one of these.
const BACKLOG: i32 = 16;
/// Bytes of a request at most.
const REQUEST_BYTES_MAX: u64 = 64;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system failed to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A socket's address holds 107 bytes; longer paths are reached through their folder.
const PATH_BYTES_MAX: usize = 100;

/// The folder for snapshots in a data folder.
pub fn snapshot_folder(data: &Path) -> PathBuf {
    data.join(SNAPSHOT)
}

/// Connects to the broker that runs on a data folder.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` when none does; others when it cannot be asked.
pub fn connect(data: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    with_address(data, |address| std::os::unix::net::UnixStream::connect(address))
}

/// A path to the socket that an address can hold.
fn with_address<T>(data: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = data.join(SOCKET);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return act(&path);
    }
    let folder = fs::File::open(data)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
}

/// Opens the socket. The caller has the store of the folder open, so what is left there from an
/// earlier broker is nobody's.
///
/// # Errors
/// When the folder's file system takes no sockets.
pub fn open(data: &Path) -> io::Result<StdListener> {
    let leftover = snapshot_folder(data);
    if leftover.exists() {
        fs::remove_dir_all(leftover)?;
    }
    with_address(data, |path| {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Between binding and listening nobody can connect.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    })
}

/// Removes the socket of a broker that ends.
pub fn close(data: &Path) {
    // A socket that is left there is removed by the next start.
    let _ = fs::remove_file(data.join(SOCKET));
}

/// Answers on the socket until the task is aborted. Call it on the control runtime.
///
/// # Errors
/// When the runtime cannot take the socket.
pub async fn answer(listener: StdListener, store: Store, data: PathBuf) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let desk = Arc::new(Desk { store, data, snapshot: Mutex::new(()) });
    loop {
        // The semaphore is never closed, so there is always a place in the end.
        let place = places.clone().acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = desk.converse(stream).await {
                        tracing::debug!(%error, "a connection to the control socket has ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What requests are answered from.
struct Desk {
    store: Store,
    data: PathBuf,
    /// Held by whom the snapshot was made for.
    snapshot: Mutex<()>,
}

impl Desk {
    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = stream.split();
        let mut reading = BufReader::new(reading.take(REQUEST_BYTES_MAX));
        let mut request = String::new();
        tokio::time::timeout(REQUEST_TIMEOUT, reading.read_line(&mut request)).await??;
        if request.trim() != BACKUP {
            return writing.write_all(b"error this broker does not know that request\n").await;
        }
        let Ok(_held) = self.snapshot.try_lock() else {
            return writing.write_all(b"error another backup is being made\n").await;
        };
        let folder = snapshot_folder(&self.data);
        let lent = match self.make_snapshot(folder.clone()).await {
            Ok(()) => {
                tracing::info!(folder = %folder.display(), "a backup is being made");
                let answer = format!("ok {} {}\n", self.store.shards(), folder.display());
                let sent = writing.write_all(answer.as_bytes()).await;
                // The snapshot is there for as long as the other end reads it.
                let ended = reading.into_inner().into_inner().read(&mut [0]).await;
                tracing::info!("the backup has ended");
                sent.and(ended.map(drop))
            }
            Err(error) => {
                tracing::error!(%error, "no snapshot for a backup");
                writing.write_all(format!("error {error}\n").as_bytes()).await
            }
        };
        let removed = tokio::task::spawn_blocking(move || remove(&folder)).await;
        lent.and(removed.map_err(io::Error::other)?)
    }

    async fn make_snapshot(&self, folder: PathBuf) -> io::Result<()> {
        let store = self.store.clone();
        let made = tokio::task::spawn_blocking(move || {
            remove(&folder)?;
            fs::create_dir(&folder)?;
            store.checkpoint(&folder).map_err(io::Error::other)
        });
        made.await.map_err(io::Error::other)?
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
