//! What is left of a request's body once it is answered, as when a refusal needs none of it.
//!
//! hyper ends a connection on which something is left, and the answer does not say so: a client
//! that keeps connections fails with its next request, and with what it still sends it may lose the
//! answer itself (RFC 9112, sections 9.3 and 9.6). So what is left is read and thrown away up to a
//! bound; beyond that the answer says that the connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use parking_lot::Mutex;

/// Bytes that are read for the sake of the connection, and for how long.
pub(super) const MOST_BYTES: usize = 256 * 1024;
const MOST_TIME: Duration = Duration::from_secs(2);

/// A request's body, for who answers it and for who reads what that leaves.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

impl Shared {
    /// Whether the end came within the bounds.
    async fn read_rest(mut self) -> bool {
        let mut bytes = 0;
        while !self.is_end_stream() {
            let frame = poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await;
            match frame {
                None => return true,
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return false,
            }
            if bytes > MOST_BYTES {
                return false;
            }
        }
        true
    }
}

/// Answers, and leaves nothing of the request.
pub(super) async fn read_rest(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = Shared(Arc::new(Mutex::new(body)));
    let mut response = next.run(Request::from_parts(head, Body::new(body.clone()))).await;
    let read = tokio::time::timeout(MOST_TIME, body.read_rest()).await;
    if read != Ok(true) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
