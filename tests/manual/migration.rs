//! penfold-migration(7) names only keys and commands that exist, and the script that it describes
//! knows every setting of Postfix on it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{built, pages, programs};
use penfold::config::{Printed, parse, print};

const PAGE: &str = "penfold-migration.7";

/// The words of all lines with a macro, such as `.Ic relay.networks ,`, except punctuation.
fn words_of(page: &str, macros: &[&str]) -> BTreeSet<String> {
    let rest = |line: &str| macros.iter().find_map(|name| line.strip_prefix(*name)).map(str::to_owned);
    let lines: Vec<String> = page.lines().filter_map(rest).collect();
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words.filter(|word| word.contains(|c: char| c.is_ascii_alphanumeric())).map(str::to_owned).collect()
}

#[test]
#[cfg_attr(not(all(feature = "arc", feature = "filters")), ignore = "a part is not built in")]
fn the_page_names_only_keys_that_exist() {
    let every = std::fs::read_to_string(built::source("tests/manual/config/good/every-key.conf")).expect("a file");
    let etc = built::source("tests/manual/config/etc").display().to_string() + "/";
    let every = every.replace("/etc/aliases", "/etc/penfold/aliases").replace("/etc/penfold/", &etc);
    // The usual build has no shared store, and refuses its URL.
    let every: String =
        every.lines().filter(|line| !line.starts_with("store = ")).map(|line| format!("{line}\n")).collect();
    let config = parse(Path::new("penfold.conf"), &every).expect("good");
    let keys: BTreeSet<String> = print(&config).iter().map(Printed::name).collect();
    let named = words_of(&pages::page(PAGE), &[".Ic "]);
    assert!(named.len() > 50, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|key| !keys.contains(*key)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_page_names_only_commands_that_exist() {
    let commands = words_of(&pages::page("penfoldctl.8"), &[".It Cm "]);
    let text = pages::page(PAGE);
    let named: BTreeSet<&str> =
        text.split("penfoldctl ").skip(1).filter_map(|rest| rest.split([' ', ',', '"', '\n']).next()).collect();
    assert!(named.len() > 12, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| **name != "8" && !commands.contains(**name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The output of the script for a main.cf.
fn translated(main: &str) -> String {
    let mut script = Command::new("sh");
    script.arg(built::source("etc/migrate/main.cf-to-penfold")).arg("-").stderr(Stdio::piped());
    let output = programs::feed(&mut script, main.as_bytes());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Each setting and each restriction in the lists of the page has its place in the output of the
/// script, or a reason.
#[test]
fn the_script_knows_every_setting_of_the_page() {
    let section = pages::section(PAGE, "SETTINGS OF POSTFIX");
    let settings = words_of(&section, &[".It Va "]);
    assert!(settings.len() >= 45, "{}", settings.len());
    let (_, restrictions) = section.split_once(".Ss Restrictions\n").expect("restrictions");
    let mut list = String::new();
    for word in words_of(restrictions, &[".It Cm "]) {
        let argument =
            if word.starts_with("check_") || word.contains("bl_") || word.contains("wl_") { " x.example" } else { "" };
        list += &format!("{word}{argument}, ");
    }
    assert!(list.len() > 400, "{list}");
    let mut main = format!("smtpd_recipient_restrictions = {list}\n");
    for name in settings.iter().filter(|name| !name.ends_with("_restrictions")) {
        main += &format!("{name} = 1\n");
    }
    let printed = translated(&main);
    assert!(!printed.contains("not known here"), "{printed}");
    let printed = translated("nonsense_maps = 1\nsmtpd_recipient_restrictions = reject_nonsense\n");
    for name in ["# nonsense_maps = 1\n", "# smtpd_recipient_restrictions: reject_nonsense\n"] {
        assert!(printed.contains(&format!("{name}#     It is not known here")), "{printed}");
    }
}

#[test]
fn the_way_to_other_hosts_is_carried_over() {
    let printed = translated(
        "myhostname = mx.example.org\nsmtp_bind_address = 192.0.2.7\nsmtp_bind_address6 = [2001:db8::7]\n\
         smtp_helo_name = out.example.org\nsmtp_address_preference = ipv4\n",
    );
    for line in [
        "source = [\"192.0.2.7\", \"2001:db8::7\"]\n",
        "families = [\"ipv4\", \"ipv6\"]\n",
        "hello = \"out.example.org\"\n",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let printed = translated("smtp_bind_address = 192.0.2.7\ninet_protocols = ipv6\n");
    assert!(
        printed.contains("families = [\"ipv6\"]\n") && printed.contains("remote.source has one address"),
        "{printed}"
    );
}
