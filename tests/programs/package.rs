//! The Debian package that `make deb` builds, and its life on fresh Debian systems.
//!
//! The package has the programs that cargo has built for the tests. The newer version is built from
//! a copy of what `make deb` reads, with another version in Cargo.toml and another penfold.conf.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use common::debian::Debian;
use common::{Site, programs};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const NEWER: &str = "999.1.0";

/// The directory in which packages are built. Nothing is compiled for them.
struct Builder {
    site: Site,
}

impl Builder {
    /// Without the necessary programs, reports the test as skipped and returns `None`.
    fn new() -> Option<Self> {
        for program in ["dh", "lintian"] {
            if Command::new(program).arg("--version").output().is_err() {
                common::skip::skipped(format!("{program} is not installed"));
                return None;
            }
        }
        if !nix::unistd::geteuid().is_root() {
            common::skip::skipped("only root can build a package without fakeroot");
            return None;
        }
        let site = Site::new();
        // It compiles nothing.
        site.write("cargo", "#!/bin/sh\ncase $1 in tree | metadata) exec \"$REAL_CARGO\" \"$@\" ;; esac\nexit 1\n");
        fs::set_permissions(site.path("cargo"), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::create_dir_all(site.path("target/release")).expect("a directory");
        for program in ["penfoldd", "penfoldctl"] {
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(site.path("target/release").join(program)).arg(common::built::program(program));
            assert!(strip.status().expect("strip").success());
        }
        Some(Self { site })
    }

    /// Runs `make deb`, and returns the path of the package.
    fn make(&self, source: &Path) -> PathBuf {
        let mut make = Command::new("make");
        make.arg("-C").arg(source).arg("deb").arg(format!("CARGO={}", self.site.path("cargo").display()));
        make.env("REAL_CARGO", env!("CARGO")).env("CARGO_TARGET_DIR", self.site.path("target"));
        // The usual compression takes longer than all the rest.
        make.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
            .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
            .env_remove("MAKEFLAGS")
            .stdin(Stdio::null());
        let (code, text) = programs::code_and_text(&make.output().expect("make"));
        assert_eq!(code, 0, "make deb: {text}");
        PathBuf::from(text.lines().rfind(|line| line.ends_with(".deb")).expect("the path of the package"))
    }

    /// The package of this version. It is built once for all tests.
    fn package(&self) -> PathBuf {
        static PACKAGE: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = PACKAGE.get_or_init(|| fs::read(self.make(Path::new(SOURCE))).expect("a package"));
        let path = self.site.path(&format!("penfold_{VERSION}_any.deb"));
        fs::write(&path, bytes).expect("a copy");
        path
    }

    /// The package of a later version, whose penfold.conf has another first line.
    fn newer(&self) -> PathBuf {
        let copy = self.site.path("newer");
        fs::create_dir(&copy).expect("a directory");
        let parts = ["Makefile", "README", "NEWS", "LICENSE", ".deny.toml", "etc", "man"]
            .map(|name| Path::new(SOURCE).join(name));
        let copied = Command::new("cp").arg("-R").args(parts).arg(&copy).status().expect("cp");
        assert!(copied.success());
        for name in ["src", "tests"] {
            symlink(Path::new(SOURCE).join(name), copy.join(name)).expect("a link");
        }
        for name in ["Cargo.toml", "Cargo.lock"] {
            let text = fs::read_to_string(Path::new(SOURCE).join(name)).expect(name);
            let of = |version| format!("name = \"penfold\"\nversion = \"{version}\"");
            assert!(text.contains(&of(VERSION)), "{name}");
            fs::write(copy.join(name), text.replacen(&of(VERSION), &of(NEWER), 1)).expect(name);
        }
        let sample = fs::read_to_string(copy.join("etc/penfold.conf")).expect("penfold.conf");
        fs::write(copy.join("etc/penfold.conf"), format!("# Of the newer version.\n{sample}")).expect("penfold.conf");
        // The programs must be newer than their source.
        for program in ["penfoldd", "penfoldctl"] {
            let program = fs::File::options().append(true).open(self.site.path("target/release").join(program));
            program.expect("a program").set_modified(std::time::SystemTime::now()).expect("a time");
        }
        self.make(&copy)
    }
}

/// The copyright file of the package lists the Rust packages. A package without a known licence
/// ends the build.
#[test]
fn the_licences_of_rust_packages_are_known() {
    let site = Site::new();
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    let copyright = fs::read_to_string(Path::new(SOURCE).join("etc/debian/copyright")).expect("copyright");
    let run = |cargo: &str| {
        site.write("copyright", &copyright);
        let mut run = Command::new(Path::new(SOURCE).join("etc/debian/licences"));
        let output = run.args([Path::new(SOURCE), &site.path("")]).env("CARGO", cargo).output().expect("it runs");
        programs::code_and_text(&output)
    };
    let (code, text) = run(env!("CARGO"));
    assert_eq!((code, text.as_str()), (0, ""));
    let made = fs::read_to_string(site.path("copyright")).expect("copyright");
    let listed = |line: &&str| line.starts_with("  ") && line.contains(": ");
    assert!(made.lines().filter(listed).count() > 90, "{made}");
    for line in ["  ring-0.17.14: Apache-2.0 AND ISC", "  rustls-0.23."] {
        assert!(made.lines().any(|has| has.starts_with(line)), "{line}: {made}");
    }
    let texts = fs::read_to_string(site.path("rust-packages")).expect("texts");
    assert!(texts.contains("== ring-0.17.14, LICENSE\n") && texts.contains("Copyright"), "no texts");
    for (licence, is_known) in
        [("MIT", true), ("", false), ("GPL-3.0", false), ("MIT AND X", false), ("(X OR MIT) AND ISC", true)]
    {
        // Without --quiet, cargo also says that it waits for another one.
        let cargo =
            format!("#!/bin/sh\n[ $2 = --quiet ] || exit 64\n[ $1 = metadata ] || echo 'some v1.0.0|{licence}'\n");
        site.write("cargo", &cargo);
        fs::set_permissions(site.path("cargo"), fs::Permissions::from_mode(0o755)).expect("a mode");
        let (_, text) = run(&site.path("cargo").display().to_string());
        assert_eq!(!text.contains("unknown licence"), is_known, "{licence}: {text}");
    }
}

/// The output of `dpkg-deb` about a package.
fn dpkg_deb(option: &str, package: &Path) -> String {
    let output = Command::new("dpkg-deb").arg(option).arg(package).output().expect("dpkg-deb");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn lintian_accepts_the_package_and_it_is_reproducible() {
    let Some(builder) = Builder::new() else { return };
    let package = builder.package();
    let lintian = Command::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning"])
        .arg(&package)
        .output()
        .expect("lintian");
    let (code, said) = programs::code_and_text(&lintian);
    assert_eq!((code, said.as_str()), (0, ""), "no finding is hidden by an override");
    let control = dpkg_deb("--field", &package);
    for line in [
        &format!("Version: {VERSION}"),
        "Provides: mail-transport-agent",
        "Conflicts: mail-transport-agent",
        "Replaces: mail-transport-agent",
    ] {
        assert!(control.lines().any(|has| has == line), "{line}: {control}");
    }
    let depends = control.lines().find(|line| line.starts_with("Depends: ")).expect("dependencies");
    assert!(depends.contains("libc6 (>= "), "{depends}");
    let files = dpkg_deb("--contents", &package);
    for path in [
        "./usr/sbin/sendmail -> penfoldctl",
        "./usr/lib/sendmail -> ../sbin/penfoldctl",
        "./usr/bin/mailq -> ../sbin/penfoldctl",
        "./usr/bin/newaliases -> ../sbin/penfoldctl",
        "./usr/share/man/man8/sendmail.8.gz",
        "./usr/share/bash-completion/completions/penfoldctl",
        "./usr/share/zsh/vendor-completions/_penfoldctl",
        "./usr/share/fish/vendor_completions.d/penfoldctl.fish",
        "./usr/share/doc/penfold/changelog.gz",
        "./usr/share/doc/penfold/rust-packages.gz",
    ] {
        assert!(files.lines().any(|line| line.ends_with(&format!(" {path}"))), "{path}: {files}");
    }
    assert!(files.lines().all(|line| line.contains(" root/root ")), "{files}");
    assert!(!files.contains("/usr/local") && !files.contains("./etc/aliases"), "{files}");
    let before = fs::read(&package).expect("a package");
    assert!(fs::read(builder.make(Path::new(SOURCE))).expect("a package") == before, "two builds differ");
}

/// Copies a package to a machine, and installs it from there. Nothing else is needed, so the machine
/// keeps its own network.
fn install(machine: &Debian, package: &Path) {
    fs::copy(package, machine.path("/root/penfold.deb")).expect("a copy");
    machine
        .run("DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Debug::NoLocking=1 -o Dpkg::Options::=--force-confold install ./penfold.deb");
}

fn apt(machine: &Debian, arguments: &[&str]) -> String {
    let (code, text) = programs::code_and_text(&machine.apt(arguments));
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

/// The text of all mail of the user jo that has arrived, once `count` messages have.
fn mail(machine: &Debian, count: usize) -> String {
    machine.run(&format!(
        "for i in $(seq 300); do test $(ls ~jo/Maildir/new 2> /dev/null | wc -l) -ge {count} && break; sleep 0.1; done; \
         cat ~jo/Maildir/new/*"
    ))
}

/// Whether dpkg says that a package is installed.
fn installed(machine: &Debian, package: &str) -> bool {
    machine.shell(&format!("dpkg-query -W -f '${{Status}}' {package}")).stdout == b"install ok installed"
}

/// The file of the message to example.net in the queue.
const QUEUED: &str = "grep -lr example.net /var/spool/penfold/new /var/spool/penfold/cur";

#[test]
fn a_system_gets_upgrades_and_loses_the_package() {
    let Some(builder) = Builder::new() else { return };
    let Some(machine) = Debian::boot("mx.example.org") else { return };
    let (first, newer) = (builder.package(), builder.newer());
    machine.run("useradd -m jo");
    install(&machine, &first);
    serves_at_once(&machine);
    upgrades_while_mail_is_sent(&machine, &newer);
    a_removal_keeps_the_queue(&machine, &newer);
    a_purge_keeps_mail(&machine, &newer);
}

/// The package has started the daemon and its control socket, and the programs work.
fn serves_at_once(machine: &Debian) {
    machine.run("systemctl is-active penfold.service penfold-control.socket");
    machine.run("systemctl is-enabled penfold.service penfold-control.socket");
    assert!(!machine.shell("systemctl is-enabled penfold.socket penfold-inetd.socket").status.success());
    machine.run("printf 'Subject: one\n\nhello\n' | /usr/sbin/sendmail jo");
    machine.run("printf 'Subject: two\n\nhello\n' | /usr/lib/sendmail jo");
    let mail = mail(machine, 2);
    assert!(mail.contains("Subject: one\n") && mail.contains("Subject: two\n"), "{mail}");
    machine.run("printf 'Subject: waits\n\n\n' | sendmail jo@example.net");
    assert!(machine.run("mailq").contains("example.net"));
    machine.run("newaliases");
    assert!(machine.read("/etc/aliases").contains("\npostmaster:"));
}

/// An edited configuration is kept, and what is sent while the daemon restarts arrives.
fn upgrades_while_mail_is_sent(machine: &Debian, newer: &Path) {
    let conf = machine.read("/etc/penfold/penfold.conf").replacen("\n[limits]\n", "\n[limits]\nconnections = 77\n", 1);
    machine.write("/etc/penfold/penfold.conf", &conf);
    machine.write("/etc/aliases", "root: jo\n");
    machine.write("/etc/penfold/users", "");
    let pid = machine.run("systemctl show -P MainPID penfold.service");
    // A session that is open when the daemon stops ends with 75. The others wait for the new daemon.
    let script = "until test -e /root/enough; do printf 'Subject: loop\n\n' | sendmail jo; status=$?; echo $status; \
                  test $status = 0 || test $status = 75 || exit 1; done";
    let mut sender = machine.command("sh");
    let sender = sender.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("a shell");
    install(machine, newer);
    machine.write("/root/enough", "");
    let sent = sender.wait_with_output().expect("a shell");
    assert!(sent.status.success(), "sendmail has failed during the upgrade");
    let statuses = String::from_utf8(sent.stdout).expect("text");
    let sent = statuses.lines().filter(|status| *status == "0").count();
    assert!(sent > 0 && statuses.lines().filter(|status| *status == "75").count() <= 1, "{statuses}");
    let mail = mail(machine, 2 + sent);
    assert_eq!(mail.matches("Subject: loop\n").count(), sent);
    assert_eq!(machine.run("dpkg-query -W -f '${Version}' penfold"), NEWER);
    assert_ne!(machine.run("systemctl show -P MainPID penfold.service"), pid);
    assert_eq!(machine.read("/etc/penfold/penfold.conf"), conf);
    assert!(machine.read("/etc/penfold/penfold.conf.dpkg-dist").starts_with("# Of the newer version.\n"));
    assert_eq!(machine.read("/etc/aliases"), "root: jo\n");
    assert!(machine.run("penfoldctl config limits.connections").contains("77"));
    machine.run(QUEUED);
}

fn a_removal_keeps_the_queue(machine: &Debian, package: &Path) {
    apt(machine, &["remove", "penfold"]);
    assert!(
        !machine
            .shell("systemctl is-active penfold.service || systemctl is-active penfold-control.socket")
            .status
            .success()
    );
    assert!(!machine.path("/usr/sbin/sendmail").exists());
    assert!(machine.read("/etc/penfold/penfold.conf").contains("connections = 77"));
    machine.run(QUEUED);
    install(machine, package);
    assert!(machine.run("mailq").contains("example.net"));
    machine.run("systemctl is-active penfold.service penfold-control.socket");
}

/// Twice: with a message in the queue, and without.
fn a_purge_keeps_mail(machine: &Debian, package: &Path) {
    let home = mail(machine, 1);
    let said = apt(machine, &["purge", "penfold"]);
    assert!(said.contains("penfold: mail is kept in /var/spool/penfold"), "{said}");
    machine.run(QUEUED);
    assert!(!machine.path("/var/spool/penfold/state").exists(), "the history is not mail");
    assert!(!machine.path("/etc/penfold/penfold.conf").exists());
    install(machine, package);
    machine.run(&format!("penfoldctl remove $(basename $({QUEUED}) | cut -d, -f1)"));
    apt(machine, &["purge", "penfold"]);
    assert_eq!(mail(machine, 1), home);
    assert_eq!(machine.read("/etc/aliases"), "root: jo\n");
    let found = machine.run("find / -xdev -name '*penfold*' -print -o -lname '*penfold*' -print -o -path /var/cache -prune -o -path /proc -prune");
    // What an administrator has made, and what is dpkg's and systemd's.
    let expected = ["/root/penfold.deb", "/etc/penfold"];
    let more: Vec<&str> = found.lines().filter(|path| !expected.contains(path)).collect();
    assert_eq!(more, Vec::<&str>::new());
    assert!(machine.path("/etc/penfold/users").exists());
    machine.run("id penfold");
}

#[test]
fn the_package_takes_the_place_of_postfix_and_gives_it_back() {
    let Some(builder) = Builder::new() else { return };
    let Some(machine) = Debian::boot("mx.example.org") else { return };
    let package = builder.package();
    machine.run("useradd -m jo");
    machine.install(&["postfix", "bsd-mailx"]);
    machine.write("/etc/aliases", "root: jo\n");
    install(&machine, &package);
    assert!(!installed(&machine, "postfix") && installed(&machine, "bsd-mailx") && installed(&machine, "penfold"));
    assert_eq!(machine.read("/etc/aliases"), "root: jo\n");
    machine.run("echo hello | mail -s by-penfold root");
    let letter = mail(&machine, 1);
    assert!(letter.contains("Subject: by-penfold\n") && letter.contains("hello\n"), "{letter}");
    // And back.
    apt(&machine, &["install", "postfix"]);
    assert!(installed(&machine, "postfix") && installed(&machine, "bsd-mailx") && !installed(&machine, "penfold"));
    machine.run("postfix status; echo hello | mail -s by-postfix jo");
    machine.run("for i in $(seq 300); do grep -qs by-postfix /var/mail/jo && exit; sleep 0.1; done; exit 1");
    assert_eq!(mail(&machine, 1), letter);
    // The configuration of penfold was kept, so it works at once.
    install(&machine, &package);
    machine.run("echo hello | mail -s again root");
    assert!(mail(&machine, 2).contains("Subject: again\n"));
}
