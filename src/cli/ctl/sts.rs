//! `penfoldctl mta-sts`: the MTA-STS policies of the domains of this host, and the records that
//! announce them.

use super::{Call, Command, Flag};
use crate::address::parse_domain;
use crate::cli::published::{Policy, domains, exchangers, report_record, sts_records};
use crate::dns::Dns;
use crate::exit::{self, Exit, print};
use crate::json::{Format, Object};
use crate::tls_policy::sts::Mode;

pub(super) const COMMAND: Command = Command {
    name: "mta-sts",
    arguments: "[domain]",
    about: "print the MTA-STS policy of a domain, or the DNS records of all domains",
    flags: &[
        Flag { long: "mode", hint: "mode", about: "testing, the default, or enforce or none", ..Flag::NONE },
        Flag { long: "no-dns", about: "do not look up MX records: hostname is the mail exchanger", ..Flag::NONE },
        Flag::JSON,
    ],
    run,
    ..Command::NONE
};

/// Prints the policy of one domain; without a domain, the records of all.
fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let config = call.start.load()?;
    let mode = call.options.opt_str("mode").unwrap_or_else(|| Mode::Testing.word().into());
    let mode = Mode::parse(&mode).ok_or_else(|| call.usage("--mode needs testing, enforce or none"))?;
    let wanted = match call.words.first() {
        Some(word) => Some(String::from(parse_domain(word).map_err(|_| call.usage("expected a domain"))?)),
        None => None,
    };
    let all = match &wanted {
        Some(domain) => vec![domain.as_str()],
        None => domains(&config),
    };
    let (dns, host) = (Dns::new(&config.dns), &config.hostname);
    let asks = !call.options.opt_present("no-dns");
    let (mut text, mut failures) = (String::new(), Vec::new());
    for domain in all {
        let names = if asks { exchangers(&dns, domain, host) } else { Ok(vec![host.clone()]) };
        let policy = match names {
            Ok(names) => Policy::new(mode, names),
            Err(why) => {
                failures.push(why);
                continue;
            }
        };
        let [record, server] = sts_records(domain, &policy.id(), host);
        let records = [record, server, report_record(domain)];
        match (call.format(), &wanted) {
            (Format::Text, Some(_)) => text += &policy.text(),
            (Format::Text, None) => text += &records.map(|record| record + "\n").concat(),
            (Format::Json, _) => {
                let mut object = Object::new();
                object.text("domain", domain).text("mode", mode.word()).number("max_age", policy.max_age());
                object.texts("mx", &policy.exchangers).text("id", &policy.id());
                object.text("policy", &policy.text()).texts("publish", &records);
                text += &format!("{object}\n");
            }
        }
    }
    print(text)?;
    if failures.is_empty() { Ok(()) } else { Err(Exit { code: exit::TEMPFAIL, text: failures }) }
}
