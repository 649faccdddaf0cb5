//! `penfoldctl check`: looks for what keeps mail from coming in, from going out, or from being
//! accepted elsewhere.
//!
//! The configuration and its tables are read by the code of `penfoldd -n`, as the server's user.
//! Everything after that is done as that user, too. Nothing is changed: no port is bound, and no
//! mail is sent.
//!
//! - `certificates`: the certificates that this host shows
//! - `domains`: whether other hosts find the way to a domain
//! - `finding`: the findings, and how they are printed
//! - `here`: the clock, the spool, the sendmail program, the daemon
//! - `name`: the name of this host in the DNS
//! - `net`: what the DNS says about this host and its domains
//! - `outside`: connections from and to the outside
//! - `past`: what the numbers of the last days say about the outside
//! - `ports`: the programs that listen on the configured ports
//! - `proof`: whether other hosts can prove the way to our domains
//! - `senders`: SPF, DKIM and DMARC records
//! - `tlsa`: the TLSA records of this host, compared with its certificates

#[cfg(feature = "mailauth")]
mod certificates;
#[cfg(feature = "mailauth")]
mod domains;
mod finding;
mod here;
#[cfg(feature = "mailauth")]
mod name;
#[cfg(feature = "mailauth")]
mod net;
#[cfg(feature = "mailauth")]
mod outside;
#[cfg(feature = "mailauth")]
mod past;
mod ports;
#[cfg(feature = "mailauth")]
mod proof;
#[cfg(feature = "mailauth")]
mod senders;
#[cfg(all(test, feature = "mailauth"))]
mod tests;
#[cfg(feature = "mailauth")]
mod tlsa;

use std::io;

use crate::config::Config;
use crate::daemon::Start;
use crate::exit::Exit;
use crate::json::Format;
use crate::log;
use crate::site::Settings;
use crate::sys;
use finding::{Finding, Level, Report, Topic};

/// The options of a check.
pub struct Options {
    /// The form of the output.
    pub format: Format,
    /// Whether only complaints are printed.
    pub is_quiet: bool,
    /// Whether the DNS and other hosts are asked.
    pub asks: bool,
    /// The domain whose mail exchanger is tried.
    pub try_domain: Option<String>,
}

/// Checks everything, and prints the findings.
///
/// # Errors
/// If there is a finding that is an error, or something could not be found out; see
/// [`Report::result`]. Also if nothing can be printed.
pub fn run(start: &Start, options: &Options) -> Result<(), Exit> {
    let report = examine(start, options);
    let printed = report.print(options.format, options.is_quiet, &mut io::stdout().lock());
    match printed {
        // The reader, such as head(1), has closed the pipe because it needs no more.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => report.result(),
        printed => printed.map_err(|e| super::failed("write the findings", &e)).and_then(|()| report.result()),
    }
}

fn examine(start: &Start, options: &Options) -> Report {
    let mut report = Report::default();
    let (config, logged) = (start.load().unwrap_or_else(|_| start.load_partially()), log::collect());
    // Only root sees the processes of all users.
    let sockets = ports::listening();
    let running = here::is_running(&config);
    let in_force = matches!(running, Ok(true)).then(|| here::in_force(&config)).flatten();
    let examined = start.examine_confined(options.asks);
    for (level, line) in logged.take() {
        let level = if level == ::log::Level::Error { Level::Error } else { Level::Warning };
        // The certificates have findings of their own.
        if !line.contains(": the certificate expires in ") && !line.contains(": the certificate has expired") {
            report.add(Finding::of_line(level, Topic::Configuration, &line));
        }
    }
    let settings = match examined {
        Ok(settings) => {
            let text = format!("{} and the tables that it names have no errors", config.places.file().display());
            report.add(Finding::new(Level::Good, Topic::Configuration, text));
            Some(settings)
        }
        Err(exit) => {
            exit.text.iter().for_each(|line| report.add(Finding::of_line(Level::Error, Topic::Configuration, line)));
            report.is_unusable = true;
            None
        }
    };
    report.add(here::clock(&config.spool));
    here::sendmail().into_iter().for_each(|finding| report.add(finding));
    report.add(here::daemon(&config, &running));
    report.findings.extend(in_force);
    let is_running = running.unwrap_or(true);
    ports::check(&config, is_running, &sockets).into_iter().for_each(|finding| report.add(finding));
    if sys::is_root() {
        // Root neither opens the spool nor asks others.
        let text = "the rest was not checked: the server's user is not known".to_owned();
        report.add(Finding::new(Level::Unknown, Topic::Configuration, text));
        return report;
    }
    if let Err(exit) = Start::try_log(&config.log) {
        let text = exit.text.join("; ");
        report.add(Finding::new(Level::Error, Topic::Configuration, text).at(config.places.complaint("log.to", "")));
    }
    if !is_running {
        report.findings.extend(here::socket_directory(&config));
    }
    here::spool(&config).into_iter().for_each(|finding| report.add(finding));
    if let Some(settings) = settings.as_ref().filter(|_| options.asks) {
        report.findings.extend(here::shared(settings));
    }
    of_the_net(&config, settings.as_ref(), options, &mut report);
    report
}

#[cfg(not(feature = "mailauth"))]
fn of_the_net(_: &Config, _: Option<&Settings>, options: &Options, report: &mut Report) {
    if options.asks {
        let text = "the DNS was not checked: this penfold has been built without the feature mailauth";
        report.add(Finding::new(Level::Note, Topic::Domain, text));
    }
}

/// Checks what others see of this host: names, domains, certificates, and connections.
#[cfg(feature = "mailauth")]
fn of_the_net(config: &Config, settings: Option<&Settings>, options: &Options, report: &mut Report) {
    use crate::dns::Dns;
    use crate::outcome::NoAnswer;
    use crate::tls_policy::sts;
    use net::{LIMIT, Net};

    let dns = Dns::new(&config.dns);
    let mut exchangers = Vec::new();
    let mut here = name::Addresses::default();
    let mute = if options.asks { net::mute(&dns, config) } else { None };
    if let Some(name) = &mute {
        // The other look-ups would take as long, and fail, too.
        report.add(name::unknown(Topic::Name, name, &NoAnswer::Timeout));
    } else if options.asks {
        let until = std::time::Instant::now() + LIMIT;
        let lookup = crate::dns::lookup::Until { dns: &dns, until };
        let keys = settings.map(|settings| settings.keys.as_ref());
        let certificates = settings.map(|settings| proof::Certificates {
            server: settings.tls.server.as_deref(),
            client: &settings.tls.client,
        });
        let certificates = certificates.as_ref();
        let client = certificates.filter(|_| cfg!(feature = "mta-sts")).map(|certificates| certificates.client);
        let fetch = client.map(|client| |domain: &str, id: &str| sts::fetch(&dns, client, (domain, id), proof::LIMIT));
        let fetch = fetch.as_ref().map(|fetch| fetch as &proof::Fetch<'_>);
        let own = outside::own_addresses(config);
        let sources = settings.map(|settings| outside::other_sources(config, &settings.outgoing)).unwrap_or_default();
        let net = Net { dns: &lookup, config, keys, own, sources, certificates, fetch };
        here = net.check(report, &mut exchangers);
    }
    if let Some(settings) = settings {
        let now = i64::try_from(sys::now()).unwrap_or(i64::MAX);
        let server = settings.tls.server.as_deref();
        report.findings.extend(certificates::check(config, server, &exchangers, now));
        if options.asks {
            let until = std::time::Instant::now() + LIMIT;
            let lookup = crate::dns::lookup::Until { dns: &dns, until };
            let tlsa = tlsa::Tlsa { dns: &lookup, server, client: &settings.tls.client };
            exchangers.iter().for_each(|name| report.findings.extend(tlsa.check(name)));
        }
    }
    if options.asks {
        let past = past::Past::read(config, settings.map(|settings| settings.router.as_ref()));
        // A warning about the listeners may have said it already.
        let is_told =
            report.findings.iter().any(|finding| finding.at.text.contains(", and only this host can connect"));
        if !is_told {
            report.findings.extend(outside::incoming(config, &here, &past));
        }
        let dns = mute.is_none().then_some(&dns);
        report.findings.extend(dns.and_then(|dns| outside::dane(config, dns)));
        report.findings.extend(outside::outgoing(config, dns, options.try_domain.as_deref(), &past));
    }
}
