use std::fs;

use super::*;

thread_local! {
    /// The number of look-ups by a thread.
    pub(crate) static LOOKED_UP: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A users file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penfold-users-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("write");
        Self(path)
    }

    fn open(&self, template: &str) -> Result<Users, Vec<String>> {
        open(config::Users::File(self.0.clone()), template)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn open(users: config::Users, template: &str) -> Result<Users, Vec<String>> {
    let (users, errors) = begin(users, template);
    let text = |e: &ConfigError| format!("{}:{}: {}", e.line, e.column, e.text);
    if errors.is_empty() { Ok(users) } else { Err(errors.iter().map(text).collect()) }
}

fn begin(users: config::Users, template: &str) -> (Users, Vec<ConfigError>) {
    let absent = || TableFile { path: "/nonexistent".into(), required: false };
    let local = Local {
        domains: vec!["razorback".into()],
        users,
        mailbox: match Store::parse(template) {
            Some(store) => MailboxTemplate::Store(store.expect("a store")),
            None => MailboxTemplate::Maildir(template.to_owned()),
        },
        aliases: absent(),
        virtual_table: absent(),
        subaddress: None,
        postmaster: "root".into(),
        catch_all: None,
        quota: None,
        refuses_over_quota: false,
    };
    Users::begin(&local, &Rights::Alone, &mut Sources::default())
}

/// The path of the user's mailbox, or the store.
fn path(users: &Users, name: &str, domain: &str) -> Result<Option<PathBuf>, String> {
    let shown = |inbox| match inbox {
        Inbox::Mailbox(mailbox) => mailbox.path,
        Inbox::Store(store, _) => store.to_string().into(),
    };
    users.inbox(name, domain).map(|inbox| inbox.map(shown))
}

#[test]
fn a_mailbox_comes_from_the_line_or_the_template() {
    let text = "# the users\njon::\nMary::/mail/mary:box\n\"j on\"::\nmary@other::\n{domain}::\n";
    let scratch = Scratch::new("mailbox", text);
    let users = scratch.open("/var/mail/{domain}/{user}/{x}").expect("good");
    for (name, domain, mailbox) in [
        ("jon", "razorback", Some("/var/mail/razorback/jon/{x}")),
        ("jon", "other", Some("/var/mail/other/jon/{x}")),
        ("mary", "razorback", Some("/mail/mary:box")),
        ("mary", "other", Some("/var/mail/other/mary/{x}")),
        ("j on", "razorback", Some("/var/mail/razorback/j on/{x}")),
        ("{domain}", "razorback", Some("/var/mail/razorback/{domain}/{x}")),
        ("elvis", "razorback", None),
        ("mary@other", "razorback", None),
        ("", "razorback", None),
    ] {
        assert_eq!(path(&users, name, domain), Ok(mailbox.map(PathBuf::from)), "{name}@{domain}");
    }
}

#[test]
fn mail_goes_to_a_store_by_the_line_or_the_template() {
    let scratch = Scratch::new("store", "jon::\nmary::/mail/mary\nelvis::lmtp://Graceland\nsue::lmtp:run\n");
    let users = begin(config::Users::File(scratch.0.clone()), "lmtp:/run/lmtp").0;
    for (name, place) in [
        ("jon", Ok(Some("lmtp:/run/lmtp"))),
        ("mary", Ok(Some("/mail/mary"))),
        ("elvis", Ok(Some("lmtp://graceland:24"))),
        ("ann", Ok(None)),
        ("sue", Err("expected lmtp:/path")),
    ] {
        let found = path(&users, name, "razorback").map_err(|why| why.contains("expected lmtp:/path"));
        assert_eq!(found, place.map(|place| place.map(PathBuf::from)).map_err(|_| true), "{name}");
    }
    assert_eq!(users.roots(), [Path::new("/mail")]);
    // A user without a home directory needs none.
    let users = open(config::Users::System, "lmtp:/run/lmtp").expect("good");
    let inbox = users.inbox("root", "razorback").expect("a look-up").expect("root");
    assert!(inbox.is_roots() && matches!(inbox, Inbox::Store(..)));
}

#[test]
fn a_name_that_could_lead_out_of_a_directory_is_an_error() {
    let scratch = Scratch::new("climb", "../x::\na/b::\n..::\n.jon::\n\"../x\"::\n\"\"::\njon::\n");
    let errors = scratch.open("/var/mail/{user}").expect_err("bad");
    let lines: Vec<&str> = errors.iter().filter_map(|e| e.split(':').next()).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn every_error_has_its_place_and_repeats_no_secret() {
    let text = "jon:hush\njon:hush:mail\njon::\nj on:hush:\njon@x:hush:\nJON::/m\nelvis::\nELVIS::/m\n";
    let scratch = Scratch::new("errors", text);
    let errors = scratch.open("/m/{user}").expect_err("bad");
    let expected = [
        "1:1: expected name:secret:mailbox",
        "2:10: expected the path of a mailbox that begins with /, a store (lmtp:...), or nothing",
        "4:1: there is text after the address",
        "5:7: expected a secret that begins with {SCRAM-SHA-256}, {ARGON2ID} or {SHA512-CRYPT}, or nothing",
        "8:1: the user ELVIS is already on line 7",
    ];
    assert_eq!(errors, expected);
}

/// The limit of a user's line takes precedence, and a malformed one costs only the limit.
#[test]
fn a_quota_comes_from_the_line_or_the_configuration() {
    let text = "jon::\nmary:::quota=500M\nelvis::/graceland:quota=1048576\nann:::quota=none\nsue::lmtp://h:24:quota=1G\n\
                max::/a:b\neve:::quota=much\ntom:::quta=1G\nbob:::quota=1\n";
    let scratch = Scratch::new("quota", text);
    let (mut users, errors) = begin(config::Users::File(scratch.0.clone()), "/m/{user}");
    (users.quota, users.is_quota_final) = (Some(1 << 30), true);
    let errors: Vec<_> = errors.iter().map(|e| format!("{}:{}: {}", e.line, e.column, e.text)).collect();
    let expected = [
        "7:7: expected a size, such as \"500M\" or \"1G\", or \"none\"",
        "8:7: expected quota= with a size, such as quota=1G",
        "9:7: expected a size of at least 64K and at most 65536G",
    ];
    assert_eq!(errors, expected);
    for (name, place, limit) in [
        ("jon", "/m/jon", Some(1 << 30)),
        ("mary", "/m/mary", Some(500 << 20)),
        ("elvis", "/graceland", Some(1 << 20)),
        ("ann", "/m/ann", None),
        ("sue", "lmtp://h:24", None),
        ("max", "/a:b", Some(1 << 30)),
        ("eve", "/m/eve", Some(1 << 30)),
    ] {
        assert_eq!(path(&users, name, "razorback"), Ok(Some(place.into())), "{name}");
        let Ok(Some(inbox)) = users.inbox(name, "razorback") else { panic!("{name}") };
        let quota = if let Inbox::Mailbox(mailbox) = inbox { mailbox.quota } else { None };
        assert_eq!(quota.map(|quota| quota.limit), limit, "{name}");
        assert!(
            quota.is_none_or(|quota| quota.is_final && quota.is_own == ["mary", "elvis"].contains(&name)),
            "{name}"
        );
    }
    assert!(users.have_quotas() && users.have_maildirs());
    let vain: Vec<_> = users.vain_quotas().iter().map(|error| error.line).collect();
    assert_eq!(vain, [5]);
    // An mbox file has no quota.
    users.template = MailboxTemplate::Mbox("/m/{user}".into());
    let Ok(Some(Inbox::Mailbox(mailbox))) = users.inbox("jon", "razorback") else { panic!("jon") };
    assert_eq!(mailbox.quota, None);
    let vain: Vec<_> = users.vain_quotas().iter().map(|error| error.line).collect();
    assert_eq!(vain, [2, 5]);
}

#[test]
fn a_missing_users_file_is_an_error() {
    let errors = open(config::Users::File("/nonexistent/users".into()), "/m/{user}").expect_err("absent");
    assert_eq!(errors.len(), 1);
}

#[test]
fn users_of_the_system_have_homes_and_safe_names() {
    let users = open(config::Users::System, "~/Maildir").expect("good");
    let root = nix::unistd::User::from_name("root").expect("asked").expect("root").dir;
    assert_eq!(path(&users, "root", "razorback"), Ok(Some(root.join("Maildir"))));
    for name in ["no-such-user-here", "../root", "/root", ".root", "-root", "", "root\0"] {
        assert_eq!(path(&users, name, "razorback"), Ok(None), "{name}");
    }
    let users = open(config::Users::System, "/var/mail/{domain}/{user}").expect("good");
    assert_eq!(path(&users, "root", "razorback"), Ok(Some("/var/mail/razorback/root".into())));
}

/// A malformed line removes its user's rights, and mail for that user waits.
#[test]
fn a_malformed_line_affects_one_user() {
    let text = "jon::\nmary:hush:/mail/mary\nann\npaul::/a\npaul::/b\nelvis::/e\nelvis::/e\nx::m\n\
                sue@other::\nsue@ot her::\nsue::\nJ\u{f6}n::\nmax::/\u{fffd}\n";
    let scratch = Scratch::new("wrong", text);
    let users = begin(config::Users::File(scratch.0.clone()), "/m/{user}").0;
    for (name, domain, mailbox) in [
        ("jon", "razorback", Ok(Some("/m/jon"))),
        ("mary", "razorback", Ok(Some("/mail/mary"))),
        ("elvis", "razorback", Ok(Some("/e"))),
        ("sue", "other", Ok(Some("/m/sue"))),
        ("nobody", "razorback", Ok(None)),
        ("ann", "razorback", Err("3:1: expected name:secret:mailbox")),
        ("paul", "razorback", Err("5:1: the user paul is already on line 4")),
        (
            "x",
            "razorback",
            Err("8:4: expected the path of a mailbox that begins with /, a store (lmtp:...), or nothing"),
        ),
        // Line 10 may be meant for any domain, so it also affects sue@razorback, although line 11
        // is good.
        ("sue", "razorback", Err("10:1: there is text after the address")),
        ("max", "razorback", Err("13:7: expected text in UTF-8")),
    ] {
        let found = path(&users, name, domain).map_err(|why| why.split_once(':').expect("a place").1.to_owned());
        assert_eq!(found, mailbox.map(|path| path.map(PathBuf::from)).map_err(str::to_owned), "{name}@{domain}");
    }
    let unreadable = begin(config::Users::File("/nonexistent/users".into()), "/m/{user}").0;
    assert!(path(&unreadable, "jon", "razorback").is_err());
}
