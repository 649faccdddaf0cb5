//! penfoldctl, and under other names sendmail, mailq and newaliases.

use std::process::ExitCode;

fn main() -> ExitCode {
    penfold::cli::main()
}
