//! The program penfoldd: its arguments and exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use getopts::Options;
use penfold::daemon::{Start, helper};
use penfold::exit::{self, Exit};
use penfold::sys;

const SYNOPSIS: &str = "usage: penfoldd [-dhinqvV] [-f file] [-p file]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.print("penfoldd"),
    }
}

fn run() -> Result<(), Exit> {
    let options = options();
    sys::close_inherited(passed_sockets());
    sys::usual_umask();
    let name = std::env::args_os().next();
    let name = name.as_deref().and_then(|name| name.to_str()).unwrap_or_default();
    if helper::is_helper(name) {
        return helper::run(name, std::env::args_os().skip(1));
    }
    let usage = |text: String| Exit { code: exit::USAGE, text: vec![text, SYNOPSIS.into()] };
    let parsed = options.parse(std::env::args_os().skip(1)).map_err(|e| usage(e.to_string()))?;
    if parsed.opt_present("h") {
        return exit::print(options.usage(SYNOPSIS));
    }
    if parsed.opt_present("V") {
        return exit::print(concat!("penfold ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    if let Some(extra) = parsed.free.first() {
        return Err(usage(format!("unexpected argument '{extra}'")));
    }
    let start = Start::new(parsed.opt_str("f").map(PathBuf::from), parsed.opt_present("d"), parsed.opt_present("v"));
    let pid_file = parsed.opt_str("p").map(PathBuf::from);
    if pid_file.is_some() && ["d", "i", "n", "q"].iter().any(|option| parsed.opt_present(option)) {
        return Err(usage("-p is for a daemon in the background".into()));
    }
    let start = start.with_pid_file(pid_file);
    match (parsed.opt_present("n"), parsed.opt_present("i"), parsed.opt_present("q")) {
        (true, ..) => match start.examine() {
            Ok(()) => {
                eprintln!("penfoldd: the configuration is right");
                Ok(())
            }
            Err(exit) => Err(exit.and(Some("change what these lines name, then run 'penfoldd -n' again".to_owned()))),
        },
        (_, true, true) => Err(usage("-i and -q exclude each other".into())),
        (_, true, _) => start.serve_one(),
        (_, _, true) => start.run_queue(),
        _ => start.serve(),
    }
}

/// The number of sockets that systemd has passed to this process.
fn passed_sockets() -> i32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let is_ours = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    number("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.try_into().ok()).unwrap_or(0)
}

fn options() -> Options {
    let mut options = Options::new();
    options.optflag("d", "", "stay in the foreground and log to standard error");
    options.optopt("f", "", "read this configuration", "file");
    options.optflag("h", "help", "show this text");
    options.optflag("i", "", "serve one client on standard input and output, as from inetd");
    options.optflag("n", "", "check the configuration and exit");
    options.optopt("p", "", "write the daemon's process id there", "file");
    options.optflag("q", "", "run the queue once and exit");
    options.optflag("v", "", "log more");
    options.optflag("V", "version", "show the version");
    options
}
