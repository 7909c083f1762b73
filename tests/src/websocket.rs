//! MQTT over WebSocket as a byte stream, with the frames under the test's control.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tungstenite::client::{ClientRequestBuilder, client};
use tungstenite::{Error, Message, WebSocket};

use crate::DEADLINE;
use crate::client::Link;

/// A WebSocket connection; each write is one binary message, reads run over message boundaries.
pub struct WebSocketLink {
    socket: WebSocket<TcpStream>,
    unread: Vec<u8>,
}

/// Opens a WebSocket at `path`, offering `subprotocols`; returns the one the server chose.
pub fn open(
    address: SocketAddr,
    path: &str,
    subprotocols: &[&str],
) -> Result<(WebSocketLink, Option<String>), String> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let uri = format!("ws://{address}{path}").parse().expect("a valid address");
    let mut request = ClientRequestBuilder::new(uri);
    for subprotocol in subprotocols {
        request = request.with_sub_protocol(*subprotocol);
    }
    let (socket, response) = client(request, stream).map_err(|error| error.to_string())?;
    let chosen = response.headers().get("sec-websocket-protocol");
    let chosen = chosen.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok((WebSocketLink { socket, unread: Vec::new() }, chosen))
}

impl WebSocketLink {
    /// Sends any WebSocket message, also one MQTT forbids.
    pub fn send_message(&mut self, message: Message) {
        // A connection the broker has closed is noticed by the next read.
        let _ = self.socket.send(message);
    }

    /// Reads until the server closes; panics when it sends anything but its closing.
    pub fn expect_closed(&mut self) {
        let mut byte = [0];
        match self.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("the broker should have closed, got bytes"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("the broker did not close within {DEADLINE:?}")
            }
            Err(_) => {}
        }
    }
}

impl Read for WebSocketLink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.unread.extend_from_slice(&bytes),
                Ok(Message::Text(text)) => panic!("a text frame from the broker: {text}"),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                    return Ok(0);
                }
                Err(Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Ok(count)
    }
}

impl Write for WebSocketLink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.socket.send(Message::Binary(buffer.to_vec().into())) {
            Ok(()) => Ok(buffer.len()),
            Err(Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::new(ErrorKind::BrokenPipe, error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for WebSocketLink {
    fn cut(&mut self) {
        // The other side may have closed already.
        let _ = self.socket.get_ref().shutdown(Shutdown::Both);
    }

    fn set_deadline(&mut self, deadline: Duration) {
        let stream = self.socket.get_ref();
        stream.set_read_timeout(Some(deadline)).expect("a read timeout can be set");
    }
}
