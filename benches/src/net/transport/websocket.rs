//! The client's side of WebSocket (RFC 6455): the request, masked binary frames out, frames in. MQTT
//! packets and frames need not fall together.

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::WebSocketAt;
use crate::stamp::mix;

/// The longest answer to the request.
const MAX_RESPONSE: usize = 16 * 1024;
/// The longest frame taken from a server.
const MAX_FRAME: u64 = 64 << 20;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// One WebSocket.
pub(super) struct WebSocket {
    /// The accept key awaited in the answer; none once it has come.
    awaited: Option<String>,
    /// The head of a response or frame whose end has not come.
    partial: Vec<u8>,
    masks: u64,
}

impl WebSocket {
    /// Writes the request.
    pub(super) fn request(at: &WebSocketAt, out: &mut Vec<u8>) -> WebSocket {
        let key = generate_key();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n",
            at.path, at.host
        );
        out.extend_from_slice(request.as_bytes());
        let masks = key.bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)));
        let awaited = Some(derive_accept_key(key.as_bytes()));
        WebSocket { awaited, partial: Vec::new(), masks }
    }

    /// The server has agreed.
    pub(super) fn is_open(&self) -> bool {
        self.awaited.is_none()
    }

    /// Appends one binary frame.
    pub(super) fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.put(BINARY, payload, out);
    }

    /// A client masks every frame, with a key that the payload's author cannot foresee.
    fn put(&mut self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
        self.masks = mix(self.masks);
        let mask = (self.masks as u32).to_le_bytes();
        out.push(0x80 | opcode);
        match payload.len() {
            len @ ..126 => out.push(0x80 | len as u8),
            len if len <= usize::from(u16::MAX) => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }

    /// Takes bytes from the server; returns what the frames carry. Answers go to `out`.
    pub(super) fn unframe(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Vec<u8>, String> {
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let mut rest = &joined[..];
        if self.awaited.is_some() {
            let Some(end) = rest.windows(4).position(|w| w == b"\r\n\r\n") else {
                if rest.len() > MAX_RESPONSE {
                    return Err("WebSocket: the answer is no HTTP response".to_owned());
                }
                self.partial = joined;
                return Ok(Vec::new());
            };
            self.check_response(&rest[..end])?;
            rest = &rest[end + 4..];
        }
        let mut plain = Vec::new();
        while let Some((opcode, payload, len)) = cut_frame(rest)? {
            match opcode {
                CONTINUATION | BINARY => plain.extend_from_slice(payload),
                PING => self.put(PONG, payload, out),
                PONG => {}
                CLOSE => return Err("WebSocket: closed by the broker".to_owned()),
                other => return Err(format!("WebSocket: opcode {other} from the broker")),
            }
            rest = &rest[len..];
        }
        self.partial = rest.to_vec();
        Ok(plain)
    }

    fn check_response(&mut self, head: &[u8]) -> Result<(), String> {
        let head = String::from_utf8_lossy(head);
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(format!("WebSocket: the broker answered {status:?}"));
        }
        let accept = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim())
        });
        if accept != self.awaited.as_deref() {
            return Err("WebSocket: Sec-WebSocket-Accept does not fit".to_owned());
        }
        self.awaited = None;
        Ok(())
    }
}

/// Opcode, payload and whole length of a frame.
type Frame<'a> = (u8, &'a [u8], usize);

/// The frame at the beginning; none when its end has not come.
fn cut_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err("WebSocket: a masked frame from the broker".to_owned());
    }
    let (extra, len) = match (second & 0x7F, rest) {
        (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b]))),
        (126, _) => return Ok(None),
        (127, _) => match rest.first_chunk::<8>() {
            Some(len) => (8, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        (len, _) => (0, u64::from(len)),
    };
    if len > MAX_FRAME {
        return Err(format!("WebSocket: a frame of {len} bytes"));
    }
    let end = extra + len as usize;
    Ok(rest.get(extra..end).map(|payload| (first & 0x0F, payload, 2 + end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> WebSocket {
        let at = WebSocketAt { host: "h".to_owned(), path: "/mqtt".to_owned() };
        let mut request = Vec::new();
        let mut ws = WebSocket::request(&at, &mut request);
        assert!(request.starts_with(b"GET /mqtt HTTP/1.1\r\n"));
        let accept = ws.awaited.clone().unwrap();
        let response = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {accept}\r\n\r\n");
        let mut out = Vec::new();
        let (a, b) = response.as_bytes().split_at(30);
        assert_eq!(ws.unframe(a, &mut out), Ok(Vec::new()));
        assert!(!ws.is_open());
        assert_eq!(ws.unframe(b, &mut out), Ok(Vec::new()));
        assert!(ws.is_open());
        ws
    }

    #[test]
    fn frames_may_fall_apart_anywhere() {
        let mut server = vec![0x02, 3, b'a', b'b', b'c', 0x80, 1, b'd', 0x82, 126, 1, 0];
        server.extend_from_slice(&[b'x'; 256]);
        let mut whole = b"abcd".to_vec();
        whole.extend_from_slice(&[b'x'; 256]);
        for cut in 0..server.len() {
            let (mut ws, mut out) = (open(), Vec::new());
            let mut plain = ws.unframe(&server[..cut], &mut out).unwrap();
            plain.extend(ws.unframe(&server[cut..], &mut out).unwrap());
            assert_eq!(plain, whole, "{cut}");
        }
    }

    #[test]
    fn frames_out_are_masked_and_of_every_length() {
        for len in [0usize, 1, 125, 126, 65_535, 65_536] {
            let (mut ws, mut out) = (open(), Vec::new());
            let payload = vec![7u8; len];
            ws.frame(&payload, &mut out);
            let head = out.len() - len - 4;
            assert_eq!(head, [2, 4, 10][usize::from(len > 125) + usize::from(len > 65_535)]);
            assert_eq!(out[0], 0x82);
            assert!(out[1] & 0x80 != 0);
            let mask = out[head..head + 4].to_vec();
            let plain: Vec<u8> =
                out[head + 4..].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            assert_eq!(plain, payload);
        }
    }

    #[test]
    fn pings_are_answered_and_bad_frames_refused() {
        let (mut ws, mut out) = (open(), Vec::new());
        assert_eq!(ws.unframe(&[0x89, 1, b'p'], &mut out), Ok(Vec::new()));
        assert_eq!((out[0], out[1]), (0x8A, 0x81));
        for bad in [
            &[0x88, 0][..],
            &[0x82, 0x81, 1, 2, 3, 4, 5],
            &[0x81, 0],
            &[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(open().unframe(bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }
}
