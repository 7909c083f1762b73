//! MQTT in WebSocket frames, seen from the client: an adapter between a stream of bytes and frames.
//!
//! Owns the frames that are not whole yet and those not written yet, the latter at most one write
//! beyond what the stream below takes. Frames themselves are tungstenite's matter.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::http::HeaderValue;
use tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket};

use crate::dial::AnyWire;
use crate::settings::RemoteUrl;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// What tungstenite reads from and writes to.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A WebSocket to a broker.
pub struct WebSocketStream {
    wire: AnyWire,
    frames: WebSocket<Pipe>,
    /// The rest of a frame that was read.
    rest: Bytes,
}

impl WebSocketStream {
    /// Asks the broker at the other end for a WebSocket.
    ///
    /// # Errors
    /// When it does not give one.
    pub async fn connect(mut wire: AnyWire, url: &RemoteUrl) -> io::Result<WebSocketStream> {
        // What is encrypted is so below: the request says nothing about it.
        let address = match url.host.contains(':') {
            true => format!("ws://[{}]:{}{}", url.host, url.port, url.path),
            false => format!("ws://{}:{}{}", url.host, url.port, url.path),
        };
        let mut request = address.into_client_request().map_err(io::Error::other)?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        let begun = ClientHandshake::start(Pipe::default(), request, None);
        let mut result = begun.map_err(io::Error::other)?.handshake();
        loop {
            let mut interrupted = match result {
                Ok((frames, _)) => {
                    return Ok(WebSocketStream { wire, frames, rest: Bytes::new() });
                }
                Err(HandshakeError::Interrupted(interrupted)) => interrupted,
                Err(HandshakeError::Failure(error)) => return Err(io::Error::other(error)),
            };
            let pipe = interrupted.get_mut().get_mut();
            if pipe.output.is_empty() {
                let mut chunk = [0; READ_BYTES];
                let count = wire.read(&mut chunk).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                pipe.input.extend_from_slice(&chunk[..count]);
            } else {
                wire.write_all(&pipe.output).await?;
                wire.flush().await?;
                pipe.output.clear();
            }
            result = interrupted.handshake();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = self.frames.get_mut();
        while !pipe.output.is_empty() {
            let count = ready!(Pin::new(&mut self.wire).poll_write(cx, &pipe.output))?;
            pipe.output.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl AsyncRead for WebSocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.rest.is_empty() {
                let count = self.rest.len().min(buf.remaining());
                buf.put_slice(&self.rest[..count]);
                self.rest = self.rest.slice(count..);
                return Poll::Ready(Ok(()));
            }
            match self.frames.read() {
                Ok(Message::Binary(bytes)) => self.rest = bytes,
                // A pong may wait to be sent; it goes with what is written next, or now.
                Ok(_) => {
                    let _ = self.frames.flush();
                    if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Poll::Ready(Ok(())),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut chunk = [0; READ_BYTES];
                    let mut more = ReadBuf::new(&mut chunk);
                    ready!(Pin::new(&mut self.wire).poll_read(cx, &mut more))?;
                    if more.filled().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    self.frames.get_mut().input.extend_from_slice(more.filled());
                }
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One frame waits at most.
        ready!(self.poll_drain(cx))?;
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        self.frames.write(frame).and_then(|()| self.frames.flush()).map_err(broken)?;
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The frame that says so is a courtesy; the end of the stream says it too.
        let _ = self.frames.close(None);
        let _ = self.frames.flush();
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
