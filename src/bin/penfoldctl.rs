//! The program penfoldctl, which is also installed as sendmail, mailq and newaliases.

use std::process::ExitCode;

fn main() -> ExitCode {
    penfold::cli::main()
}
