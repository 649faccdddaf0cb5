//! What the domains of this host publish so that other hosts can prove the way here: the policy of
//! MTA-STS (RFC 8461), its record, and the record that asks for TLS reports (RFC 8460).

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use crate::address::parse_domain;
use crate::config::Config;
use crate::dns::Dns;
use crate::outcome::NoAnswer;
use crate::tls_policy::sts::Mode;

/// The endings of names that are never in the DNS of the Internet.
const PRIVATE: [&str; 7] = ["localhost", "localdomain", "local", "lan", "internal", "home.arpa", "test"];
/// The number of hexadecimal digits in the id of a policy of ours.
const ID_LENGTH: usize = 24;
/// How long others may keep a policy that can still change every day, in seconds.
const SHORT: u64 = 86_400;
/// How long others may keep a policy in force, in seconds. An attacker must keep them from the
/// record and the policy for this long.
const LONG: u64 = 14 * 86_400;

/// Whether other hosts can look a domain up.
pub fn is_for_others(domain: &str) -> bool {
    let is_below = |end: &str| domain.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    domain.contains('.') && !domain.starts_with('[') && !PRIVATE.iter().any(|end| is_below(end))
}

/// The policy of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What other hosts do if they cannot verify a mail exchanger.
    pub mode: Mode,
    /// The names of the mail exchangers, in the order of the alphabet. The order in which the DNS
    /// returns them varies.
    pub exchangers: Vec<String>,
}

impl Policy {
    /// The policy of a domain with these mail exchangers.
    pub fn new(mode: Mode, mut exchangers: Vec<String>) -> Self {
        exchangers.sort();
        exchangers.dedup();
        Self { mode, exchangers }
    }

    /// How long others may keep the policy, in seconds.
    pub fn max_age(&self) -> u64 {
        if self.mode == Mode::Enforce { LONG } else { SHORT }
    }

    /// The text that a web server serves.
    pub fn text(&self) -> String {
        let exchangers: String = self.exchangers.iter().map(|name| format!("mx: {name}\n")).collect();
        format!("version: STSv1\nmode: {}\n{exchangers}max_age: {}\n", self.mode.word(), self.max_age())
    }

    /// The id of the policy: a digest of its text, so that it changes with the policy.
    pub fn id(&self) -> String {
        id_of(&self.text())
    }
}

/// The id that [`Policy::id`] gives to a policy with this text.
pub fn id_of(text: &str) -> String {
    let mut digits = HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref());
    digits.truncate(ID_LENGTH);
    digits
}

/// Whether an id may be one of [`id_of`]. Other programs and people take the date.
pub fn is_digest(id: &str) -> bool {
    id.len() == ID_LENGTH && id.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
}

/// The TXT record that announces a policy, and the record of the host that serves it.
pub fn sts_records(domain: &str, id: &str, web_server: &str) -> [String; 2] {
    [format!("_mta-sts.{domain}. IN TXT \"v=STSv1; id={id}\""), format!("mta-sts.{domain}. IN CNAME {web_server}.")]
}

/// The record that asks other hosts for TLS reports.
pub fn report_record(domain: &str) -> String {
    format!("_smtp._tls.{domain}. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@{domain}\"")
}

/// The domains of this host that others can look up: first the local ones.
pub fn domains(config: &Config) -> Vec<&str> {
    let all = config.local_domains().chain(config.relay.domains.iter().map(String::as_str));
    all.filter(|domain| is_for_others(domain)).collect()
}

/// The names of the mail exchangers of a domain, from its MX records, or else that of this host.
///
/// # Errors
/// A sentence if the look-up failed, or if the domain accepts no mail.
pub fn exchangers(dns: &Dns, domain: &str, hostname: &str) -> Result<Vec<String>, String> {
    match dns.mx(domain) {
        Ok(found) if found.iter().any(|(_, name)| name == ".") => {
            Err(format!("{domain} says in the DNS that it accepts no mail (null MX)"))
        }
        Ok(found) => {
            let names = found.into_iter().filter_map(|(_, name)| parse_domain(name.trim_end_matches('.')).ok());
            let names: Vec<String> = names.map(Into::into).collect();
            if names.is_empty() { Err(format!("the MX records of {domain} have no usable name")) } else { Ok(names) }
        }
        Err(NoAnswer::NoData | NoAnswer::NxDomain) => Ok(vec![hostname.to_owned()]),
        Err(why) => Err(format!("the mail exchangers of {domain}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_that_no_other_host_can_look_up_are_left_out() {
        for (domain, is_one) in [
            ("example.org", true),
            ("localhost", false),
            ("host.localdomain", false),
            ("nas.local", false),
            ("x.home.arpa", false),
            ("mylocal.example", true),
            ("[192.0.2.1]", false),
            ("notlan.xlan", true),
        ] {
            assert_eq!(is_for_others(domain), is_one, "{domain}");
        }
    }

    #[test]
    fn the_id_changes_with_the_policy_and_only_then() {
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let policy = Policy::new(Mode::Enforce, names(&["b.example.org", "a.example.org", "a.example.org"]));
        let text = "version: STSv1\nmode: enforce\nmx: a.example.org\nmx: b.example.org\nmax_age: 1209600\n";
        assert_eq!(policy.text(), text);
        assert_eq!(policy, Policy::new(Mode::Enforce, names(&["a.example.org", "b.example.org"])));
        let mut ids = vec![policy.id()];
        for other in [
            Policy::new(Mode::Testing, policy.exchangers.clone()),
            Policy::new(Mode::None, policy.exchangers.clone()),
            Policy::new(Mode::Enforce, names(&["a.example.org"])),
        ] {
            assert!(!ids.contains(&other.id()), "{}", other.text());
            ids.push(other.id());
        }
        // RFC 8461 3.1: at most 32 letters and digits.
        assert!(ids.iter().all(|id| is_digest(id) && id.len() <= 32), "{ids:?}");
        assert!(!is_digest("20261130085700Z") && !is_digest("20261130T085700"));
    }
}
