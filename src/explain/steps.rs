//! The steps of an explanation, as text and as JSON.

use std::fmt::Write;

use crate::config::Places;
use crate::json::{Format, Object};
use crate::policy::{Line, Reason, Source, Verdict};
use crate::reply::Reply;

/// The maximum number of steps; further ones are only counted.
const MAX_STEPS: usize = 1000;

/// The part of the way of a message that a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The outcome of the whole explanation.
    Result,
    /// The connection, up to the banner.
    Connect,
    /// HELO, EHLO or LHLO.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// The text of the message.
    Message,
    /// Where an accepted message goes.
    Way,
    /// A message in the queue.
    Queue,
}

/// What a step does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the step states a fact.
    Fact,
    /// A rule was applied, and does not refuse.
    Passed,
    /// A rule was not applied, because something is not known.
    Skipped,
    /// The message is accepted, and gets a mark.
    Marked,
    /// The message is refused for good.
    Refused,
    /// The message is refused for now, or waits.
    Deferred,
    /// The client gets a reply.
    Reply,
    /// The client sends a command.
    Command,
}

/// A step of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// The effect.
    pub effect: Effect,
    /// The name of the rule in the log; empty for none.
    pub rule: &'static str,
    /// What happens, in words.
    pub text: String,
    /// The key, the line of a table or the standard behind the step.
    pub source: Option<Source>,
    /// The line of the configuration with the key, if it has the key.
    pub place: Option<Line>,
}

/// The steps of an explanation.
#[derive(Debug, Default)]
pub struct Steps {
    list: Vec<Step>,
    omitted: usize,
    /// The places where the message goes, and whether each is down.
    goals: Vec<(String, bool)>,
}

impl Stage {
    /// The name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Connect => "connect",
            Self::Hello => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Message => "message",
            Self::Way => "route",
            Self::Queue => "queue",
        }
    }

    /// The line above the steps of the stage; empty if a command stands there.
    fn heading(self) -> &'static str {
        match self {
            Self::Connect => "Connection",
            Self::Message => "The message",
            Self::Way => "Where mail goes",
            Self::Queue => "In the queue",
            Self::Result | Self::Hello | Self::Mail | Self::Rcpt => "",
        }
    }
}

impl Effect {
    /// The name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::Passed => "pass",
            Self::Skipped => "skip",
            Self::Marked => "mark",
            Self::Refused => "refuse",
            Self::Deferred => "defer",
            Self::Reply => "reply",
            Self::Command => "command",
        }
    }

    /// The word at the front of the line.
    fn word(self) -> &'static str {
        match self {
            Self::Fact => "    ",
            Self::Passed => "ok  ",
            Self::Skipped => "skip",
            Self::Marked => "mark",
            Self::Refused => "NO  ",
            Self::Deferred => "WAIT",
            Self::Reply => ">",
            Self::Command => "",
        }
    }
}

impl Steps {
    /// Adds a step.
    pub fn add(&mut self, stage: Stage, effect: Effect, text: impl Into<String>) {
        self.add_by(stage, effect, "", text, None);
    }

    /// Adds a step with the key or the line that decides it.
    pub fn add_by(
        &mut self,
        stage: Stage,
        effect: Effect,
        rule: &'static str,
        text: impl Into<String>,
        source: Option<Source>,
    ) {
        if self.list.len() >= MAX_STEPS {
            self.omitted += 1;
            return;
        }
        self.list.push(Step { stage, effect, rule, text: text.into(), source, place: None });
    }

    /// Adds a command of the client.
    pub fn command(&mut self, stage: Stage, text: impl Into<String>) {
        self.add(stage, Effect::Command, text);
    }

    /// Adds a reply to the client.
    pub fn reply(&mut self, stage: Stage, reply: &Reply) {
        self.add(stage, Effect::Reply, reply.to_string());
    }

    /// Adds the refusal and the reply of a verdict. Returns whether the verdict accepts.
    pub fn judge(&mut self, stage: Stage, verdict: Verdict) -> bool {
        let (reply, reason, effect) = match verdict {
            Verdict::Accept => return true,
            Verdict::Refuse(reply, reason) => (reply, reason, Effect::Refused),
            Verdict::Defer(reply, reason) => (reply, reason, Effect::Deferred),
        };
        let Reason { rule, source } = reason;
        let verb = if effect == Effect::Refused { "refused" } else { "deferred" };
        self.add_by(stage, effect, rule, format!("{verb} by the rule {rule}"), Some(source));
        self.reply(stage, &reply);
        false
    }

    /// The outcome of the steps: the first refusal, or acceptance. A problem of the way counts only
    /// if the session refuses nothing.
    pub(super) fn outcome(&self) -> Step {
        let stop = self.list.iter().find(|step| matches!(step.effect, Effect::Refused | Effect::Deferred));
        let after = |stop: &Step| {
            let at = self.list.iter().position(|step| step == stop).unwrap_or_default();
            self.list.get(at + 1).filter(|step| step.effect == Effect::Reply).map(|step| step.text.clone())
        };
        let Some(stop) = stop else {
            let goes = match self.goals.as_slice() {
                [] => String::new(),
                [(goal, false)] => format!("; goes to {goal}"),
                [(goal, true)] => format!("; waits, because {goal} is down"),
                goals => match goals.iter().filter(|(_, is_down)| *is_down).count() {
                    0 => format!("; goes to {} recipients", goals.len()),
                    down => format!("; goes to {} recipients, {down} of them at a host that is down", goals.len()),
                },
            };
            let marks = self.list.iter().filter(|step| step.effect == Effect::Marked);
            let marks: String = marks.map(|mark| format!("; {}", mark.text)).collect();
            let text = format!("accepted{marks}{goes}");
            return Step { stage: Stage::Result, effect: Effect::Passed, rule: "", text, source: None, place: None };
        };
        let is_refused = stop.effect == Effect::Refused;
        let text = match after(stop) {
            Some(reply) => {
                let verb = if is_refused { "refused" } else { "deferred" };
                format!("{verb} at {}: {reply}", stop.stage.name().to_ascii_uppercase())
            }
            None if stop.stage == Stage::Connect => stop.text.clone(),
            None if is_refused => format!("accepted, but cannot be delivered: {}", stop.text),
            None => format!("accepted, but waits: {}", stop.text),
        };
        Step { stage: Stage::Result, text, ..stop.clone() }
    }

    /// Adds a place where the message goes, and whether it is down, for the outcome.
    pub(super) fn goal(&mut self, goal: String, is_down: bool) {
        self.goals.push((goal, is_down));
    }

    /// Puts a step before all others.
    pub(super) fn conclude(&mut self, step: Step) {
        self.list.insert(0, Step { stage: Stage::Result, ..step });
    }

    /// Adds the lines of the keys in the configuration.
    pub(super) fn locate(&mut self, places: &Places) {
        for step in &mut self.list {
            let Some(Source::Key(key)) = &step.source else { continue };
            step.place = places.of_key(key).map(|(number, _)| Line { file: places.file().into(), number });
        }
    }

    /// The explanation as lines.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut last = Stage::Result;
        for step in &self.list {
            if step.stage != last && step.effect != Effect::Command {
                let _ = writeln!(out, "\n{}", step.stage.heading());
            }
            let is_new = step.stage != last;
            last = step.stage;
            let text = step.text.replace('\n', "\n       ");
            let place = step.place.as_ref().map(|line| format!(", {line}")).unwrap_or_default();
            let source = step.source.as_ref().map(source_text);
            let source = source.map(|source| format!("  [{source}{place}]")).unwrap_or_default();
            let _ = match step.effect {
                _ if step.stage == Stage::Result => writeln!(out, "{text}{source}"),
                Effect::Command => writeln!(out, "{}{text}", if is_new { "\n" } else { "" }),
                Effect::Reply => writeln!(out, "  > {text}"),
                effect => writeln!(out, "  {} {text}{source}", effect.word()),
            };
        }
        if self.omitted > 0 {
            let _ = writeln!(out, "  and {} more", self.omitted);
        }
        out
    }

    fn json(&self) -> String {
        let line = |step: &Step| {
            let mut object = Object::new();
            object.text("stage", step.stage.name()).text("effect", step.effect.name());
            object.some_text("rule", Some(step.rule).filter(|rule| !rule.is_empty())).text("text", &step.text);
            let line = match &step.source {
                Some(Source::Line(line)) => Some(line),
                _ => step.place.as_ref(),
            };
            match &step.source {
                Some(Source::Key(key)) => _ = object.text("key", key),
                Some(Source::Standard(standard)) => _ = object.text("standard", standard),
                Some(Source::Line(_) | Source::Failure) | None => {}
            }
            if let Some(line) = line {
                object.text("file", &line.file.display().to_string()).number("line", line.number);
            }
            format!("{object}\n")
        };
        self.list.iter().map(line).collect()
    }
}

/// The source of a rule in words.
fn source_text(source: &Source) -> String {
    match source {
        Source::Key(key) => (*key).to_owned(),
        Source::Line(line) => line.to_string(),
        Source::Standard(standard) => (*standard).to_owned(),
        Source::Failure => "this server failed".to_owned(),
    }
}
