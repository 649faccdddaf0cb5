//! Parses the command line of sendmail(8), in all forms that programs use.
//!
//! Options may be combined (`-ti`, `-tfjon`). The value of an option is attached to it or is the
//! next argument. A few options take only an attached value (`-q30m`, `-d0.1`). Options that only
//! tune sendmail itself are accepted and ignored, and so are those that name a log or a protocol.
//! Every `-o` and `-O` is ignored, too, unless it says whether a line with a single dot ends the
//! message, or whether the message needs TLS. A letter that sendmail does not have is an error. `--` ends
//! the options.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::envelope::{MAX_ENVID, Notify, Ret};
use crate::smtp::xtext;

/// The task of the program, which its name and the options select.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// To send the message on standard input.
    #[default]
    Deliver,
    /// To speak SMTP on standard input and output.
    Session,
    /// To list the queue.
    Queue,
    /// To try deferred messages now.
    Flush,
    /// To show the destinations of addresses.
    Verify,
    /// To check the aliases file.
    Aliases,
    /// To start the daemon, in the foreground if the value is true.
    Daemon(bool),
}

/// The command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The task of the program.
    pub mode: Mode,
    /// The id of the message to try, or the domain whose mail to try; `None` for all messages.
    pub flush: Option<String>,
    /// Whether the message also goes to the recipients in its header (`-t`).
    pub from_header: bool,
    /// Whether a line with a single dot does not end the message.
    pub ignore_dots: bool,
    /// The envelope sender as it was written: empty or `<>` for the null path, `None` if no option
    /// gives it.
    pub sender: Option<String>,
    /// The sender's name for From; `None` if no option gives it.
    pub full_name: Option<String>,
    /// The path of the configuration file; `None` if no option gives it.
    pub config: Option<String>,
    /// Whether to show the SMTP dialogue with the daemon.
    pub verbose: bool,
    /// The options of MAIL and of each RCPT that ask for reports (`-R`, `-V`, `-N`).
    pub reports: Reports,
    /// Whether the message needs TLS on its way (`-O requiretls=yes`).
    pub needs_tls: bool,
    /// The recipients on the command line. Each text may be a list of addresses.
    pub recipients: Vec<String>,
}

/// The reports that the sender asks for (RFC 3461).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// When the sender gets a report (`-N`).
    pub notify: Option<Notify>,
    /// The part of the message that a report about a failure contains (`-R`).
    pub ret: Option<Ret>,
    /// The sender's name for the envelope (`-V`), in xtext.
    pub envid: Option<Box<str>>,
}

/// The letters of ignored options without a value.
const WITHOUT_VALUE: &[u8] = b"cGmnsTUx";
/// The letters of ignored options with a value.
const WITH_VALUE: &[u8] = b"ADehLMpX";

impl Options {
    /// Reads the arguments of a program called `name`.
    ///
    /// # Errors
    /// A text about the first error.
    pub fn parse<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let mut options = Self { mode: mode_of_name(name), ..Self::default() };
        let mut arguments = arguments.into_iter().map(|argument| argument.as_ref().as_bytes().to_vec());
        while let Some(argument) = arguments.next() {
            match argument.as_slice() {
                b"--" => {
                    options.recipients.extend(arguments.map(|rest| text(&rest)));
                    break;
                }
                [b'-', cluster @ ..] if !cluster.is_empty() => options.cluster(cluster, &mut arguments)?,
                recipient => options.recipients.push(text(recipient)),
            }
        }
        Ok(options)
    }

    fn cluster(&mut self, mut rest: &[u8], more: &mut impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
        while let Some((&letter, after)) = rest.split_first() {
            rest = after;
            match letter {
                b't' => self.from_header = true,
                b'i' => self.ignore_dots = true,
                b'I' => self.mode = Mode::Aliases,
                b'v' => self.verbose = true,
                _ if WITHOUT_VALUE.contains(&letter) => {}
                // The values of `-q`, `-d` and `-Q` can only be attached.
                b'q' => {
                    self.queue(&text(rest));
                    return Ok(());
                }
                b'd' | b'Q' => return Ok(()),
                _ => {
                    let value = if rest.is_empty() { more.next() } else { Some(rest.to_vec()) };
                    return self.valued(letter, value.as_deref().map(text));
                }
            }
        }
        Ok(())
    }

    fn valued(&mut self, letter: u8, value: Option<String>) -> Result<(), String> {
        let known = b"BbCFfNOoRrV".contains(&letter) || WITH_VALUE.contains(&letter);
        let shown = char::from(letter).escape_default();
        if !known {
            return Err(format!("option -{shown} is not known"));
        }
        let value = value.ok_or_else(|| format!("option -{shown} needs a value"))?;
        match letter {
            b'b' => self.mode = mode(&value)?,
            b'C' => self.config = Some(value),
            b'F' => self.full_name = Some(value),
            b'f' | b'r' => self.sender = Some(value),
            b'o' => self.ignore_dots |= value == "i",
            b'O' => self.long_option(&value)?,
            b'N' => self.reports.notify = Some(Notify::parse(&value).ok_or(BAD_NOTIFY)?),
            b'R' => self.reports.ret = Some(ret(&value).ok_or("option -R needs full or hdrs")?),
            b'V' => self.reports.envid = Some(envid(&value).ok_or(BAD_ENVID)?),
            _ => {}
        }
        Ok(())
    }

    fn long_option(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "ignoredots" => {
                self.ignore_dots = matches!(value.trim().bytes().next(), None | Some(b't' | b'T' | b'y' | b'Y' | b'1'));
            }
            "requiretls" => {
                self.needs_tls = match value.trim().to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(BAD_REQUIRETLS.to_owned()),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the value of `-q`. `-qIid` selects the message `id`, `-qRdomain` the mail for
    /// `domain`, and any other value all messages.
    fn queue(&mut self, value: &str) {
        let named = value.strip_prefix(['I', 'R']).filter(|what| !what.is_empty());
        self.flush = named.map(str::to_owned);
        if matches!(self.mode, Mode::Deliver) {
            self.mode = Mode::Flush;
        }
    }
}

const BAD_NOTIFY: &str = "option -N needs never, or a list of success, failure and delay";
const BAD_REQUIRETLS: &str = "option -O requiretls needs yes or no";
const BAD_ENVID: &str = "option -V needs a text of at most 100 characters";

fn ret(value: &str) -> Option<Ret> {
    match value.to_ascii_lowercase().as_str() {
        "full" => Some(Ret::Full),
        "hdrs" => Some(Ret::Headers),
        _ => None,
    }
}

fn envid(value: &str) -> Option<Box<str>> {
    let encoded = xtext::encode(value);
    (1..=MAX_ENVID).contains(&encoded.len()).then(|| encoded.into())
}

fn mode_of_name(name: &str) -> Mode {
    match name {
        "mailq" => Mode::Queue,
        "newaliases" => Mode::Aliases,
        _ => Mode::Deliver,
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    Ok(match value {
        "m" | "a" => Mode::Deliver,
        "s" => Mode::Session,
        "p" => Mode::Queue,
        "v" => Mode::Verify,
        "i" => Mode::Aliases,
        "d" => Mode::Daemon(false),
        "D" => Mode::Daemon(true),
        _ => return Err(format!("option -b has no mode {}", value.escape_debug())),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let mut words = line.split(' ').map(|word| word.replace("''", ""));
        let name = words.next().unwrap_or_default();
        Options::parse(&name, words)
    }

    #[test]
    fn options_are_read_in_all_their_forms() {
        let plain = Options::default;
        let to = |recipients: &[&str]| recipients.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
        let jon = || Some("jon".to_owned());
        for (line, want) in [
            ("sendmail jon mary", Options { recipients: to(&["jon", "mary"]), ..plain() }),
            ("sendmail -t -i", Options { from_header: true, ignore_dots: true, ..plain() }),
            ("sendmail -ti", Options { from_header: true, ignore_dots: true, ..plain() }),
            (
                "sendmail -i -FCronDaemon -B8BITMIME -oem jon",
                Options {
                    ignore_dots: true,
                    full_name: Some("CronDaemon".into()),
                    recipients: to(&["jon"]),
                    ..plain()
                },
            ),
            (
                "sendmail -oi -oem -odi -f jon -- -x",
                Options { ignore_dots: true, sender: jon(), recipients: to(&["-x"]), ..plain() },
            ),
            ("sendmail -tfjon", Options { from_header: true, sender: jon(), ..plain() }),
            ("sendmail -r jon", Options { sender: jon(), ..plain() }),
            ("sendmail -f ''", Options { sender: Some(String::new()), ..plain() }),
            ("sendmail -o i -O DeliveryMode=b", Options { ignore_dots: true, ..plain() }),
            ("sendmail -OIgnoreDots=true", Options { ignore_dots: true, ..plain() }),
            ("sendmail -O requiretls=yes", Options { needs_tls: true, ..plain() }),
            ("sendmail -ORequireTLS=yes -O requiretls=no", plain()),
            (
                "sendmail -L tag -p SMTP -X log -h 3 -Ac -G -n -U -m -d0.1 jon",
                Options { recipients: to(&["jon"]), ..plain() },
            ),
            (
                "sendmail -N success,failure -Rhdrs -V a+b jon",
                Options {
                    reports: Reports {
                        notify: Notify::parse("SUCCESS,FAILURE"),
                        ret: Some(Ret::Headers),
                        envid: Some("a+2Bb".into()),
                    },
                    recipients: to(&["jon"]),
                    ..plain()
                },
            ),
            (
                "sendmail -Nnever -R FULL jon",
                Options {
                    reports: Reports { notify: Notify::parse("NEVER"), ret: Some(Ret::Full), envid: None },
                    recipients: to(&["jon"]),
                    ..plain()
                },
            ),
            ("sendmail -v -bm jon", Options { verbose: true, recipients: to(&["jon"]), ..plain() }),
            ("sendmail -bs", Options { mode: Mode::Session, ..plain() }),
            ("sendmail -b p", Options { mode: Mode::Queue, ..plain() }),
            ("mailq -v", Options { mode: Mode::Queue, verbose: true, ..plain() }),
            ("newaliases", Options { mode: Mode::Aliases, ..plain() }),
            ("sendmail -I", Options { mode: Mode::Aliases, ..plain() }),
            ("sendmail -bd -q30m", Options { mode: Mode::Daemon(false), ..plain() }),
            ("sendmail -q30m -bd", Options { mode: Mode::Daemon(false), ..plain() }),
            ("sendmail -q", Options { mode: Mode::Flush, ..plain() }),
            ("sendmail -qRa.test", Options { mode: Mode::Flush, flush: Some("a.test".into()), ..plain() }),
            ("sendmail -", Options { recipients: to(&["-"]), ..plain() }),
        ] {
            assert_eq!(parse(line), Ok(want), "{line}");
        }
        for (line, why) in [
            ("sendmail -f", "option -f needs a value"),
            ("sendmail -bz", "option -b has no mode z"),
            ("sendmail -k", "option -k is not known"),
            ("sendmail -N success,never", BAD_NOTIFY),
            ("sendmail -R all", "option -R needs full or hdrs"),
            ("sendmail -V ''", BAD_ENVID),
            ("sendmail -O requiretls", BAD_REQUIRETLS),
            ("sendmail -O requiretls=maybe", BAD_REQUIRETLS),
            ("sendmail -V", "option -V needs a value"),
            ("sendmail --help", "option -- is not known"),
        ] {
            assert_eq!(parse(line), Err(why.to_owned()), "{line}");
        }
    }
}
