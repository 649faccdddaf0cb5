//! `penfoldctl check`: looks for what keeps mail from coming in or going out.

use super::{Call, Command, Flag};
use crate::address::parse_domain;
use crate::cli::check;
use crate::exit::Exit;

pub(super) const COMMAND: Command = Command {
    name: "check",
    about: "look for what keeps mail from coming in, going out, or being accepted elsewhere",
    flags: &[
        Flag { long: "no-dns", about: "ask neither the DNS nor other hosts", ..Flag::NONE },
        Flag { short: "q", long: "quiet", about: "print only complaints", ..Flag::NONE },
        Flag {
            long: "try",
            hint: "domain",
            about: "connect to a mail exchanger of this domain, to see whether port 25 is open",
            ..Flag::NONE
        },
        Flag::JSON,
    ],
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(0)?;
    let asks = !call.options.opt_present("no-dns");
    let domain = call.options.opt_str("try");
    let try_domain = match domain.as_deref().map(parse_domain).transpose() {
        Ok(domain) => domain.map(String::from),
        Err(_) => return Err(call.usage("--try needs a domain")),
    };
    if try_domain.is_some() && !asks {
        return Err(call.usage("--try and --no-dns exclude each other"));
    }
    let (format, is_quiet) = (call.format(), call.options.opt_present("quiet"));
    check::run(call.start, &check::Options { format, is_quiet, asks, try_domain })
}
