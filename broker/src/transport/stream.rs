//! The bytes below the layers: a TCP socket, or in a simulation a pipe that it feeds by hand.
//!
//! Owns the descriptor. Which bytes these are, and when to read and write, is not decided here.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// One end of a connection, never blocking.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// One end of a pair within the process.
    Local(UnixStream),
    /// A pipe in memory: there is no such connection in a program that serves.
    #[cfg(feature = "simulation")]
    Pipe(Box<dyn Pipe>),
}

/// What a simulation puts in the place of a socket.
#[cfg(feature = "simulation")]
pub trait Pipe: Read + Write + Send {
    /// The worker's number for the connection: readiness is reported under it.
    fn registered(&mut self, token: Token);
    /// No more bytes will be written.
    fn shutdown_write(&mut self);
}

impl From<std::net::TcpStream> for Stream {
    fn from(stream: std::net::TcpStream) -> Stream {
        Stream::Tcp(TcpStream::from_std(stream))
    }
}

impl From<std::os::unix::net::UnixStream> for Stream {
    fn from(stream: std::os::unix::net::UnixStream) -> Stream {
        Stream::Local(UnixStream::from_std(stream))
    }
}

impl Stream {
    /// Asks to be told of readiness under `token`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => {
                registry.register(tcp, token, Interest::READABLE | Interest::WRITABLE)
            }
            Stream::Local(unix) => {
                registry.register(unix, token, Interest::READABLE | Interest::WRITABLE)
            }
            #[cfg(feature = "simulation")]
            Stream::Pipe(pipe) => {
                pipe.registered(token);
                Ok(())
            }
        }
    }

    /// Takes the registration back. That fails only for sockets the system has dropped already.
    pub fn deregister(&mut self, registry: &Registry) {
        match self {
            Stream::Tcp(tcp) => {
                let _ = registry.deregister(tcp);
            }
            Stream::Local(unix) => {
                let _ = registry.deregister(unix);
            }
            #[cfg(feature = "simulation")]
            Stream::Pipe(_) => {}
        }
    }

    /// No more bytes will be sent. The other end may be gone already: nothing to do about it then.
    pub fn shutdown_write(&mut self) {
        match self {
            Stream::Tcp(tcp) => {
                let _ = tcp.shutdown(Shutdown::Write);
            }
            Stream::Local(unix) => {
                let _ = unix.shutdown(Shutdown::Write);
            }
            #[cfg(feature = "simulation")]
            Stream::Pipe(pipe) => pipe.shutdown_write(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.read(buffer),
            Stream::Local(unix) => unix.read(buffer),
            #[cfg(feature = "simulation")]
            Stream::Pipe(pipe) => pipe.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.write(bytes),
            Stream::Local(unix) => unix.write(bytes),
            #[cfg(feature = "simulation")]
            Stream::Pipe(pipe) => pipe.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.write_vectored(slices),
            Stream::Local(unix) => unix.write_vectored(slices),
            #[cfg(feature = "simulation")]
            Stream::Pipe(pipe) => pipe.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
