//! The clients of a soak: honest ones, dishonest ones, sessions under inetd, and users of the
//! control socket.
//!
//! Each client is a thread with a [`Chance`] of its own, and repeats random actions until the end.
//! It records every letter that it offers, with the reply. If the daemon is absent or ends, that is
//! no error. The ledger decides whether the replies were right.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{ADDRESSES, Fate, NULL, Offered};
use common::books::{Letter, SENDER};
use common::chance::Chance;
use common::dialog::Wire;
use common::mounts::Mounts;

/// What all clients of a soak share.
pub struct World {
    /// The namespace with the system users; `None` if all mailboxes are the server's.
    pub homes: Option<Arc<Mounts>>,
    /// The address on which the daemon listens while it runs.
    pub address: SocketAddr,
    /// The path of a configuration file that the soak never changes.
    pub steady: PathBuf,
    /// The path of the daemon's control socket.
    pub socket: PathBuf,
    /// All letters that were offered.
    pub offered: Mutex<Vec<Offered>>,
    /// When the stretch, one round of the soak, ends.
    pub end: Instant,
}

/// A kind of misbehaviour. The text is the token of the letter that it offers.
type Mischief = fn(&World, &mut Chance, &str) -> std::io::Result<()>;

const MISCHIEF: [Mischief; 9] = [
    garbage,
    bare_newlines,
    endless_line,
    too_many_recipients,
    too_big,
    vanish,
    leave_without_listening,
    close_half,
    stall,
];

impl World {
    fn note(&self, token: &str, to: &[&'static str], fate: Fate) {
        let offered = Offered { token: token.to_owned(), to: to.to_vec(), fate };
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).push(offered);
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect_timeout(&self.address, Duration::from_secs(5))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Chooses the token and the recipients of the next letter.
fn letter(chance: &mut Chance, name: &str, number: usize) -> (String, Vec<&'static str>) {
    let kind = ["", "", "odd-", "long-"][chance.of(0..40).min(3)];
    let count = if chance.percent(60) { 1 } else { chance.of(1..6) };
    let mut to: Vec<&'static str> = (0..count).map(|_| chance.pick(&ADDRESSES).0).collect();
    to.sort_unstable();
    to.dedup();
    (format!("{kind}{name}-{number}{}", if chance.percent(10) { NULL } else { "" }), to)
}

/// Plays a well-behaved client: letter after letter, in one session or several, command by command,
/// or pipelined in arbitrary pieces.
pub fn honest(world: &World, mut chance: Chance, name: &str) {
    let mut number = 0;
    while !world.is_over() {
        let letters: Vec<_> = (0..chance.of(1..5)).map(|n| letter(&mut chance, name, number + n)).collect();
        number += letters.len();
        // If there is no connection, no letter was offered, and nothing is recorded.
        if let Ok(stream) = world.connect() {
            converse(world, &mut chance, stream, &letters);
        }
        chance.pause(5..120);
    }
}

/// Sends several letters in a session. Each is recorded after its final dot.
fn converse(world: &World, chance: &mut Chance, stream: TcpStream, letters: &[(String, Vec<&'static str>)]) {
    let mut wire = Wire::new(stream, false);
    if !hears(&mut wire, "220") || !says(&mut wire, b"EHLO client.test\r\n") || !hears(&mut wire, "250") {
        return;
    }
    for (token, to) in letters {
        let sender = if token.ends_with(NULL) { "" } else { SENDER };
        if !begin(&mut wire, chance, sender, to) {
            return;
        }
        let text = Letter::new(token).stuffed();
        let last = text.len() - 1;
        let is_said = chance.pieces(&text.as_bytes()[..last], 5).into_iter().all(|piece| says(&mut wire, piece));
        if !is_said {
            return;
        }
        // With the last octet the daemon may accept the letter, so a lost connection leaves the
        // fate open.
        let fate = if says(&mut wire, &text.as_bytes()[last..]) { verdict(&mut wire) } else { Fate::Unheard };
        let goes_on = matches!(fate, Fate::Taken(_));
        world.note(token, to, fate);
        if !goes_on {
            return;
        }
    }
    if says(&mut wire, b"QUIT\r\n") {
        hears(&mut wire, "221");
    }
}

/// Begins a transaction, up to the 354. Returns false if a reply is another one; then the session
/// is over.
fn begin(wire: &mut Wire, chance: &mut Chance, sender: &str, to: &[&str]) -> bool {
    let mut commands = vec![format!("MAIL FROM:<{sender}> BODY=8BITMIME\r\n")];
    commands.extend(to.iter().map(|address| format!("RCPT TO:<{address}>\r\n")));
    commands.push("DATA\r\n".to_owned());
    let expected = |at: usize| if at + 1 == to.len() + 2 { "354" } else { "250" };
    if chance.percent(50) {
        return commands.iter().enumerate().all(|(at, c)| says(wire, c.as_bytes()) && hears(wire, expected(at)));
    }
    let all = commands.concat();
    chance.pieces(all.as_bytes(), 6).into_iter().all(|piece| says(wire, piece))
        && (0..commands.len()).all(|at| hears(wire, expected(at)))
}

fn says(wire: &mut Wire, bytes: &[u8]) -> bool {
    wire.send(bytes).is_ok()
}

/// Whether the next reply begins with this code.
fn hears(wire: &mut Wire, code: &str) -> bool {
    loop {
        match wire.read_line() {
            Ok(Some(line)) if line.as_bytes().get(3) == Some(&b'-') => {}
            Ok(Some(line)) => return line.starts_with(code),
            Ok(None) | Err(_) => return false,
        }
    }
}

fn verdict(wire: &mut Wire) -> Fate {
    match wire.read_line() {
        Ok(Some(line)) if line.starts_with("250 ") => Fate::Taken(line),
        Ok(Some(_)) => Fate::Refused,
        Ok(None) | Err(_) => Fate::Unheard,
    }
}

/// Plays a client that misbehaves in one way after another.
pub fn dishonest(world: &World, mut chance: Chance, name: &str) {
    for number in 0.. {
        if world.is_over() {
            return;
        }
        let mischief = chance.pick(&MISCHIEF);
        // Errors do not count: the daemon may have disconnected the client, or be absent.
        let _ = mischief(world, &mut chance, &format!("{name}-{number}"));
        chance.pause(5..150);
    }
}

fn garbage(world: &World, chance: &mut Chance, _: &str) -> std::io::Result<()> {
    let mut stream = world.connect()?;
    for _ in 0..chance.of(1..4) {
        stream.write_all(&chance.octets(1..9000))?;
    }
    Ok(())
}

/// Sends bare newlines in commands, and then in a message, which the daemon must reject.
fn bare_newlines(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = ["jon@razorback"];
    world.note(token, &to, Fate::Refused);
    let mut wire = Wire::new(world.connect()?, false);
    wire.send(b"HELO x\n\nNOOP\n\rHELO x\r\nHELO client.test\r\n")?;
    if (0..6).any(|_| hears(&mut wire, "250")) && begin(&mut wire, chance, SENDER, &to) {
        let text = Letter::new(token).stuffed();
        let front = text.strip_suffix(".\r\n").unwrap_or_default();
        let commands = format!("MAIL FROM:<{SENDER}>\r\nRCPT TO:<{}>\r\nDATA\r\n", to[0]);
        wire.send(format!("{front}\n.\n{commands}{text}").as_bytes())?;
        hears(&mut wire, "554");
    }
    Ok(())
}

fn endless_line(world: &World, chance: &mut Chance, _: &str) -> std::io::Result<()> {
    let mut stream = world.connect()?;
    (0..chance.of(1..30)).try_for_each(|_| stream.write_all(&[b'x'; 5000]))
}

/// Gives more recipients than allowed. All have the same address, so one copy must arrive.
fn too_many_recipients(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = [chance.pick(&ADDRESSES).0];
    let mut wire = Wire::new(world.connect()?, false);
    let recipients = format!("RCPT TO:<{}>\r\n", to[0]).repeat(110);
    wire.send(format!("HELO client.test\r\nMAIL FROM:<{SENDER}>\r\n{recipients}DATA\r\n").as_bytes())?;
    let taken = ["220", "250", "250"].into_iter().all(|code| hears(&mut wire, code))
        && (0..100).all(|_| hears(&mut wire, "250"))
        && (0..10).all(|_| hears(&mut wire, "452"))
        && hears(&mut wire, "354");
    if taken {
        let sent = wire.send(Letter::new(token).stuffed().as_bytes());
        let fate = if sent.is_ok() { verdict(&mut wire) } else { Fate::Unheard };
        world.note(token, &to, fate);
    }
    Ok(())
}

fn too_big(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = ["jon@razorback"];
    world.note(token, &to, Fate::Refused);
    let mut wire = Wire::new(world.connect()?, false);
    wire.send(b"HELO client.test\r\n")?;
    if hears(&mut wire, "220") && hears(&mut wire, "250") && begin(&mut wire, chance, SENDER, &to) {
        let line = format!("{}\r\n", "big ".repeat(200));
        (0..500).try_for_each(|_| wire.send(line.as_bytes()))?;
        wire.send(Letter::new(token).stuffed().as_bytes())?;
        hears(&mut wire, "552");
    }
    Ok(())
}

/// Disconnects at any stage before the end of the letter, which must then be delivered nowhere.
fn vanish(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = [chance.pick(&ADDRESSES).0];
    world.note(token, &to, Fate::Refused);
    let mut wire = Wire::new(world.connect()?, false);
    let text = Letter::new(token).stuffed();
    let all = format!("HELO client.test\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{}>\r\nDATA\r\n{text}", to[0]);
    // The client stops just before the last octet in one of three cases, and anywhere before it
    // otherwise.
    let cut = if chance.percent(33) { all.len() - 1 } else { chance.of(0..all.len()) };
    for piece in chance.pieces(&all.as_bytes()[..cut], 4) {
        wire.send(piece)?;
        chance.pause(0..20);
    }
    if chance.percent(70) { wire.end(chance.percent(50)) } else { Ok(()) }
}

/// Disconnects after the end of the letter, without reading the reply.
fn leave_without_listening(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = [chance.pick(&ADDRESSES).0];
    let mut wire = Wire::new(world.connect()?, false);
    let text = Letter::new(token).stuffed();
    world.note(token, &to, Fate::Unheard);
    wire.send(b"HELO client.test\r\n")?;
    if hears(&mut wire, "220") && hears(&mut wire, "250") && begin(&mut wire, chance, SENDER, &to) {
        wire.send(text.as_bytes())?;
        chance.pause(0..20);
        wire.end(chance.percent(50))?;
    }
    Ok(())
}

/// Sends a whole session in one write, closes the sending direction, and then reads the replies.
fn close_half(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = [chance.pick(&ADDRESSES).0];
    let stream = world.connect()?;
    let half = stream.try_clone()?;
    let mut wire = Wire::new(stream, false);
    let text = Letter::new(token).stuffed();
    let sent = wire.send(
        format!("HELO client.test\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{}>\r\nDATA\r\n{text}QUIT\r\n", to[0]).as_bytes(),
    );
    let _ = half.shutdown(Shutdown::Write);
    let is_begun = ["220", "250", "250", "250", "354"].into_iter().all(|code| hears(&mut wire, code));
    world.note(token, &to, if is_begun && sent.is_ok() { verdict(&mut wire) } else { Fate::Unheard });
    Ok(())
}

/// Stops sending in the middle of a command, or of a letter, until the session times out.
fn stall(world: &World, chance: &mut Chance, token: &str) -> std::io::Result<()> {
    let to = ["jon@razorback"];
    world.note(token, &to, Fate::Refused);
    let mut wire = Wire::new(world.connect()?, false);
    wire.send(b"HELO client.test\r\n")?;
    if hears(&mut wire, "220") && hears(&mut wire, "250") && chance.percent(50) && begin(&mut wire, chance, SENDER, &to)
    {
        wire.send(Letter::new(token).stuffed().trim_end_matches("\r\n").as_bytes())?;
    } else {
        wire.send(b"NOO")?;
    }
    while let Ok(Some(_)) = wire.read_line() {}
    Ok(())
}

/// Runs sessions of `penfoldd -i` one after the other, beside a daemon or without one, and kills
/// some. The error names an exit code that is neither 0 nor 75.
pub fn of_inetd(world: &World, mut chance: Chance, name: &str) -> Result<(), String> {
    for number in 0.. {
        if world.is_over() {
            break;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).map_err(|e| e.to_string())?;
        let theirs = OwnedFd::from(listener.accept().map_err(|e| e.to_string())?.0);
        let output = theirs.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldd"));
        command.arg("-f").arg(&world.steady).arg("-i");
        command = world.homes.as_ref().map(|homes| homes.inside(&command)).unwrap_or(command);
        command.stdin(theirs).stdout(output).stderr(Stdio::null());
        let mut program = command.spawn().map_err(|e| e.to_string())?;
        // `command` has a copy of the other end of the connection, which would keep the connection
        // open.
        drop(command);
        let is_killed = chance.percent(20);
        let letters: Vec<_> = (0..chance.of(1..3)).map(|n| letter(&mut chance, name, 10 * number + n)).collect();
        converse(world, &mut chance, ours, &letters);
        if is_killed {
            chance.pause(0..50);
            let _ = program.kill();
        }
        let code = program.wait().map_err(|e| e.to_string())?.code();
        // penfoldd may end with 0 or 75. There is no code if it was killed.
        if !matches!(code, None | Some(0) | Some(75)) {
            return Err(format!("penfoldd -i ended with {code:?}"));
        }
        chance.pause(100..700);
    }
    Ok(())
}

/// Sends requests to the control socket: the queue, a flush, a malformed one, or none. The error
/// names an exit code that penfoldctl must never have.
pub fn of_control(world: &World, mut chance: Chance) -> Result<(), String> {
    let mut silent = Vec::new();
    while !world.is_over() {
        match chance.of(0..4) {
            0 | 1 => {
                let requests: [&[&str]; 4] = [&["queue"], &["flush"], &["flush", "one.test"], &["flush", "void"]];
                let mut command = Command::new(env!("CARGO_BIN_EXE_penfoldctl"));
                command.arg("-f").arg(&world.steady).args(*chance.pick(&requests)).stdout(Stdio::null());
                let code = command.stderr(Stdio::null()).status().map_err(|e| e.to_string())?.code();
                if !matches!(code, Some(0 | 69 | 74 | 75)) {
                    return Err(format!("penfoldctl ended with {code:?}"));
                }
            }
            kind => {
                if let Ok(mut stream) = UnixStream::connect(&world.socket) {
                    let _ = if kind == 2 {
                        stream.write_all(&chance.octets(1..3000))
                    } else {
                        stream.write_all(b"wake 1K0TX73XAGTWX75HJY2,S=1\nfl")
                    };
                    silent.push(stream);
                    silent.drain(..silent.len().saturating_sub(chance.of(1..20)));
                }
            }
        }
        chance.pause(20..400);
    }
    Ok(())
}
