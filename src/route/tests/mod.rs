//! Tests expansions and routes, with tables in a scratch directory.

use std::fs;

use super::*;
use crate::config::{Local, MailboxTemplate, Relay, TableFile, Users as UsersSource};

mod any;
mod copies;
mod expand;
mod outward;
mod realms;
mod remote;
mod tables;

/// A scratch directory for tables, removed at the end of a test.
struct Site(PathBuf);

const USERS: &str = "jon::\nmary::\nann+lists::\nbob@second::\n";

impl Site {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("penfold-route-{}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("scratch directory");
        let site = Self(directory);
        site.write("users", USERS);
        site
    }

    fn write(&self, table: &str, text: &str) -> &Self {
        fs::write(self.0.join(table), text).expect("write");
        self
    }

    fn config(&self) -> Config {
        let table = |name: &str| TableFile { path: self.0.join(name), required: false };
        let mut config = crate::config::parse(Path::new("penfold.conf"), "hostname = \"razorback\"").expect("good");
        config.spool = "/spool".into();
        config.local = Local {
            domains: vec!["razorback".into(), "second".into(), "[192.0.2.1]".into()],
            users: UsersSource::File(self.0.join("users")),
            mailbox: MailboxTemplate::Maildir("/mail/{user}@{domain}".into()),
            aliases: table("aliases"),
            virtual_table: table("virtual"),
            subaddress: Some('+'),
            postmaster: "root".into(),
            catch_all: None,
            quota: None,
            refuses_over_quota: false,
        };
        config.relay = Relay { networks: Vec::new(), domains: vec!["backup.example".into()], ..config.relay };
        config.remote.routes = table("routes");
        config.remote.senders = table("senders");
        config.policy.always_bcc = table("copies");
        config
    }

    fn open(&self) -> Router {
        Router::open(&self.config(), &Rights::Alone).expect("good tables")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect(text)
}

/// Shows an expansion as text: the final recipients, or a word such as `unknown`.
fn expand(router: &Router, text: &str) -> String {
    match router.expand(&address(text)) {
        Expansion::Finals(finals) => finals.iter().map(|to| to.address.to_string()).collect::<Vec<_>>().join(" "),
        Expansion::Unknown => "unknown".into(),
        Expansion::Refused(status, why) => format!("refused {status} {why}"),
        Expansion::Temporary(why) => format!("unsure: {why}"),
    }
}

fn route(router: &Router, text: &str) -> String {
    shown(router.route(&address(text)))
}

/// Shows the route of a message from `sender` to a recipient; an empty sender is the null path.
fn route_from(router: &Router, sender: &str, recipient: &str) -> String {
    let sender = (!sender.is_empty()).then(|| address(sender));
    let mail = RoutedMail::from_sender(sender.as_ref());
    shown(router.route_of(&Recipient::new(address(recipient)), &mail))
}

fn shown(route: Route) -> String {
    match route {
        Route::Mailbox(mailbox) => mailbox.path.display().to_string(),
        Route::Unknown | Route::Command(..) | Route::List => "unknown".into(),
        Route::Refused(status, why) => format!("refused {status} {why}"),
        Route::Temporary(_, why) => format!("unsure: {why}"),
        Route::Discard(why) => format!("discard: {why}"),
        Route::Hold(why) => format!("hold: {why}"),
        route @ (Route::Remote(_) | Route::Replaced) => route.destination().to_string(),
    }
}

fn check(router: &Router, cases: &[(&str, &str)]) {
    for (given, finals) in cases {
        assert_eq!(expand(router, given), *finals, "{given}");
    }
}
