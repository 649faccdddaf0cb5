//! The next hop of the benchmark: accepts every message, stores none, and counts recipients.
//!
//! Each connection has a thread, which ends with the connection; the accepting thread ends when the
//! sink is dropped. No command is checked.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A server on 127.0.0.1.
pub struct Sink {
    /// The address on which the server listens.
    pub address: SocketAddr,
    taken: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Sink {
    /// Starts a server.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (taken, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stop) = (Arc::clone(&taken), Arc::clone(&closed));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let count = Arc::clone(&count);
                // The load notices a failed connection by itself.
                thread::spawn(move || drop(serve(&stream, &count)));
            }
        });
        Ok(Self { address, taken, closed })
    }

    /// The number of recipients of all acknowledged messages.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // A connection wakes the accepting thread, which then sees that it is to end.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: &TcpStream, taken: &AtomicUsize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::with_capacity(64 << 10, stream), BufWriter::new(stream));
    let (mut line, mut recipients) = (Vec::new(), 0);
    writer.write_all(b"220 sink.test ESMTP\r\n")?;
    loop {
        // If more commands have arrived already, their replies are sent together with this one.
        if reader.buffer().is_empty() {
            writer.flush()?;
        }
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let reply: &[u8] = match line.get(..4).unwrap_or_default() {
            b"EHLO" => b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
            b"RCPT" => {
                recipients += 1;
                b"250 2.1.5 OK\r\n"
            }
            b"DATA" => {
                writer.write_all(b"354 go on\r\n")?;
                writer.flush()?;
                while line != b".\r\n" {
                    line.clear();
                    if reader.read_until(b'\n', &mut line)? == 0 {
                        return Ok(());
                    }
                }
                taken.fetch_add(std::mem::take(&mut recipients), Ordering::Relaxed);
                b"250 2.0.0 taken\r\n"
            }
            b"QUIT" => {
                writer.write_all(b"221 2.0.0 bye\r\n")?;
                return writer.flush();
            }
            _ => b"250 2.0.0 OK\r\n",
        };
        writer.write_all(reply)?;
    }
}
