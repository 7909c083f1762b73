//! The HTTP connections: accepted one by one, each with bounds on time and size.
//!
//! axum's own server has no such bounds, hence the short loop here. The pages read no request body;
//! what `/v1` reads is bounded there, and what nobody reads in `unread`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::routes::routes;
use super::{AdminState, Api};

/// Connections open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// Bytes of a request's line and headers.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a request's head may take to arrive; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a response may stay unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long responses may take to get out once the listener closes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after the system failed to accept, as when it has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers HTTP on `listener` until `shutdown` is ready, then lets what is being answered end.
/// Call it on the control runtime.
///
/// # Errors
/// When the runtime cannot take the listener.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    api: Option<Arc<Api>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = routes(state, api.as_ref());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = connections.join_next() => {}
            (stream, peer, place) = accept(&listener, &places) => {
                let routes = routes.clone().layer(Extension(ConnectInfo(peer)));
                connections.spawn(converse(stream, routes, stopped.clone(), place));
            }
        }
    }
    drop(listener);
    drop(stop);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Those that need longer are cut off when the set is dropped.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, ended).await;
    Ok(())
}

async fn accept(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a place in the end.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "http listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first request to its last. The sender of `stopped` says nothing: it
/// is dropped when the listener closes.
async fn converse(
    stream: TcpStream,
    routes: Router,
    mut stopped: watch::Receiver<()>,
    _place: Option<OwnedSemaphorePermit>,
) {
    bound_unread(&stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "http connection ended");
    }
}

/// Has the system end the connection of a peer that does not read its response.
fn bound_unread(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)) {
        tracing::debug!(%error, "http connection without user timeout");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNREAD_TIMEOUT);
}
