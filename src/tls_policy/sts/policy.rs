//! Reads the policy of a domain (RFC 8461 3.2), and decides whether the policy admits a host.

use std::collections::HashSet;
use std::time::Duration;

use super::record::is_name;
use crate::address::parse_domain;

/// The maximum size of a policy, in bytes.
pub const MAX_SIZE: usize = 64 << 10;
/// The maximum number of mail exchangers in a policy. Usual policies have fewer than ten; this and
/// [`MAX_NAMES`] keep strangers from displacing the policies of others with a few of their own.
const MAX_MX: usize = 100;
/// The maximum size of the names of all mail exchangers in a policy together, in bytes.
const MAX_NAMES: usize = 4096;
/// The maximum lifetime of a policy: 366 days. A longer one is shortened.
const MAX_AGE: Duration = Duration::from_secs(31_557_600);
/// The minimum lifetime: a policy that ends at once would be fetched for each message.
const MIN_AGE: Duration = Duration::from_secs(300);

/// What a policy demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes only to hosts that the policy names, and only with TLS and a valid certificate.
    Enforce,
    /// Nothing is demanded, but failures are reported.
    Testing,
    /// The domain has no policy any more.
    None,
}

/// The policy of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsPolicy {
    /// The id in the domain's record when the policy was fetched.
    pub id: Box<str>,
    /// What the policy demands.
    pub mode: Mode,
    /// The names of the domain's mail exchangers, in lower case. `*.` stands for one label.
    pub mx: Vec<Box<str>>,
    /// The time for which the policy is valid.
    pub max_age: Duration,
    /// The time at which the policy was fetched, in seconds since 1970.
    pub fetched: u64,
}

impl Mode {
    /// The word in the policy.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    /// The mode with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.word() == word)
    }
}

impl StsPolicy {
    /// Reads a policy that was fetched at the time `fetched`. Lines end in LF or CRLF. Unknown fields
    /// are ignored. If a field other than `mx` occurs more than once, the first one counts. A mail
    /// exchanger that is named again is ignored.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &[u8], id: &str, fetched: u64) -> Result<Self, String> {
        let policy = Self::read(text, id, fetched)?;
        let size: usize = policy.mx.iter().map(|name| name.len()).sum();
        if size > MAX_NAMES {
            return Err(format!("the names of its mail exchangers have {size} bytes; at most {MAX_NAMES} are allowed"));
        }
        Ok(policy)
    }

    /// Reads a policy that this server has kept. One that was accepted stays in force, also if its
    /// names have become too long for [`StsPolicy::parse`].
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn read(text: &[u8], id: &str, fetched: u64) -> Result<Self, String> {
        if text.len() > MAX_SIZE {
            return Err(format!("it is longer than {MAX_SIZE} bytes"));
        }
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let (mut mode, mut max_age, mut mx, mut seen) = (None, None, Vec::new(), HashSet::new());
        for (at, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let wrong = |what: &str| format!("line {}: {what}", at + 1);
            let field = line.split_once(':').filter(|(name, _)| is_name(name.as_bytes()));
            let (name, value) = field.ok_or_else(|| wrong("expected `name: value`"))?;
            let value = value.trim_start_matches([' ', '\t']);
            if name == "mx" {
                let name = pattern(value).ok_or_else(|| wrong("expected the name of a mail exchanger"))?;
                if !mx.contains(&name) {
                    mx.push(name);
                }
                if mx.len() > MAX_MX {
                    return Err(format!("it names more than {MAX_MX} mail exchangers"));
                }
            } else if matches!(name, "version" | "mode" | "max_age") && seen.insert(name) {
                match name {
                    "version" if value == "STSv1" => {}
                    "version" => return Err(wrong("the version is not STSv1")),
                    "mode" => mode = Some(Mode::parse(value).ok_or_else(|| wrong("unknown mode"))?),
                    _ => max_age = Some(seconds(value).ok_or_else(|| wrong("max_age is not a number of seconds"))?),
                }
            } else if value.chars().any(char::is_control) {
                return Err(wrong("control characters"));
            }
        }
        let lacks = |what: &str| format!("it has no {what}");
        if !seen.contains("version") {
            return Err(lacks("version"));
        }
        let mode = mode.ok_or_else(|| lacks("mode"))?;
        let max_age = max_age.ok_or_else(|| lacks("max_age"))?;
        if mx.is_empty() && mode != Mode::None {
            return Err(lacks("mx"));
        }
        Ok(Self { id: id.into(), mode, mx, max_age, fetched })
    }

    /// Whether the policy names the mail exchanger `host`.
    pub fn admits(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(domain) => parent == Some(domain),
            None => **pattern == *host,
        })
    }

    /// Whether the policy is in force. If the clock was set back, a policy may come from the future;
    /// it is in force for its lifetime all the same.
    pub fn is_valid(&self, now: u64) -> bool {
        now < self.end() && now.abs_diff(self.fetched) <= self.max_age.as_secs()
    }

    /// The time at which the policy ends, in seconds since 1970.
    pub fn end(&self) -> u64 {
        self.fetched.saturating_add(self.max_age.as_secs())
    }

    /// The approximate size of the policy in memory, in bytes.
    pub fn size(&self) -> usize {
        self.id.len() + self.mx.iter().map(|mx| mx.len() + size_of::<Box<str>>()).sum::<usize>() + size_of::<Self>()
    }
}

/// Returns a name, which may begin with `*.`, in lower case.
fn pattern(value: &str) -> Option<Box<str>> {
    let name = value.strip_prefix("*.").unwrap_or(value);
    let is_host = value.is_ascii() && !name.ends_with('.') && !name.starts_with('[');
    is_host.then(|| parse_domain(name).ok()).flatten().map(|_| value.to_ascii_lowercase().into())
}

/// Returns a lifetime within its bounds.
fn seconds(value: &str) -> Option<Duration> {
    let is_number = (1..=10).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| value.parse().ok()).flatten().map(|seconds| Duration::from_secs(seconds).clamp(MIN_AGE, MAX_AGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StsPolicy, String> {
        StsPolicy::parse(text.as_bytes(), "1", 1000)
    }

    #[test]
    fn a_policy_is_read() {
        let text = "version: STSv1\nmode: enforce\nmx: MX1.example.org\nmx: *.example.net\nmax_age: 604800\n";
        let policy = parse(text).expect("good");
        let mx = vec!["mx1.example.org".into(), "*.example.net".into()];
        let want =
            StsPolicy { id: "1".into(), mode: Mode::Enforce, mx, max_age: Duration::from_secs(604_800), fetched: 1000 };
        assert_eq!(policy, want);
        assert_eq!(policy.end(), 605_800);
        for other in [
            text.replace('\n', "\r\n"),
            text.replace('\n', " \t\r\n"),
            text.replace(": ", ":"),
            text.replace(": ", ":\t "),
            text.trim_end().to_owned(),
            text.to_owned() + "\n\n",
            text.to_owned() + "mode: none\nversion: STSv2\nmax_age: x\n",
            text.to_owned() + "x-new_field.1: any text, \u{fc} too: yes\nempty:\n",
            "max_age: 604800\n".to_owned() + text,
        ] {
            assert_eq!(parse(&other).as_ref(), Ok(&want), "{other:?}");
        }
    }

    #[test]
    fn the_number_of_mail_exchangers_has_a_bound() {
        let text = |count: usize| {
            let names: String = (0..count).map(|n| format!("mx: mx{n}.test\n")).collect();
            format!("version: STSv1\nmode: enforce\nmax_age: 86400\n{names}")
        };
        assert_eq!(parse(&text(MAX_MX)).map(|policy| policy.mx.len()), Ok(MAX_MX));
        let failure = parse(&text(MAX_MX + 1)).expect_err("too many");
        assert!(failure.contains("more than 100"), "{failure}");
        // The same names again do not count.
        let again = text(MAX_MX) + &"mx: MX1.test\n".repeat(1000);
        assert_eq!(parse(&again).map(|policy| policy.mx.len()), Ok(MAX_MX));
    }

    #[test]
    fn the_size_of_all_names_has_a_bound() {
        let label = "a".repeat(35);
        let text = |last: &str| {
            let names: String = (10..100).map(|n| format!("mx: mx{n}.{label}.test\n")).collect();
            format!("version: STSv1\nmode: enforce\nmax_age: 86400\n{names}mx: {last}\n")
        };
        // 90 names of 45 octets each.
        let (fits, too_long) = (text(&"b".repeat(46)), text(&"b".repeat(47)));
        let size = |policy: StsPolicy| policy.mx.iter().map(|name| name.len()).sum::<usize>();
        assert_eq!(parse(&fits).map(size), Ok(MAX_NAMES));
        let failure = parse(&too_long).expect_err("too long");
        assert!(failure.contains("4097 bytes; at most 4096"), "{failure}");
        // What was kept before stays in force.
        assert_eq!(StsPolicy::read(too_long.as_bytes(), "1", 1000).map(size), Ok(MAX_NAMES + 1));
    }

    #[test]
    fn modes_and_lifetimes_have_bounds() {
        for (word, mode) in [("enforce", Mode::Enforce), ("testing", Mode::Testing), ("none", Mode::None)] {
            let policy = parse(&format!("version: STSv1\nmode: {word}\nmx: a.test\nmax_age: 86400"));
            assert_eq!(policy.map(|p| p.mode), Ok(mode));
        }
        for (value, seconds) in
            [("0", 300), ("300", 300), ("301", 301), ("31557600", 31_557_600), ("9999999999", 31_557_600)]
        {
            let policy = parse(&format!("version: STSv1\nmode: none\nmax_age: {value}"));
            assert_eq!(policy.map(|p| p.max_age.as_secs()), Ok(seconds), "{value}");
        }
    }

    #[test]
    fn other_texts_are_not_policies() {
        let good = "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 86400\n";
        parse(good).expect("good");
        for (from, to) in [
            ("version: STSv1\n", ""),
            ("version: STSv1", "version: STSv2"),
            ("version: STSv1", "Version: STSv1"),
            ("version: STSv1", "version STSv1"),
            ("version: STSv1", "version: STSv1 x"),
            ("version: STSv1", "<html>: x"),
            ("version: STSv1", " version: STSv1"),
            ("mode: enforce\n", ""),
            ("mode: enforce", "mode: enforced"),
            ("mode: enforce", "mode: Enforce"),
            ("mode: enforce", "mode:"),
            ("mx: a.test\n", ""),
            ("mx: a.test", "mx: *"),
            ("mx: a.test", "mx: *a.test"),
            ("mx: a.test", "mx: *.*.test"),
            ("mx: a.test", "mx: a.*.test"),
            ("mx: a.test", "mx: .a.test"),
            ("mx: a.test", "mx: a..test"),
            ("mx: a.test", "mx: a.test."),
            ("mx: a.test", "mx: a b"),
            ("mx: a.test", "mx: \u{fc}.test"),
            ("mx: a.test", "mx: [192.0.2.1]"),
            ("mx: a.test", "mx:"),
            ("max_age: 86400\n", ""),
            ("max_age: 86400", "max_age: -1"),
            ("max_age: 86400", "max_age: +1"),
            ("max_age: 86400", "max_age: 1d"),
            ("max_age: 86400", "max_age:"),
            ("max_age: 86400", "max_age: 12345678901"),
            ("max_age: 86400", "max_age: 86400\nx: \u{1}"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            parse(&bad).expect_err(&bad);
        }
        parse("").expect_err("empty");
        StsPolicy::parse(b"\xff", "1", 0).expect_err("not UTF-8");
        let mut long = good.to_owned();
        long.push_str(&"x: y\n".repeat(MAX_SIZE / 5));
        parse(&long).expect_err("long");
    }

    #[test]
    fn an_asterisk_stands_for_exactly_one_label() {
        let policy = parse("version: STSv1\nmode: enforce\nmx: mx.example.org\nmx: *.example.net\nmax_age: 86400");
        let policy = policy.expect("good");
        for (host, is_admitted) in [
            ("mx.example.org", true),
            ("MX.Example.ORG.", true),
            ("a.example.net", true),
            ("A.EXAMPLE.NET", true),
            ("example.net", false),
            ("a.b.example.net", false),
            ("example.org", false),
            ("a.mx.example.org", false),
            ("mx.example.org.example.com", false),
            ("aexample.net", false),
            ("", false),
            (".", false),
        ] {
            assert_eq!(policy.admits(host), is_admitted, "{host}");
        }
    }
}
