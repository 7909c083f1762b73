//! Stands between the program and a broker that is right, and gets every seventh delivery of the IM
//! profile wrong: what the erring broker is to plain MQTT, for what one broker alone speaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use hoopoe_codec::frame_length;

use super::erring::Error;

/// Every so many deliveries the error happens.
const EVERY: u64 = 7;
/// Set in the packet identifier of a delivery that the broker knows nothing of.
const OURS: u8 = 0x80;

/// The meddler; its threads end with the test's process.
pub(crate) struct Meddler {
    /// Where it listens.
    pub port: u16,
}

impl Meddler {
    /// Begins to listen for what is meant for the broker on this port.
    pub(crate) fn start(broker: u16, error: Error) -> Meddler {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let looks = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                between(client, server, error, &looks);
            }
        });
        Meddler { port }
    }
}

fn between(client: TcpStream, server: TcpStream, error: Error, looks: &Arc<AtomicU64>) {
    let to_server = Arc::new(Mutex::new(server.try_clone().unwrap()));
    let upwards = Arc::clone(&to_server);
    let mut from_client = client.try_clone().unwrap();
    thread::spawn(move || {
        frames(&mut from_client, |frame| {
            let settles_ours = frame[0] >> 4 == 4 && frame[2] & OURS != 0;
            settles_ours || upwards.lock().unwrap().write_all(frame).is_ok()
        });
        upwards.lock().unwrap().shutdown(Shutdown::Both).unwrap_or_default();
    });
    let mut down = Down { client, to_server, error, looks: Arc::clone(looks), held: None };
    let mut server = server;
    thread::spawn(move || {
        frames(&mut server, |frame| down.pass(frame).is_ok());
        down.client.shutdown(Shutdown::Both).unwrap_or_default();
    });
}

/// Hands every packet of a stream over, until it ends or nobody wants more.
fn frames(stream: &mut TcpStream, mut each: impl FnMut(&[u8]) -> bool) {
    let (mut buffer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let mut used = 0;
        while let Ok(Some(len)) = frame_length(&buffer[used..], 1 << 24)
            && let Some(frame) = buffer.get(used..used + len)
        {
            if !each(frame) {
                return;
            }
            used += len;
        }
        buffer.drain(..used);
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// One connection, from the broker to the client.
struct Down {
    client: TcpStream,
    to_server: Arc<Mutex<TcpStream>>,
    error: Error,
    looks: Arc<AtomicU64>,
    held: Option<Vec<u8>>,
}

impl Down {
    fn pass(&mut self, frame: &[u8]) -> std::io::Result<()> {
        let Some(id_at) = entry(frame) else { return self.client.write_all(frame) };
        if let Some(held) = self.held.take() {
            self.client.write_all(frame)?;
            return self.client.write_all(&held);
        }
        if !(self.looks.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(EVERY) {
            return self.client.write_all(frame);
        }
        let settles = frame[0] >> 1 & 3 > 0;
        match self.error {
            Error::Lose if settles => {
                // The broker believes that it has arrived.
                let puback = [0x40, 2, frame[id_at], frame[id_at + 1]];
                self.to_server.lock().unwrap().write_all(&puback)
            }
            Error::Lose => Ok(()),
            Error::Double => {
                self.client.write_all(frame)?;
                let mut copy = frame.to_vec();
                if settles {
                    copy[id_at] |= OURS;
                }
                self.client.write_all(&copy)
            }
            Error::Overtake => {
                self.held = Some(frame.to_vec());
                Ok(())
            }
            _ => self.client.write_all(frame),
        }
    }
}

/// Where the packet identifier of a delivery is, or would be; nothing for what is no entry of a
/// conversation, live or pulled.
fn entry(frame: &[u8]) -> Option<usize> {
    if frame[0] >> 4 != 3 {
        return None;
    }
    let header = 1 + frame[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let len = usize::from(u16::from_be_bytes([frame[header], frame[header + 1]]));
    let id_at = header + 2 + len;
    let topic = std::str::from_utf8(&frame[header + 2..id_at]).unwrap();
    let levels: Vec<&str> = topic.split('/').collect();
    let is_entry = match &levels[..] {
        ["im", "me", "in", ..] => true,
        ["im", "me", "res", _, "m", ..] => true,
        ["im", "r", _, "msg", lane, ..] => *lane != "like",
        _ => false,
    };
    is_entry.then_some(id_at)
}
