//! The form of a file in the drop directory.
//!
//! ```text
//! penfold-drop/1 58 cron
//! MAIL FROM:<jon> BODY=8BITMIME
//! RCPT TO:<root>
//!
//! From: Jon Postel <jon>
//! ...
//! ```
//!
//! The first line has the size of the message in octets, and the name of the program that has sent
//! it, or `-`. The lines up to the empty one are the commands that sendmail(8) would have given over
//! the control socket. The message follows, with lines that end in LF. A file is read as the text of
//! a stranger, once, from its beginning to its end.

use std::fmt::Write;
use std::io::{self, BufRead, BufReader, Read};

use crate::smtp::MAX_COMMAND_LINE;

/// The first word of a file.
const VERSION: &str = "penfold-drop/1";
/// The longest first line, in octets.
const MAX_FIRST: usize = 128;
/// The maximum number of commands: one MAIL, and a RCPT for each recipient.
const MAX_COMMANDS: usize = 1 + crate::smtp::MAX_FINAL_RECIPIENTS;

/// Returns the part of a file before the message.
pub fn head(size: u64, program: &str, commands: impl Iterator<Item = String>) -> String {
    let is_plain = |c: &char| c.is_ascii_graphic();
    let program: String = program.chars().map(|c| if is_plain(&c) { c } else { '?' }).take(32).collect();
    let program = if program.is_empty() { "-" } else { &program };
    let mut text = format!("{VERSION} {size} {program}\n");
    for command in commands {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{command}");
    }
    text.push('\n');
    text
}

/// A file that is being read.
#[derive(Debug)]
pub struct DropFile<R> {
    reader: BufReader<R>,
    /// The size of the message in octets, as the file says.
    pub size: u64,
    /// The name of the program that has sent the message; empty if it is not known. The program
    /// itself has given the name.
    pub program: String,
    commands: usize,
}

impl<R: Read> DropFile<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` if the file has another form.
    pub fn begin(file: R) -> io::Result<Self> {
        let mut reader = BufReader::new(file);
        let first = line(&mut reader, MAX_FIRST)?;
        let words: Vec<&str> = first.split(' ').collect();
        let [VERSION, size, program] = words.as_slice() else { return Err(malformed("it has no valid first line")) };
        let is_number = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        let size = size.parse().ok().filter(|_| is_number).ok_or_else(|| malformed("it has no valid size"))?;
        let program = if *program == "-" { String::new() } else { (*program).to_owned() };
        Ok(Self { reader, size, program, commands: 0 })
    }

    /// Reads the next command: MAIL first, then RCPT for each recipient, then `None`.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` for any other line.
    pub fn command(&mut self) -> io::Result<Option<String>> {
        let command = line(&mut self.reader, MAX_COMMAND_LINE - 2)?;
        if command.is_empty() && self.commands > 1 {
            return Ok(None);
        }
        let verb = if self.commands == 0 { "MAIL FROM:<" } else { "RCPT TO:<" };
        if !command.starts_with(verb) || command.chars().any(char::is_control) || self.commands >= MAX_COMMANDS {
            return Err(malformed("it has an invalid command"));
        }
        self.commands += 1;
        Ok(Some(command))
    }

    /// Reads a part of the message; at its end, the part is empty.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` if the message is shorter or longer than the file says.
    pub fn content(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            match self.reader.read(into) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.size = self.size.checked_sub(count as u64).ok_or_else(|| malformed("its message is too long"))?;
        if count == 0 && self.size > 0 { Err(malformed("its message is cut short")) } else { Ok(count) }
    }
}

/// Reads a line of at most `max` octets, without its LF.
fn line(reader: &mut impl BufRead, max: usize) -> io::Result<String> {
    let mut line = Vec::new();
    reader.take(max as u64 + 1).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => String::from_utf8(line).map_err(|_| malformed("it is not in UTF-8")),
        _ => Err(malformed("it has a line without an end")),
    }
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file to its end. Returns its program, commands and message, or the error.
    fn read(text: &[u8]) -> Result<(String, Vec<String>, Vec<u8>), String> {
        let all = || {
            let mut file = DropFile::begin(text)?;
            let (mut commands, mut content, mut part) = (Vec::new(), Vec::new(), [0; 3]);
            while let Some(command) = file.command()? {
                commands.push(command);
            }
            loop {
                match file.content(&mut part)? {
                    0 => return Ok((file.program, commands, content)),
                    count => content.extend_from_slice(&part[..count]),
                }
            }
        };
        all().map_err(|e: io::Error| e.to_string())
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let commands = ["MAIL FROM:<j@x> BODY=8BITMIME", "RCPT TO:<a>", "RCPT TO:<b@x> NOTIFY=NEVER"];
        let commands: Vec<String> = commands.map(str::to_owned).to_vec();
        for (program, shown, content) in
            [("cron", "cron", "a\n.\n\nb\n"), ("", "", ""), ("a b\nc", "a?b?c", "\n"), ("-", "", "x")]
        {
            let mut text = head(content.len() as u64, program, commands.iter().cloned()).into_bytes();
            text.extend_from_slice(content.as_bytes());
            assert_eq!(read(&text), Ok((shown.to_owned(), commands.clone(), content.as_bytes().to_vec())));
        }
    }

    #[test]
    fn any_other_file_is_refused() {
        let good = "penfold-drop/1 2 sh\nMAIL FROM:<>\nRCPT TO:<a>\n\nx\n";
        assert!(read(good.as_bytes()).is_ok());
        let long = format!("RCPT TO:<{}>\n", "a".repeat(MAX_COMMAND_LINE));
        for (from, to, why) in [
            ("drop/1", "drop/2", "first line"),
            (" sh", "", "first line"),
            ("/1 2", "/1 +2", "size"),
            ("/1 2", "/1 99999999999999999999", "size"),
            (" 2 ", " 3 ", "cut short"),
            (" 2 ", " 1 ", "too long"),
            ("MAIL FROM:<>\n", "", "command"),
            ("RCPT TO:<a>\n", "", "command"),
            ("RCPT TO:<a>\n", "QUIT\n", "command"),
            ("RCPT TO:<a>\n", "RCPT TO:<a>\nMAIL FROM:<>\n", "command"),
            ("RCPT TO:<a>\n", "RCPT TO:<a>\rQUIT\n", "command"),
            ("RCPT TO:<a>\n", long.as_str(), "without an end"),
            ("\n\nx\n", "\n", "without an end"),
        ] {
            let text = good.replace(from, to);
            assert!(
                read(text.as_bytes()).is_err_and(|error| error.contains(why)),
                "{text}: {:?}",
                read(text.as_bytes())
            );
        }
        assert!(read(&[good.as_bytes(), &[0xff]].concat()).is_err());
        assert!(read(b"").is_err() && read(&[b'\n'; 9]).is_err() && read(b"penfold-drop/1 0 \xff\n").is_err());
    }
}
