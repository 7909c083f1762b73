//! The TLS layer of one connection: records in, plaintext out, and back.
//!
//! Owns the TLS state and the bytes of a record (or handshake message) that has not come whole. An
//! idle connection holds no buffers. Which certificate is shown is decided by the listener's
//! [`Certificates`](super::Certificates).

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, ReadTraffic,
    UnbufferedStatus, WriteTraffic,
};

use super::certificates::{Certificates, subject_common_name};
use super::layers::{Flow, LayerFault};

/// Most bytes held for a message that has not come whole: rustls takes handshake messages up to
/// 64 KiB, which end with a record of up to 16 KiB and its overhead.
const HELD_BYTES_MAX: usize = (64 + 17) * 1024;

/// Takes decrypted bytes.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), LayerFault> + 'a;

/// TLS on one connection, the server's side.
pub(super) struct TlsLayer {
    connection: UnbufferedServerConnection,
    held: Vec<u8>,
    closed: bool,
}

impl TlsLayer {
    pub(super) fn new(certificates: &Certificates) -> Result<Self, LayerFault> {
        let connection =
            UnbufferedServerConnection::new(certificates.current()).map_err(LayerFault::Tls)?;
        Ok(TlsLayer { connection, held: Vec::new(), closed: false })
    }

    /// True once the handshake is done.
    pub(super) fn is_ready(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Common name of the client certificate's subject.
    pub(super) fn common_name(&self) -> Option<Box<str>> {
        subject_common_name(self.connection.peer_certificates()?.first()?)
    }

    /// Decrypts records, in place, into the sink; what must be sent is appended to `raw_out`, also
    /// when this fails (the alert that says why).
    pub(super) fn receive(
        &mut self,
        raw: &mut [u8],
        raw_out: &mut Vec<u8>,
        sink: &mut Sink<'_>,
    ) -> Result<Flow, LayerFault> {
        if self.held.is_empty() {
            let (used, flow) = drive(&mut self.connection, raw, raw_out, sink);
            self.hold(&raw[used..], flow)
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(raw);
            let (used, flow) = drive(&mut self.connection, &mut held, raw_out, sink);
            self.hold(&held[used..], flow)
        }
    }

    /// Keeps what belongs to a message that has not come whole.
    fn hold(&mut self, rest: &[u8], flow: Result<Flow, LayerFault>) -> Result<Flow, LayerFault> {
        if flow.as_ref().is_ok_and(|flow| *flow == Flow::Open) {
            if rest.len() > HELD_BYTES_MAX {
                return Err(LayerFault::TlsMessageTooLong);
            }
            // An exact copy: what is held here may be held for long.
            self.held = rest.to_vec();
        }
        flow
    }

    /// Encrypts bytes for the client.
    pub(super) fn send(&mut self, plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerFault> {
        if plain.is_empty() {
            return Ok(());
        }
        if self.closed {
            return Err(LayerFault::Ended);
        }
        self.write(raw_out, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Appends the close alert, once, if the handshake got far enough for one.
    pub(super) fn close(&mut self, raw_out: &mut Vec<u8>) {
        if !self.closed && self.is_ready() {
            self.closed = true;
            // Failing means that the connection can no longer encrypt: it ends without the alert.
            let _ = self.write(raw_out, |traffic, room| traffic.queue_close_notify(room));
        }
    }

    fn write(
        &mut self,
        raw_out: &mut Vec<u8>,
        mut encrypt: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), LayerFault> {
        if !self.is_ready() {
            return Err(LayerFault::NotReady);
        }
        loop {
            // The bytes held go along because the TLS state may refer to them; they were looked at
            // when they came, so nothing is read from them here.
            let UnbufferedStatus { state, .. } =
                self.connection.process_tls_records(&mut self.held);
            match state.map_err(LayerFault::Tls)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return append(raw_out, |room| {
                        encrypt(&mut traffic, room).map_err(|fault| match fault {
                            EncryptError::InsufficientSize(size) => Some(size),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                }
                ConnectionState::EncodeTlsData(data) => encode(data, raw_out)?,
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                _ => return Err(LayerFault::Ended),
            }
        }
    }
}

/// Runs the TLS state over `incoming` until it wants more. Returns how many bytes it is done with.
fn drive(
    connection: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    raw_out: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> (usize, Result<Flow, LayerFault>) {
    let mut used = 0;
    let mut flow = Flow::Open;
    loop {
        let UnbufferedStatus { discard, state } =
            connection.process_tls_records(&mut incoming[used..]);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(traffic)) => read(traffic, sink),
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, raw_out),
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                Ok(())
            }
            Ok(ConnectionState::PeerClosed) => {
                flow = Flow::Closed;
                Ok(())
            }
            // Out of bytes; early data is not among the rest, as it is never offered.
            Ok(_) => return (used + discard, Ok(flow)),
            Err(fault) => {
                write_alert(connection, raw_out);
                return (used + discard, Err(LayerFault::Tls(fault)));
            }
        };
        used += discard;
        if let Err(fault) = step {
            return (used, Err(fault));
        }
    }
}

fn read(
    mut traffic: ReadTraffic<'_, '_, ServerConnectionData>,
    sink: &mut Sink<'_>,
) -> Result<(), LayerFault> {
    while let Some(record) = traffic.next_record() {
        sink(record.map_err(LayerFault::Tls)?.payload)?;
    }
    Ok(())
}

/// Appends the alert that goes with a fault. The TLS state must not see the faulty bytes again, and
/// is left alone once the alert is out.
fn write_alert(connection: &mut UnbufferedServerConnection, raw_out: &mut Vec<u8>) {
    while connection.wants_write() {
        let Ok(ConnectionState::EncodeTlsData(data)) =
            connection.process_tls_records(&mut []).state
        else {
            return;
        };
        if encode(data, raw_out).is_err() {
            return;
        }
    }
}

fn encode(
    mut data: EncodeTlsData<'_, ServerConnectionData>,
    raw_out: &mut Vec<u8>,
) -> Result<(), LayerFault> {
    append(raw_out, |room| {
        data.encode(room).map_err(|fault| match fault {
            EncodeError::InsufficientSize(size) => Some(size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

/// Appends what `write` writes, after asking it for the room it needs.
fn append(
    raw_out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> Result<(), LayerFault> {
    let start = raw_out.len();
    let room = match write(&mut []) {
        Ok(_) => return Ok(()),
        Err(Some(InsufficientSizeError { required_size })) => required_size,
        Err(None) => return Err(LayerFault::TlsExhausted),
    };
    raw_out.resize(start + room, 0);
    let written = write(&mut raw_out[start..]);
    raw_out.truncate(start + *written.as_ref().unwrap_or(&0));
    written.map(|_| ()).map_err(|_| LayerFault::TlsExhausted)
}
