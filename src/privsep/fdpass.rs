//! Sends and receives bytes over a Unix socket, along with an open file (SCM_RIGHTS).
//!
//! If more than one file comes with a message, receiving fails, and all of the files are closed. A
//! received file is closed on exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sends as many of `bytes` as the socket accepts at once, with `file` along with the first byte.
/// Returns the number of bytes sent.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    retry(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL))
}

/// Receives bytes, and the file that comes with them, if any. Returns the number of bytes, which is
/// 0 at the end of the stream, and the file.
///
/// # Errors
/// `InvalidData` if several files came, or no descriptor was free for a file; otherwise the errors
/// of recvmsg(2).
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = retry(|| recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC))?;
    let mut files: Vec<OwnedFd> = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    if files.len() > 1 || got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one file"));
    }
    Ok((got.bytes, files.pop()))
}

fn retry<T>(mut run: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match run() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_file_comes_with_the_first_bytes() {
        let (mut one, two) = UnixStream::pair().expect("a pair");
        let (pipe, mut end) = io::pipe().expect("a pipe");
        assert_eq!(send(&one, b"here", Some(pipe.as_fd())).expect("sent"), 4);
        one.write_all(b"it is").expect("sent");
        let mut bytes = [0; 20];
        let (count, file) = receive(&two, &mut bytes).expect("received");
        assert_eq!(bytes.get(..count), Some(&b"here"[..]));
        end.write_all(b"x").expect("written");
        let mut byte = [0];
        File::from(file.expect("a file")).read_exact(&mut byte).expect("read");
        assert_eq!(&byte, b"x");
        let (count, file) = receive(&two, &mut bytes).expect("received");
        assert!(bytes.get(..count) == Some(&b"it is"[..]) && file.is_none());
        drop(one);
        assert!(matches!(receive(&two, &mut bytes), Ok((0, None))));
    }
}
