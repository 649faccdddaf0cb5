//! The form of a line of the log, which depends on its destination and on `log.format`.

use std::io::{self, Write};

use ::log::{Level, Record};

use super::journal;
use super::line::Line;
use super::local_time;
use super::value::Clean;
use crate::json::{Format, Object};

/// What a destination needs beside the text of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    Bare,
    /// The time, the name of the program and the process id.
    Dated,
    /// The same, and the priority (RFC 3164), which every syslogd reads.
    Syslog,
    /// The fields of a journal entry.
    Journal,
}

impl Form {
    /// Writes a record as one line or, for the journal, as one entry.
    pub(super) fn write(
        self,
        out: &mut dyn Write,
        record: &Record<'_>,
        format: Format,
        program: &str,
    ) -> io::Result<()> {
        let (text, pid) = (record.args().to_string(), std::process::id());
        let has_fields = format == Format::Json || self == Self::Journal;
        let event = if has_fields && is_event(record) { Line::parse(&text) } else { None };
        let shown = match format {
            Format::Text => Clean(&text).to_string(),
            Format::Json => json(record.level(), &text, event.as_ref(), program).to_string(),
        };
        match self {
            Self::Bare => writeln!(out, "{shown}"),
            Self::Dated if format == Format::Json => writeln!(out, "{shown}"),
            Self::Dated => {
                let time = local_time().strftime("%Y-%m-%dT%H:%M:%S%:z");
                writeln!(out, "{time} {program}[{pid}]: {shown}")
            }
            Self::Syslog => {
                // 2 is the facility "mail".
                let priority = 2 * 8 + severity(record.level());
                let time = local_time().strftime("%b %e %H:%M:%S");
                writeln!(out, "<{priority}>{time} {program}[{pid}]: {shown}")
            }
            Self::Journal => out.write_all(&journal::entry(&shown, severity(record.level()), event.as_ref(), program)),
        }
    }
}

/// Whether a record is the line of an event.
fn is_event(record: &Record<'_>) -> bool {
    record.module_path() == Some(super::emit::MODULE)
}

/// A line as a JSON object.
fn json(level: Level, text: &str, event: Option<&Line<'_>>, program: &str) -> Object {
    let mut object = Object::new();
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    object.text("time", &local_time().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string());
    object.text("level", level).text("program", program).number("pid", std::process::id());
    match event {
        Some(line) => line.write_to(&mut object),
        None => _ = object.text("message", text),
    }
    object
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, format: Format, module: &str, text: &str) -> String {
        let mut out = Vec::new();
        let mut record = Record::builder();
        let written = form.write(
            &mut out,
            &record.level(Level::Warn).module_path(Some(module)).args(format_args!("{text}")).build(),
            format,
            "penfoldd",
        );
        written.expect("written");
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn an_event_has_fields_and_other_text_is_one_message() {
        let module = super::super::emit::MODULE;
        let line = "1K sent to=<a@b> reply=\"x\\ny\" code=250";
        assert_eq!(written(Form::Bare, Format::Text, module, line), format!("{line}\n"));
        let json = written(Form::Dated, Format::Json, module, line);
        let end = r#","id":"1K","event":"sent","to":"<a@b>","reply":"x\ny","code":250}"#;
        assert!(json.starts_with("{\"time\":\"20") && json.ends_with(&format!("{end}\n")), "{json}");
        for (module, text) in [("penfold::daemon", line), (module, "no event at all: x")] {
            let json = written(Form::Bare, Format::Json, module, text);
            assert!(json.contains("\"level\":\"warning\"") && json.contains(",\"message\":\""), "{json}");
        }
        let syslog = written(Form::Syslog, Format::Json, module, line);
        assert!(
            syslog.starts_with("<20>") && syslog.contains(" penfoldd[") && syslog.contains("]: {\"time\":"),
            "{syslog}"
        );
        let entry = written(Form::Journal, Format::Text, module, line);
        let fields = "PRIORITY=4\nSYSLOG_IDENTIFIER=penfoldd\nSYSLOG_FACILITY=2\nPENFOLD_ID=1K\nPENFOLD_EVENT=sent\n\
                      PENFOLD_TO=<a@b>\nPENFOLD_REPLY\n\u{3}\0\0\0\0\0\0\0x\ny\nPENFOLD_CODE=250\n";
        assert_eq!(entry, format!("MESSAGE={line}\n{fields}"));
        let entry = written(Form::Journal, Format::Text, "penfold::daemon", "a\nb");
        assert_eq!(entry, "MESSAGE=a\\nb\nPRIORITY=4\nSYSLOG_IDENTIFIER=penfoldd\nSYSLOG_FACILITY=2\n");
    }
}
