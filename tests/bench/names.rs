//! A name server for the hosts of a world, on 127.0.0.1, port 53, with MX and A records only.
//!
//! The mail exchanger of a domain such as `d3.test` is a host such as `mx.h3.test`, with the number
//! of the host in its name. All answers are short, and sent over UDP. The thread ends with the
//! process.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use crate::hosts;

const A: u16 = 1;
const MX: u16 = 15;
/// The length in octets of the header of a DNS message.
const HEADER: usize = 12;
/// A compressed name: a pointer to the name in the question, at octet 12.
const QUESTION: [u8; 2] = [0xc0, 12];
const NXDOMAIN: u8 = 3;

/// Starts the name server. `exchanger` returns the number of the host that takes the mail of a
/// domain, or `None` if the domain does not exist.
///
/// # Errors
/// Errors of the system.
pub fn start(exchanger: impl Fn(&str) -> Option<usize> + Send + 'static) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..length], &exchanger) {
                // A send fails only if the client has ended.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

fn answer(question: &[u8], exchanger: &dyn Fn(&str) -> Option<usize>) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while let length @ 1.. = usize::from(*question.get(at)?) {
        labels.push(String::from_utf8_lossy(question.get(at + 1..=at + length)?).to_ascii_lowercase());
        at += length + 1;
    }
    let kind = question.get(at + 1..at + 3)?.try_into().map(u16::from_be_bytes).ok()?;
    let name = labels.join(".");
    let host = name.strip_prefix("mx.h").and_then(|rest| rest.strip_suffix(".test")?.parse().ok());
    let data = match (host, exchanger(&name), kind) {
        (Some(host), _, A) => hosts::address(host).octets().to_vec(),
        (_, Some(host), MX) => exchange(host),
        (Some(_), ..) | (_, Some(_), _) => Vec::new(),
        _ => return Some(reply(question.get(..at + 5)?, NXDOMAIN, kind, &[])),
    };
    Some(reply(question.get(..at + 5)?, 0, kind, &data))
}

/// The data of an MX record that names the host with this number.
fn exchange(host: usize) -> Vec<u8> {
    let label = format!("h{host}");
    let mut data = vec![0, 10, 2];
    data.extend(b"mx");
    data.extend(u8::try_from(label.len()));
    data.extend(label.bytes());
    data.extend(b"\x04test\0");
    data
}

/// The answer to a question, with one record or, if `data` is empty, none. The additional records
/// of the question are left out.
fn reply(question: &[u8], code: u8, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2..HEADER].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    if !data.is_empty() {
        reply.extend(QUESTION);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 1, 44]);
        reply.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        reply.extend(data);
    }
    reply
}
