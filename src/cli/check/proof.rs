//! Whether other hosts can prove the way to the domains of this host: MTA-STS, and reports about TLS.

use super::domains::Exchangers;
use super::finding::{Finding, Level, Topic};
use super::name::unknown;
use crate::cli::published::{Policy, is_digest, report_record, sts_records};
use crate::config::Config;
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;
use crate::tls_policy::sts::{Mode, record};

/// What the checks of a domain need.
pub struct Proof<'a> {
    /// The DNS.
    pub dns: &'a dyn Lookup,
    /// The configuration.
    pub config: &'a Config,
}

impl Proof<'_> {
    /// Checks the records of a domain.
    pub fn check(&self, domain: &str, exchangers: &Exchangers) -> Vec<Finding> {
        // Mail for the domain comes through another host, whose names and certificates are not known here.
        if exchangers.ours.is_empty() {
            return Vec::new();
        }
        vec![self.sts(domain, exchangers), self.reports(domain)]
    }

    /// The TXT records of a name; none if there are no such records.
    fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Finding> {
        match self.dns.txt(name) {
            Ok(texts) => Ok(texts),
            Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => Ok(Vec::new()),
            Err(why) => Err(unknown(Topic::Domain, &format!("the record {name}"), &why)),
        }
    }

    fn sts(&self, domain: &str, exchangers: &Exchangers) -> Finding {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let name = format!("_mta-sts.{domain}");
        let texts = match self.texts(&name) {
            Ok(texts) => texts,
            Err(finding) => return finding,
        };
        if let Some(id) = record::id(&texts) {
            return of_id(domain, &id, exchangers);
        }
        let policy = Policy::new(Mode::Testing, exchangers.listed.clone());
        let publish = |finding: Finding| {
            let records = sts_records(domain, &policy.id(), &self.config.hostname);
            records.into_iter().fold(finding, Finding::publish)
        };
        if texts.iter().any(|text| text.starts_with(b"v=STSv1")) {
            let text = format!("the record {name} cannot be used: other hosts take {domain} for one without MTA-STS");
            return publish(make(Level::Warning, text).advise("there must be one record, with an id"));
        }
        let text = format!("{domain} has no MTA-STS policy");
        let advice = format!("penfoldctl mta-sts {domain} prints one for a web server; see penfold-tls(7)");
        publish(make(Level::Note, text).advise(advice))
    }

    fn reports(&self, domain: &str) -> Finding {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let name = format!("_smtp._tls.{domain}");
        let texts = match self.texts(&name) {
            Ok(texts) => texts,
            Err(finding) => return finding,
        };
        let is_ours = |text: &&Vec<u8>| text.starts_with(b"v=TLSRPTv1");
        let has_address = |text: &&Vec<u8>| {
            let fields = text.split(|octet| *octet == b';').map(<[u8]>::trim_ascii);
            fields.filter_map(|field| field.strip_prefix(b"rua=")).any(|value| {
                let value = value.trim_ascii();
                value.starts_with(b"mailto:") || value.starts_with(b"https:")
            })
        };
        let found: Vec<_> = texts.iter().filter(is_ours).collect();
        match found.as_slice() {
            [one] if has_address(one) => make(Level::Good, format!("{domain} asks other hosts for reports about TLS")),
            [] => make(Level::Note, format!("{domain} asks for no reports about TLS")).publish(report_record(domain)),
            _ => make(Level::Warning, format!("the record {name} cannot be used: no reports about TLS come"))
                .advise("there must be one record, with a rua=mailto: or rua=https:")
                .publish(report_record(domain)),
        }
    }
}

/// The finding about a domain that announces a policy. The ids that penfoldctl makes tell what is in
/// the policy.
fn of_id(domain: &str, id: &str, exchangers: &Exchangers) -> Finding {
    let make = |level, text: String| Finding::new(level, Topic::Domain, text);
    let of = |mode| Policy::new(mode, exchangers.listed.clone());
    let found = [Mode::Enforce, Mode::Testing, Mode::None].map(of).into_iter().find(|policy| policy.id() == id);
    match found {
        Some(policy) => {
            make(Level::Good, format!("{domain} announces an MTA-STS policy, with the mode {}", policy.mode.word()))
        }
        None if is_digest(id) => {
            let text = format!("the MTA-STS record of {domain} is for a policy with other mail exchangers");
            let advice = "after a change of the MX records, replace the policy at the web server and the record";
            make(Level::Warning, text).advise(format!("{advice}; penfoldctl mta-sts prints both"))
        }
        None => make(Level::Good, format!("{domain} announces an MTA-STS policy, with the id {id}")),
    }
}
