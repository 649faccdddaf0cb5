//! The findings of a check, and how they are printed.

use std::fmt;
use std::io::{self, Write};

use crate::characters;
use crate::config::ConfigError;
use crate::exit::{self, Exit};
use crate::json::{Format, Object};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing is wrong.
    Good,
    /// A fact to know. Nothing has to be changed.
    Note,
    /// A look-up failed.
    Unknown,
    /// Some mail may be refused, or something is unwise.
    Warning,
    /// Mail is lost, refused or waits.
    Error,
}

impl Level {
    /// The word for the level, in text and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Whether a finding of this level is printed if only complaints are wanted.
    fn is_complaint(self) -> bool {
        !matches!(self, Self::Good | Self::Note)
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The configuration file, and the tables that it names.
    Configuration,
    /// The host: its clock, its spool, the sendmail program, the daemon.
    Host,
    /// The ports on which the configuration listens.
    Ports,
    /// The names and addresses of this host in the DNS.
    Name,
    /// A domain in the DNS.
    Domain,
    /// Certificates.
    Tls,
    /// Connections from and to the outside.
    Outside,
}

impl Topic {
    /// The word for the topic, in text and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Host => "host",
            Self::Ports => "ports",
            Self::Name => "name",
            Self::Domain => "domain",
            Self::Tls => "tls",
            Self::Outside => "outside",
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub topic: Topic,
    /// The place in a file, with the text. If there is no place, the file is empty.
    pub at: ConfigError,
    /// What to do, as a sentence without its full stop; empty if the text says it.
    pub advice: String,
    /// The DNS records to publish, as lines of a zone file.
    pub records: Vec<String>,
}

impl Finding {
    /// A finding without a place in a file.
    pub fn new(level: Level, topic: Topic, text: impl Into<String>) -> Self {
        let at = ConfigError::whole(std::path::Path::new(""), text);
        Self { level, topic, at, advice: String::new(), records: Vec::new() }
    }

    /// Adds the place in a file.
    pub fn at(mut self, place: ConfigError) -> Self {
        self.at = ConfigError { text: self.at.text, ..place };
        self
    }

    /// Adds what to do.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Adds a record to publish. A record of several lines becomes one line.
    pub fn publish(mut self, record: impl Into<String>) -> Self {
        let lines: Vec<String> = record.into().lines().map(|line| line.trim().to_owned()).collect();
        self.records.push(lines.join(" "));
        self
    }

    /// A finding from a line of the log or of an error, which may begin with a place.
    pub fn of_line(level: Level, topic: Topic, line: &str) -> Self {
        let whole = || Self::new(level, topic, line);
        let Some((file, rest)) = line.split_once(':').filter(|(file, _)| file.starts_with('/')) else { return whole() };
        let number = |text: &str| text.split_once(':').and_then(|(n, rest)| Some((n.parse().ok()?, rest.to_owned())));
        let (line_number, column, text) = match number(rest) {
            Some((line_number, rest)) => match number(&rest) {
                Some((column, text)) => (line_number, column, text),
                None => return whole(),
            },
            None => (0, 0, rest.to_owned()),
        };
        let Some(text) = text.strip_prefix(' ') else { return whole() };
        Self::new(level, topic, text).at(ConfigError::new(std::path::Path::new(file), line_number, column, ""))
    }

    /// The finding as a JSON object.
    fn object(&self) -> Object {
        let mut object = Object::new();
        object.text("level", self.level.word()).text("topic", self.topic.word()).text("text", &self.at.text);
        if !self.at.file.as_os_str().is_empty() {
            object.text("file", &self.at.file.to_string_lossy());
        }
        if self.at.line > 0 {
            object.number("line", self.at.line).number("column", self.at.column);
        }
        if !self.advice.is_empty() {
            object.text("advice", &self.advice);
        }
        if !self.records.is_empty() {
            object.texts("publish", &self.records);
        }
        object
    }
}

/// Several lines: the text, the advice, and the records.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.level.word(), self.topic.word())?;
        if self.at.file.as_os_str().is_empty() {
            f.write_str(&clean(&self.at.text))?;
        } else {
            f.write_str(&clean(&self.at.to_string()))?;
        }
        if !self.advice.is_empty() {
            write!(f, "\n    {}", clean(&self.advice))?;
        }
        for record in &self.records {
            write!(f, "\n    publish: {}", clean(record))?;
        }
        Ok(())
    }
}

/// Replaces characters that could mislead. Hosts and name servers choose a part of the text, and root reads it
/// at a terminal.
fn clean(text: &str) -> String {
    text.chars().map(characters::shown).collect()
}

/// All findings, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// Whether the configuration cannot be used.
    pub is_unusable: bool,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Prints the findings, and in text their number. With `is_quiet`, prints only complaints.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&self, format: Format, is_quiet: bool, out: &mut dyn Write) -> io::Result<()> {
        for finding in self.findings.iter().filter(|finding| !is_quiet || finding.level.is_complaint()) {
            match format {
                Format::Text => writeln!(out, "{finding}")?,
                Format::Json => writeln!(out, "{}", finding.object())?,
            }
        }
        let (errors, warnings, unknown) =
            (self.count(Level::Error), self.count(Level::Warning), self.count(Level::Unknown));
        if format == Format::Text && (!is_quiet || errors + warnings + unknown > 0) {
            writeln!(out, "-- {}, {}, {unknown} unknown", counted(errors, "error"), counted(warnings, "warning"))?;
        }
        out.flush()
    }

    /// The result of the check.
    ///
    /// # Errors
    /// `CONFIG` if the configuration cannot be used; `DATAERR` for other errors; `TEMPFAIL` if
    /// something could not be found out. There is no text, since all has been printed.
    pub fn result(&self) -> Result<(), Exit> {
        let code = match (self.count(Level::Error), self.count(Level::Unknown)) {
            _ if self.is_unusable => exit::CONFIG,
            (0, 0) => return Ok(()),
            (0, _) => exit::TEMPFAIL,
            _ => exit::DATAERR,
        };
        Err(Exit { code, text: Vec::new() })
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_text_or_json() {
        let line = "/etc/p.conf:3:7: local.domains has x";
        let place = Finding::of_line(Level::Warning, Topic::Configuration, line);
        assert_eq!(place.to_string(), format!("warning: configuration: {line}"));
        assert_eq!(
            place.object().to_string(),
            r#"{"level":"warning","topic":"configuration","text":"local.domains has x","file":"/etc/p.conf","line":3,"column":7}"#
        );
        let whole = Finding::of_line(Level::Error, Topic::Configuration, "/etc/p.conf: Permission denied");
        assert_eq!((whole.at.line, &*whole.at.text), (0, "Permission denied"));
        for line in ["no place: at all", "/etc/p: 3", "12:3: x", "/a:3:x", "", "/a:1:2:x"] {
            assert!(Finding::of_line(Level::Note, Topic::Host, line).to_string().ends_with(line), "{line}");
        }
        let record =
            Finding::new(Level::Error, Topic::Domain, "x\u{1b}[2J").advise("do it").publish("x. IN A 192.0.2.1");
        assert_eq!(record.to_string(), "error: domain: x?[2J\n    do it\n    publish: x. IN A 192.0.2.1");
        assert_eq!(
            record.object().to_string(),
            "{\"level\":\"error\",\"topic\":\"domain\",\"text\":\"x\\u001b[2J\",\"advice\":\"do it\",\
             \"publish\":[\"x. IN A 192.0.2.1\"]}"
        );
    }

    #[test]
    fn the_exit_code_tells_the_worst_finding() {
        let of = |levels: &[Level]| {
            let findings = levels.iter().map(|level| Finding::new(*level, Topic::Host, "x")).collect();
            Report { findings, is_unusable: false }
        };
        for (levels, code, last) in [
            (&[][..], None, "-- 0 errors, 0 warnings, 0 unknown\n"),
            (&[Level::Good, Level::Note, Level::Warning], None, "-- 0 errors, 1 warning, 0 unknown\n"),
            (&[Level::Unknown, Level::Warning], Some(exit::TEMPFAIL), "-- 0 errors, 1 warning, 1 unknown\n"),
            (&[Level::Unknown, Level::Error], Some(exit::DATAERR), "-- 1 error, 0 warnings, 1 unknown\n"),
        ] {
            let mut out = Vec::new();
            of(levels).print(Format::Text, false, &mut out).expect("memory");
            assert_eq!(of(levels).result().err().map(|exit| exit.code), code, "{levels:?}");
            assert!(String::from_utf8_lossy(&out).ends_with(last), "{levels:?}");
        }
        let mut out = Vec::new();
        of(&[Level::Good, Level::Note]).print(Format::Text, true, &mut out).expect("memory");
        assert!(out.is_empty());
        let unusable = Report { is_unusable: true, ..of(&[]) };
        assert_eq!(unusable.result().err().map(|exit| exit.code), Some(exit::CONFIG));
    }
}
