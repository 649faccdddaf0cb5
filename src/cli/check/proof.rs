//! Whether other hosts can prove the way to the domains of this host: MTA-STS, and reports about TLS.

use std::time::Duration;

use super::domains::Exchangers;
use super::finding::{Finding, Level, Topic};
use super::name::unknown;
use crate::cli::published::{Policy, is_digest, report_record, sts_records};
use crate::config::Config;
use crate::dns::lookup::Lookup;
use crate::outcome::NoAnswer;
use crate::tls::{Client, Fault, Server, Verification};
use crate::tls_policy::sts::{Mode, StsPolicy, record};
use crate::tls_report::Record;

/// The time limit for fetching one policy.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Fetches the policy of a domain with this id.
pub type Fetch<'a> = dyn Fn(&str, &str) -> Result<StsPolicy, Fault> + Sync + 'a;

/// The certificates of this host, and how other hosts see them.
pub struct Certificates<'a> {
    /// The certificates, if there are any.
    pub server: Option<&'a Server>,
    /// Verifies them.
    pub client: &'a Client,
}

/// What the checks of a domain need.
pub struct Proof<'a> {
    /// The DNS.
    pub dns: &'a dyn Lookup,
    /// The configuration.
    pub config: &'a Config,
    /// The certificates; `None` if they could not be read.
    pub certificates: Option<&'a Certificates<'a>>,
    /// Fetches policies; `None` if that cannot be done.
    pub fetch: Option<&'a Fetch<'a>>,
}

impl Proof<'_> {
    /// Checks the records of a domain.
    pub fn check(&self, domain: &str, exchangers: &Exchangers) -> Vec<Finding> {
        // Mail for the domain comes through another host, whose names and certificates are not known here.
        if exchangers.ours.is_empty() {
            return Vec::new();
        }
        let mut findings = self.sts(domain, exchangers);
        findings.push(self.reports(domain));
        findings
    }

    /// The TXT records of a name; none if there are no such records.
    fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Finding> {
        match self.dns.txt(name) {
            Ok(texts) => Ok(texts),
            Err(NoAnswer::NoData | NoAnswer::NxDomain | NoAnswer::BadName) => Ok(Vec::new()),
            Err(why) => Err(unknown(Topic::Domain, &format!("the record {name}"), &why)),
        }
    }

    fn sts(&self, domain: &str, exchangers: &Exchangers) -> Vec<Finding> {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let name = format!("_mta-sts.{domain}");
        let texts = match self.texts(&name) {
            Ok(texts) => texts,
            Err(finding) => return vec![finding],
        };
        if let Some(id) = record::id(&texts) {
            return match self.fetch {
                Some(fetch) => self.served(domain, &id, fetch(domain, &id), exchangers),
                None => vec![of_id(domain, &id, exchangers)],
            };
        }
        let policy = Policy::new(Mode::Testing, exchangers.listed.clone());
        let publish = |finding: Finding| {
            let records = sts_records(domain, &policy.id(), &self.config.hostname);
            records.into_iter().fold(finding, Finding::publish)
        };
        if texts.iter().any(|text| text.starts_with(b"v=STSv1")) {
            let text = format!("the record {name} cannot be used: other hosts take {domain} for one without MTA-STS");
            return vec![publish(make(Level::Warning, text).advise("there must be one record, with an id"))];
        }
        let text = format!("{domain} has no MTA-STS policy");
        let advice = format!("penfoldctl mta-sts {domain} prints one for a web server; see penfold-tls(7)");
        vec![publish(make(Level::Note, text).advise(advice))]
    }

    /// The findings about the policy that the web server of a domain serves.
    fn served(
        &self,
        domain: &str,
        id: &str,
        served: Result<StsPolicy, Fault>,
        exchangers: &Exchangers,
    ) -> Vec<Finding> {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let policy = match served {
            Ok(policy) => policy,
            Err(why) => {
                let text = format!("the MTA-STS policy of {domain} cannot be fetched: {}", why.why);
                let advice = "other hosts go on with the last policy that they had, until it ends; see penfold-tls(7)";
                return vec![make(Level::Warning, text).advise(advice)];
            }
        };
        let mode = policy.mode;
        let bad = if mode == Mode::Enforce { Level::Error } else { Level::Warning };
        let mut findings = Vec::new();
        let new = Policy::new(mode, policy.mx.iter().map(ToString::to_string).collect());
        if is_digest(id) && new.max_age() == policy.max_age.as_secs() && new.id() != id {
            let text =
                format!("the MTA-STS record of {domain} has the id of another policy than the web server serves");
            let [record, _] = sts_records(domain, &new.id(), &self.config.hostname);
            let advice = "other hosts go on with an older policy, until the id changes or the policy ends";
            findings.push(make(Level::Warning, text).advise(advice).publish(record));
        }
        if mode != Mode::None {
            for name in exchangers.listed.iter().filter(|name| !policy.admits(name)) {
                let text = format!("the MTA-STS policy of {domain} does not name the mail exchanger {name}");
                let advice =
                    "other hosts do not send mail to it while the mode is enforce; replace the policy, then the record";
                findings.push(make(bad, text).advise(advice));
            }
            exchangers.ours.iter().for_each(|name| findings.extend(self.certificate(domain, name, bad)));
        }
        if findings.is_empty() {
            let text = format!("the MTA-STS policy of {domain} is served, with the mode {}", mode.word());
            findings.push(make(Level::Good, text));
        }
        findings
    }

    /// The complaints about the certificates that others get who enforce the policy of a domain.
    fn certificate(&self, domain: &str, name: &str, bad: Level) -> Vec<Finding> {
        let Some(Certificates { server, client }) = self.certificates else { return Vec::new() };
        let make = |text: String| Finding::new(bad, Topic::Tls, text);
        let Some(server) = server else {
            let text = format!("{domain} has an MTA-STS policy, and this host has no certificate");
            return vec![
                make(text).advise("hosts that enforce the policy do not send mail here; see [tls] in penfold.conf(5)"),
            ];
        };
        let wrong = server.shown_for(name).into_iter().filter_map(|one| {
            let why = client.verify(name, &Verification::authority(), &one.chain).err()?;
            let text = format!(
                "{}: not valid for {name}, as the MTA-STS policy of {domain} demands: {}",
                one.file.display(),
                why.why
            );
            Some(make(text).advise("hosts that enforce the policy do not send mail here"))
        });
        wrong.collect()
    }

    fn reports(&self, domain: &str) -> Finding {
        let make = |level, text: String| Finding::new(level, Topic::Domain, text);
        let name = format!("_smtp._tls.{domain}");
        let texts = match self.texts(&name) {
            Ok(texts) => texts,
            Err(finding) => return finding,
        };
        let has_one = texts.iter().any(|text| text.starts_with(b"v=TLSRPTv1"));
        match Record::find(&texts) {
            Some(_) => make(Level::Good, format!("{domain} asks other hosts for reports about TLS")),
            None if has_one => {
                make(Level::Warning, format!("the record {name} cannot be used: no reports about TLS come"))
                    .advise("there must be one record, with a rua=mailto: or rua=https: and no port")
                    .publish(report_record(domain))
            }
            None => make(Level::Note, format!("{domain} asks for no reports about TLS")).publish(report_record(domain)),
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
