//! Completion: the scripts in etc/ are those of the program, and complete commands in each shell.

use std::fs;
use std::process::Command;

use common::built;

const SCRIPTS: [(&str, &str); 3] = [
    ("bash", "etc/completion/bash/penfoldctl"),
    ("zsh", "etc/completion/zsh/_penfoldctl"),
    ("fish", "etc/completion/fish/penfoldctl.fish"),
];

#[test]
fn the_scripts_are_those_that_the_program_prints() {
    for (shell, path) in SCRIPTS {
        let output = Command::new(built::program("penfoldctl")).args(["completion", shell]).output().expect("it runs");
        let script = fs::read_to_string(built::source(path)).expect(path);
        let hint = format!("{path} is not what `penfoldctl completion {shell}` prints");
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout) == script, "{hint}");
    }
}

/// The words that a shell proposes at the end of a command line. If the shell is absent, reports the
/// test as skipped and returns `None`.
fn proposed(shell: &str, path: &str, line: &[&str]) -> Option<Vec<String>> {
    let path = built::source(path).display().to_string();
    let last = line.len() - 1;
    let script = match shell {
        "bash" => format!(
            ". '{path}'; COMP_WORDS=({}); COMP_CWORD={last}; _penfoldctl; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line.join(" ")
        ),
        // zsh itself compares the words with the beginning of the last one.
        "zsh" => format!(
            "compadd() {{ shift; print -rl -- \"$@\" }}; _files() {{ }}; words=({}); CURRENT={}; . '{path}'",
            line.join(" "),
            last + 1
        ),
        _ => format!("source '{path}'; complete -C '{}'", line.join(" ")),
    };
    let options: &[&str] = if shell == "bash" { &["--norc"] } else { &[] };
    let output = match Command::new(shell).args(options).args(["-c", &script]).output() {
        Ok(output) => output,
        Err(e) => {
            common::skipped(format_args!("{shell} does not run: {e}"));
            return None;
        }
    };
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let words = text.lines().filter_map(|line| line.split('\t').next()).filter(|word| word.starts_with(line_end(line)));
    Some(words.map(str::to_owned).collect())
}

fn line_end<'a>(line: &[&'a str]) -> &'a str {
    line.last().copied().unwrap_or_default()
}

#[test]
fn each_shell_completes_commands_options_and_words() {
    for (shell, path) in SCRIPTS {
        for (line, words) in [
            (&["penfoldctl", "sta"][..], &["stats", "status"][..]),
            (&["penfoldctl", "-f", "/x", "qu"], &["queue"]),
            (&["penfoldctl", "queue", "--st"], &["--state"]),
            (&["penfoldctl", "dkim", "ch"], &["check"]),
            (&["penfoldctl", "help", "expl"], &["explain"]),
        ] {
            let Some(mut found) = proposed(shell, path, line) else { break };
            found.sort();
            assert_eq!(found, words, "{shell}: {line:?}");
        }
    }
}
