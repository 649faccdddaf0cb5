//! `make install`, `make install-sendmail`, and their reversal.
//!
//! The tests install into scratch trees, for several values of the directory variables. Where
//! overlays are possible, root also installs into a view of the system in a private mount
//! namespace, which ends with the test. The programs are stand-ins that are newer than the source,
//! so that nothing is built.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Site, pages};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// The scripts for the completion of shells, below `share`.
const COMPLETION: [&str; 3] = [
    "bash-completion/completions/penfoldctl",
    "zsh/site-functions/_penfoldctl",
    "fish/vendor_completions.d/penfoldctl.fish",
];

/// A directory tree into which a test installs, and the programs to be installed.
struct Tree {
    site: Site,
}

impl Tree {
    fn new() -> Self {
        let site = Site::new();
        fs::create_dir_all(site.path("target/release")).expect("a directory");
        for program in ["penfoldd", "penfoldctl"] {
            let path = site.path("target/release").join(program);
            fs::write(&path, format!("#!/bin/sh\necho {program} \"$0\" \"$@\"\n")).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode 755");
        }
        Self { site }
    }

    /// The top of the tree, the value of `DESTDIR`.
    fn root(&self) -> PathBuf {
        self.site.path("root")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name.trim_start_matches('/'))
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a directory")).expect("a directory");
        fs::write(self.path(name), text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn command(&self) -> Command {
        let mut make = Command::new("make");
        make.arg("-C").arg(SOURCE).arg("CARGO=false").env("CARGO_TARGET_DIR", self.site.path("target"));
        make.env_remove("MAKEFLAGS").env_remove("DESTDIR").stdin(Stdio::null());
        make
    }

    /// Runs `make TARGET` with this tree as DESTDIR, and returns the output.
    fn make(&self, target: &str, variables: &[&str]) -> String {
        let destination = format!("DESTDIR={}", self.root().display());
        let output = self.command().arg(destination).arg(target).args(variables).output().expect("make runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "make {target}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// The paths of all files and links of the tree.
    fn files(&self) -> BTreeSet<String> {
        let (mut found, mut directories) = (BTreeSet::new(), vec![self.root()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().expect("a type").is_dir() {
                    directories.push(entry.path());
                } else {
                    let path = entry.path();
                    found.insert(path.strip_prefix(self.root()).expect("below").display().to_string());
                }
            }
        }
        found
    }
}

/// The names in a folder of the source, without those in subfolders.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(SOURCE).join(folder)).expect(folder).flatten();
    entries.filter(|e| e.path().is_file()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn install_follows_the_variables_and_uninstall_removes_everything() {
    for (variables, programs, private, manuals, samples, units, configuration) in [
        (
            &[][..],
            "usr/local/sbin",
            "usr/local/libexec",
            "usr/local/share/man",
            "usr/local/share/doc/penfold",
            "usr/local/lib/",
            "etc",
        ),
        (&["prefix=/usr"], "usr/sbin", "usr/libexec", "usr/share/man", "usr/share/doc/penfold", "usr/lib/", "etc"),
        // Variables may have the names of earlier versions, too.
        (
            &["PREFIX=/opt/p", "SYSCONFDIR=/opt/etc"],
            "opt/p/sbin",
            "opt/p/libexec",
            "opt/p/share/man",
            "opt/p/share/doc/penfold",
            "opt/p/lib/",
            "opt/etc",
        ),
        (
            &[
                "prefix=/usr",
                "exec_prefix=/x",
                "libexecdir=/usr/lib",
                "mandir=/m",
                "docdir=/d",
                "systemdsystemunitdir=",
                "sysusersdir=",
                "tmpfilesdir=",
                "bashcompletiondir=",
                "zshcompletiondir=",
                "fishcompletiondir=",
            ],
            "x/sbin",
            "usr/lib",
            "m",
            "d",
            "",
            "etc",
        ),
    ] {
        let tree = Tree::new();
        let printed = tree.make("install", variables);
        let mut expected: BTreeSet<String> =
            ["penfoldd", "penfoldctl"].iter().map(|name| format!("{programs}/{name}")).collect();
        expected.extend(["sendmail", "mailq", "newaliases"].iter().map(|name| format!("{private}/penfold/{name}")));
        let page = |name: String| format!("{manuals}/man{}/{name}", &name[name.len() - 1..]);
        expected.extend(names("man").into_iter().map(page));
        expected.extend(["README", "NEWS", "LICENSE"].iter().map(|name| format!("{samples}/{name}")));
        for folder in [
            "",
            "systemd/",
            "sysusers.d/",
            "tmpfiles.d/",
            "rc.d/",
            "fail2ban/",
            "languages/",
            "logwatch/",
            "cron.d/",
            "prometheus/",
            "grafana/",
            "completion/bash/",
            "completion/zsh/",
            "completion/fish/",
            "container/",
            "migrate/",
        ] {
            let here = names(&format!("etc/{folder}"))
                .into_iter()
                .filter(|name| !["install.sh", "dist.sh"].contains(&name.as_str()));
            expected.extend(here.map(|name| format!("{samples}/examples/{folder}{name}")));
        }
        if !units.is_empty() {
            expected.extend(names("etc/systemd").iter().map(|name| format!("{units}systemd/system/{name}")));
            expected.extend(["sysusers.d", "tmpfiles.d"].iter().map(|name| format!("{units}{name}/penfold.conf")));
        }
        if let Some(share) = samples.strip_suffix("/doc/penfold") {
            expected.extend(COMPLETION.iter().map(|path| format!("{share}/{path}")));
        }
        let kept = format!("{configuration}/penfold/penfold.conf");
        expected.insert(kept.clone());
        assert_eq!(tree.files(), expected, "{variables:?}");
        // With DESTDIR, make prints the steps that root has to do on the target machine.
        assert!(printed.contains("To be done by root"), "{printed}");
        let mode = |name: &str| fs::metadata(tree.path(name)).expect(name).permissions().mode() & 0o7777;
        assert_eq!((mode(&format!("{programs}/penfoldctl")), mode(&kept)), (0o755, 0o644));
        let link = fs::read_link(tree.path(&format!("{private}/penfold/mailq"))).expect("a link");
        assert_eq!(link, Path::new("/").join(programs).join("penfoldctl"));
        tree.make("uninstall", variables);
        assert_eq!(tree.files(), BTreeSet::from([kept]), "{variables:?}");
        assert!(!tree.path(samples).exists());
    }
}

#[test]
fn installing_ends_with_what_to_do_next() {
    let next = |ctl: &Path, config: &str| {
        let mut command = Command::new("etc/install.sh");
        let output = command.args(["next".as_ref(), ctl.as_os_str(), config.as_ref()]).output().expect("sh");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let absent = Path::new("/nowhere/penfoldctl");
    let usual = next(absent, "/etc/penfold/penfold.conf");
    let steps = ["vi /etc/penfold/penfold.conf ", "penfoldd -n ", "penfoldctl check ", "make install-sendmail "];
    let begins = |text: &str| usual.lines().any(|line| line.trim_start().starts_with(text));
    steps.iter().for_each(|step| assert!(begins(step), "{step}: {usual}"));
    let other = next(absent, "/c/penfold.conf");
    assert!(other.contains(" penfoldd -n -f /c/penfold.conf ") && other.contains(" penfoldctl -f /c/"), "{other}");
    // While a daemon runs, it is the version before.
    let site = Site::new();
    let _daemon = site.start();
    let (ctl, config) = (site.path("ctl"), site.path("penfold.conf"));
    fs::write(&ctl, format!("#!/bin/sh\nexec {} -f {} \"$@\"\n", env!("CARGO_BIN_EXE_penfoldctl"), config.display()))
        .expect("a script");
    fs::set_permissions(&ctl, fs::Permissions::from_mode(0o755)).expect("its mode");
    let upgrade = next(&ctl, "/etc/penfold/penfold.conf");
    assert!(upgrade.contains("still the old one") && upgrade.lines().count() == 1, "{upgrade}");
}

#[test]
fn an_edited_configuration_and_foreign_files_survive() {
    let tree = Tree::new();
    tree.make("install", &[]);
    tree.write("etc/penfold/penfold.conf", "# mine\n");
    tree.write("usr/local/share/doc/penfold/examples/theirs", "theirs\n");
    tree.make("install", &[]);
    assert_eq!(tree.read("etc/penfold/penfold.conf"), "# mine\n");
    tree.make("uninstall", &[]);
    let left = ["etc/penfold/penfold.conf", "usr/local/share/doc/penfold/examples/theirs"].map(str::to_owned);
    assert_eq!(tree.files(), BTreeSet::from(left));
    // A dangling link in the place of the configuration is the administrator's choice, and stays.
    fs::remove_file(tree.path("etc/penfold/penfold.conf")).expect("there");
    symlink("/elsewhere/penfold.conf", tree.path("etc/penfold/penfold.conf")).expect("a link");
    tree.make("install", &[]);
    assert!(fs::symlink_metadata(tree.path("etc/penfold/penfold.conf")).expect("there").is_symlink());
}

#[test]
fn installed_files_name_the_installed_paths() {
    let tree = Tree::new();
    let variables = ["prefix=/p", "sysconfdir=/c", "localstatedir=/v", "runstatedir=/r"];
    tree.make("install", &variables);
    let with = ["-f /c/penfold/penfold.conf"];
    for (file, lines) in [
        ("p/lib/systemd/system/penfold.service", &["ExecStart=/p/sbin/penfoldd -d -f /c/penfold/penfold.conf"][..]),
        ("p/lib/systemd/system/penfold-inetd@.service", &["ExecStart=-/p/sbin/penfoldd -i -f /c/penfold/penfold.conf"]),
        ("p/lib/systemd/system/penfold-control.socket", &["ListenStream=/r/penfold/penfold.sock"]),
        ("p/lib/tmpfiles.d/penfold.conf", &["d /v/spool/penfold 0700", "d /r/penfold 0755"]),
        ("p/lib/sysusers.d/penfold.conf", &["\" /v/spool/penfold"]),
        ("c/penfold/penfold.conf", &["\nspool = \"/v/spool/penfold\"", "\nsocket = \"/r/penfold/penfold.sock\""]),
        ("p/share/doc/penfold/examples/inetd.conf", &with),
        ("p/share/doc/penfold/examples/xinetd.conf", &["/p/sbin/penfoldd", with[0]]),
        ("p/share/doc/penfold/examples/rc.d/sysv", &["daemon=/p/sbin/penfoldd", "config=/c/penfold/penfold.conf"]),
        ("p/share/doc/penfold/examples/rc.d/openrc", &["command=\"/p/sbin/penfoldd\"", "config=\"/c/penfold/"]),
        ("p/share/doc/penfold/examples/rc.d/freebsd", &["command=\"/p/sbin/penfoldd\"", "config:=/c/penfold/"]),
        ("p/share/doc/penfold/examples/mailer.conf", &["/p/libexec/penfold/sendmail"]),
    ] {
        let text = tree.read(file);
        lines.iter().for_each(|line| assert!(text.contains(line), "{file}: {line}\n{text}"));
    }
    // Other tests fill in the templates with the default directories by `pages::sample`, which must
    // do the same as `make install`.
    let plain = Tree::new();
    plain.make("install", &[]);
    let samples = "usr/local/share/doc/penfold/examples/";
    let installed: Vec<String> =
        plain.files().iter().filter_map(|file| Some(file.strip_prefix(samples)?.to_owned())).collect();
    assert!(installed.len() > 15, "{installed:?}");
    for file in installed {
        assert_eq!(plain.read(&format!("{samples}{file}")), pages::sample(&file), "{file}");
    }
}

#[test]
fn a_directory_below_the_prefix_is_substituted_once() {
    let tree = Tree::new();
    tree.make(
        "install",
        &[
            "prefix=/opt/penfold",
            "localstatedir=/opt/penfold/var",
            "runstatedir=/opt/penfold/run",
            "sysconfdir=/opt/penfold/etc",
        ],
    );
    for (file, line) in [
        ("etc/penfold/penfold.conf", "\nspool = \"/opt/penfold/var/spool/penfold\"\n"),
        ("etc/penfold/penfold.conf", "\nsocket = \"/opt/penfold/run/penfold/penfold.sock\"\n"),
        ("lib/tmpfiles.d/penfold.conf", "\nd /opt/penfold/var/spool/penfold 0700"),
        ("lib/tmpfiles.d/penfold.conf", "\nd /opt/penfold/run/penfold 0755"),
        (
            "lib/systemd/system/penfold.service",
            "=/opt/penfold/sbin/penfoldd -d -f /opt/penfold/etc/penfold/penfold.conf\n",
        ),
    ] {
        let text = tree.read(&format!("opt/penfold/{file}"));
        assert!(text.contains(line), "{file}: {line}\n{text}");
    }
    // The names of some directories contain the default value of another variable.
    let other = Tree::new();
    other.make(
        "install",
        &[
            "sbindir=/usr/local/share/doc/penfold",
            "docdir=/d/usr/local/libexec",
            "localstatedir=/var/spool/penfold/var",
        ],
    );
    for name in
        tree.files().into_iter().map(|name| (&tree, name)).chain(other.files().into_iter().map(|name| (&other, name)))
    {
        let (tree, name) = name;
        if fs::symlink_metadata(tree.path(&name)).expect("there").is_symlink() || name.contains("/man/") {
            continue;
        }
        let text = tree.read(&name);
        for twice in ["/opt/penfold/opt/", "/var/spool/penfold/var/spool/penfold/var", "/d/d/", "/penfold/penfoldd/"] {
            assert!(!text.contains(twice), "{name}: {twice}");
        }
        let is_left =
            |line: &str| line.split('@').skip(1).step_by(2).any(|word| word.ends_with("dir") || word.contains('_'));
        assert!(!text.lines().any(is_left), "{name}");
    }
    let text = other.read("usr/local/lib/systemd/system/penfold.service");
    assert!(text.contains("ExecStart=/usr/local/share/doc/penfold/penfoldd -d\n"), "{text}");
}

/// The four paths under which programs look for sendmail, each with its content or target.
fn places(tree: &Tree) -> Vec<String> {
    let place = |name: &str| match fs::read_link(tree.path(name)) {
        Ok(to) => format!("-> {}", to.display()),
        Err(_) => fs::read_to_string(tree.path(name)).unwrap_or_else(|_| "-".to_owned()),
    };
    ["usr/sbin/sendmail", "usr/lib/sendmail", "usr/bin/mailq", "usr/bin/newaliases"].map(place).to_vec()
}

#[test]
fn sendmail_is_replaced_and_restored() {
    let tree = Tree::new();
    tree.write("usr/sbin/sendmail", "old sendmail");
    fs::create_dir_all(tree.path("usr/lib"))
        .and_then(|()| fs::create_dir_all(tree.path("usr/bin")))
        .expect("directories");
    symlink("../sbin/sendmail", tree.path("usr/lib/sendmail")).expect("a link");
    symlink("/nowhere", tree.path("usr/bin/mailq")).expect("a link");
    let before = places(&tree);
    let ours = ["sendmail", "sendmail", "mailq", "newaliases"].map(|name| format!("-> /usr/libexec/penfold/{name}"));
    // A repetition of each target changes nothing.
    for _ in 0..2 {
        tree.make("install-sendmail", &["prefix=/usr"]);
        assert_eq!(places(&tree), ours);
        assert_eq!(tree.read("usr/sbin/sendmail.orig"), "old sendmail");
    }
    for _ in 0..2 {
        tree.make("uninstall-sendmail", &["prefix=/usr"]);
        assert_eq!(places(&tree), before);
    }
    assert_eq!(tree.files().len(), 3, "{:?}", tree.files());
    // If another sendmail was installed meanwhile, it is not removed.
    tree.make("install-sendmail", &["prefix=/usr"]);
    fs::remove_file(tree.path("usr/sbin/sendmail")).expect("there");
    tree.write("usr/sbin/sendmail", "new sendmail");
    tree.make("uninstall", &["prefix=/usr"]);
    assert_eq!(places(&tree)[0], "new sendmail");
    assert_eq!(places(&tree)[1..], before[1..]);
}

#[test]
fn mailwrapper_is_configured_by_its_own_file() {
    for file in ["etc/mail/mailer.conf", "etc/mailer.conf"] {
        let tree = Tree::new();
        tree.write("usr/sbin/sendmail", "mailwrapper");
        tree.write(file, "sendmail /usr/libexec/dma\n");
        tree.make("install", &["prefix=/usr"]);
        for _ in 0..2 {
            tree.make("install-sendmail", &["prefix=/usr"]);
            assert!(tree.read(file).contains("sendmail\t/usr/libexec/penfold/sendmail\n"), "{}", tree.read(file));
            assert_eq!(tree.read("usr/sbin/sendmail"), "mailwrapper");
        }
        tree.make("uninstall-sendmail", &["prefix=/usr"]);
        assert_eq!(tree.read(file), "sendmail /usr/libexec/dma\n");
        assert!(!tree.path(&format!("{file}.orig")).exists());
    }
}

#[test]
fn the_user_is_created_with_the_systems_own_tools() {
    for (has, commands) in [
        (
            &["systemd-sysusers", "systemd-tmpfiles", "useradd"][..],
            &["systemd-sysusers ", "systemd-tmpfiles --create "][..],
        ),
        (&["useradd", "pw"], &["useradd --system ", "install -d -o penfold "]),
        (&["pw"], &["pw useradd penfold ", "install -d -o penfold "]),
        (
            &["addgroup", "adduser"],
            &["addgroup -S penfold", "adduser -S -D -H -h /v/spool/penfold ", "install -d -o penfold "],
        ),
        (&[], &["create a user and a group penfold", "install -d -o penfold "]),
    ] {
        let tree = Tree::new();
        let bin = tree.site.path("bin");
        fs::create_dir(&bin).expect("a directory");
        let stub = |name: &str, script: &str| {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("a program");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("mode 755");
        };
        // In these stubs the user does not exist yet, and root runs make.
        stub("id", "[ \"$1\" = -u ] && echo 0");
        stub("install", ":");
        has.iter().for_each(|name| stub(name, ":"));
        for folder in ["sysusers.d", "tmpfiles.d"] {
            fs::write(tree.site.path(folder), "").expect("a file");
        }
        let run = |destination: &str| {
            let script = Path::new(SOURCE).join("etc/install.sh");
            let mut command = Command::new("/bin/sh");
            command.arg(script).arg("user").arg(tree.site.path("sysusers.d")).arg(tree.site.path("tmpfiles.d"));
            let output = command
                .env("PATH", &bin)
                .env("DESTDIR", destination)
                .env("SPOOL", "/v/spool/penfold")
                .output()
                .expect("it runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let printed = run("");
        let same = printed.len() == commands.len() && printed.iter().zip(commands).all(|(s, c)| s.starts_with(c));
        assert!(same, "{has:?}: {printed:#?}");
        // If the user exists, it is not created again.
        stub("id", "echo 0");
        assert_eq!(run("").len(), 1, "{has:?}");
    }
}

/// A script that makes a private view of the system, with overlays in which a test can change
/// everything.
const OVERLAYS: &str = r#"
set -e
mount -t tmpfs none "$1"
for part in usr etc var; do
    mkdir "$1/$part" "$1/$part.work"
    mount -t overlay overlay -o "lowerdir=/$part,upperdir=$1/$part,workdir=$1/$part.work" "/$part"
done
# Whatever this machine has of these.
rm -f /usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases /etc/mailer.conf /etc/mail/mailer.conf
sed -i '/^penfold:/d' /etc/passwd /etc/group /etc/shadow
"#;

/// Runs a script as root in the view of [`OVERLAYS`], with make as `$make`. Where that is not
/// possible, reports the test as skipped.
fn on_the_system(script: &str) {
    let tree = Tree::new();
    let scratch = tree.site.path("overlay");
    fs::create_dir(&scratch).expect("a directory");
    let probe = "mount -t tmpfs none \"$1\" && mkdir \"$1/u\" \"$1/w\" && \
        mount -t overlay overlay -o \"lowerdir=/etc,upperdir=$1/u,workdir=$1/w\" /etc";
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&scratch);
        command.stdin(Stdio::null()).env("CARGO_TARGET_DIR", tree.site.path("target"));
        command.env("make", format!("make -s -C {SOURCE} CARGO=false")).env_remove("MAKEFLAGS").env_remove("DESTDIR");
        command
    };
    if !nix::unistd::geteuid().is_root() || !unshare(probe).output().is_ok_and(|o| o.status.success()) {
        common::skipped("no overlays without root and unshare");
        return;
    }
    let output = unshare(&format!("{OVERLAYS}\n{script}")).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn an_installation_by_root_has_a_user_and_a_spool() {
    on_the_system(
        r#"set -x
        $make install
        id penfold
        test "$(stat -c %U:%a /var/spool/penfold)" = penfold:700
        test "$(/usr/local/sbin/penfoldd -V)" = "penfoldd /usr/local/sbin/penfoldd -V"
        $make install
        # What runs is not ended, but named, while its unit is there.
        mount -t tmpfs none /run
        mkdir -p /usr/local/bin /run/systemd/system
        PATH=/usr/local/bin:$PATH
        printf '#!/bin/sh\ntest "$1 $3" = "is-active penfold.service"\n' > /usr/local/bin/systemctl
        chmod 755 /usr/local/bin/systemctl
        ! $make uninstall 2> /var/said || exit 1
        grep 'still running or enabled; first, by root: systemctl disable --now penfold.service$' /var/said
        test -f /usr/local/lib/systemd/system/penfold.service
        test -x /usr/local/sbin/penfoldd
        # In a chroot it says that everything is active.
        printf '#!/bin/sh\ntest "$1" = is-active\n' > /usr/local/bin/systemctl
        rmdir /run/systemd/system
        $make uninstall
        rm /usr/local/bin/systemctl /var/said
        test ! -e /usr/local/sbin/penfoldd
        test -f /etc/penfold/penfold.conf
        test -d /var/spool/penfold"#,
    );
}

#[test]
fn uninstall_ends_a_daemon_without_a_unit() {
    let built = [env!("CARGO_BIN_EXE_penfoldd"), env!("CARGO_BIN_EXE_penfoldctl")].join(" ");
    on_the_system(&format!(
        r#"set -x
        $make install
        # The real ones, and no systemd.
        cp {built} /usr/local/sbin/
        mount -t tmpfs -o mode=755 none /run
        printf 'listen = []\nhostname = "web.example.org"\n' > /etc/penfold/penfold.conf
        trap 'kill "$(cat /run/penfold.pid)" || :' EXIT
        /usr/local/sbin/penfoldd -p /run/penfold.pid
        pid=$(cat /run/penfold.pid)
        ! $make uninstall 2> /var/said || exit 1
        grep 'penfoldd is still running; first, by root, stop it' /var/said
        test -x /usr/local/sbin/penfoldd
        test -x /usr/local/libexec/penfold/sendmail
        kill "$pid"
        while kill -0 "$pid"; do sleep 0.05; done
        trap - EXIT
        $make uninstall
        test ! -e /usr/local/sbin/penfoldd"#
    ));
}

/// The commands and keys of penfold-admin(7) set up mailboxes outside home directories.
#[test]
fn mail_for_every_local_domain_reaches_the_users_of_a_file() {
    let section = pages::section("penfold-admin.7", "INSTALLING");
    let (_, section) = section.split_once("\n.Ss Mailboxes outside home directories\n").expect("the subsection");
    let (section, _) = section.split_once("\n.Ss ").expect("its end");
    let blocks = pages::literals(section);
    let [commands, keys] = blocks.as_slice() else { panic!("{section}") };
    let commands: String = commands.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let built = [env!("CARGO_BIN_EXE_penfoldd"), env!("CARGO_BIN_EXE_penfoldctl")].join(" ");
    on_the_system(&format!(
        r#"set -x
        $make install
        cp {built} /usr/local/sbin/
        mount -t tmpfs -o mode=755 none /run
        chmod 2775 /var/mail
        {commands}
        echo you:: >> /etc/penfold/users
        cat > /etc/penfold/penfold.conf <<'END'
listen = []
hostname = "mx.example.org"
{keys}
domains = ["example.org", "mx.example.org", "localhost"]
END
        /usr/local/sbin/penfoldd -n
        trap 'kill "$(cat /run/penfold.pid)" || :' EXIT
        /usr/local/sbin/penfoldd -p /run/penfold.pid
        echo hello | /usr/local/libexec/penfold/sendmail you you@localhost you@mx.example.org
        turns=0
        until [ "$(find /var/mail/example.org -path '*/new/*' | wc -l)" = 3 ]; do
            turns=$((turns + 1))
            test $turns -lt 200 || {{ /usr/local/sbin/penfoldctl queue; exit 1; }}
            sleep 0.05
        done
        pid=$(cat /run/penfold.pid)
        kill "$pid"
        while kill -0 "$pid"; do sleep 0.05; done
        trap - EXIT"#
    ));
}

#[test]
fn sendmail_is_diverted_with_dpkg() {
    on_the_system(
        r#"command -v dpkg-divert || exit 0
        set -x
        echo old > /usr/sbin/sendmail
        $make install install-sendmail
        test "$(readlink -f /usr/sbin/sendmail)" = /usr/local/sbin/penfoldctl
        test "$(cat /usr/sbin/sendmail.orig)" = old
        test "$(dpkg-divert --truename /usr/sbin/sendmail)" = /usr/sbin/sendmail.orig
        test "$(dpkg-divert --truename /usr/bin/mailq)" = /usr/bin/mailq.orig
        $make install-sendmail
        # A package that comes now goes aside, and is there afterwards.
        echo new > "$(dpkg-divert --truename /usr/bin/mailq)"
        $make uninstall
        test "$(cat /usr/sbin/sendmail)" = old
        test "$(cat /usr/bin/mailq)" = new
        test ! -e /usr/bin/newaliases && test ! -h /usr/bin/newaliases
        test -z "$(dpkg-divert --listpackage /usr/sbin/sendmail)""#,
    );
}

#[test]
fn sendmail_is_replaced_by_alternatives_where_they_have_it() {
    replaces_alternatives(
        "update-alternatives --install /usr/sbin/sendmail mta /usr/bin/old-sendmail 90 \\
            --slave /usr/bin/mailq mta-mailq /usr/bin/old-mailq",
        "/usr/sbin/sendmail /usr/bin/mailq",
    );
}

/// The package sendmail of Debian has a group for the daemon and one for other programs. sendmail is a
/// slave of the latter, and mailq of the former.
#[test]
fn sendmail_is_replaced_beside_the_sendmail_of_debian() {
    replaces_alternatives(
        "update-alternatives --install /usr/sbin/sendmail-mta sendmail-mta /usr/bin/old-sendmail 25 \\
            --slave /usr/bin/mailq mailq /usr/bin/old-mailq
        update-alternatives --install /usr/sbin/sendmail-msp sendmail-msp /usr/bin/old-sendmail 25 \\
            --slave /usr/sbin/sendmail sendmail /usr/bin/old-sendmail \\
            --slave /usr/lib/sendmail lib.sendmail /usr/bin/old-sendmail",
        "/usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq",
    );
}

/// Makes alternatives, and replaces them at these places. Afterwards each place leads to the old program
/// of its name again.
fn replaces_alternatives(make: &str, places: &str) {
    on_the_system(
        &r#"command -v update-alternatives || exit 0
        set -x
        for name in sendmail mailq; do echo old > /usr/bin/old-$name; done
        ALTERNATIVES
        $make install install-sendmail
        for place in PLACES; do
            test "$(readlink -f $place)" = /usr/local/sbin/penfoldctl
            case $(readlink $place) in /etc/alternatives/*) ;; *) exit 1 ;; esac
        done
        $make install-sendmail
        $make uninstall-sendmail
        for place in PLACES; do
            test "$(readlink -f $place)" = /usr/bin/old-${place##*/}
        done
        $make uninstall-sendmail"#
            .replace("ALTERNATIVES", make)
            .replace("PLACES", places),
    );
}
