//! SASL exchanges: random and mutated responses, challenges, answers of Dovecot and secrets.
//!
//! Nothing panics, no client is accepted without the password, and an undisturbed exchange
//! succeeds with any name and password.

use penfold::dovecot::userdb::{self, Found};
use penfold::sasl::client::Client;
use penfold::sasl::dovecot;
use penfold::sasl::secret::{Scram, Secret};
use penfold::sasl::server::{Abilities, Account, Accounts, Server, Step};
use penfold::sasl::{Mechanism, complete};

use super::{mutate, repeat};

const PASSWORD: &str = "pencil";

struct One(Secret);

impl Accounts for One {
    fn find(&self, name: &str) -> Option<Account> {
        (name == "jon@here").then(|| Account { login: name.to_owned(), secret: self.0.clone() })
    }

    fn qualify(&self, name: &str) -> String {
        complete(name, "here")
    }

    fn domain(&self, _: &str) -> Option<String> {
        Some("razorback".to_owned())
    }

    fn kinds(&self) -> Vec<Secret> {
        vec![self.0.clone()]
    }

    fn abilities(&self) -> Abilities {
        Abilities { login: true, scram: true }
    }
}

fn one() -> One {
    let text = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    One(Secret::parse(text).expect("good"))
}

const MECHANISMS: [Mechanism; 4] =
    [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];

#[test]
fn mutated_responses_without_the_password_are_not_accepted() {
    let one = one();
    repeat(|chance| {
        let mechanism = MECHANISMS[chance.of(0..4)];
        let binding = (chance.percent(50)).then(|| b"binding".to_vec());
        let mut server = Server::new(&one, mechanism, binding);
        // The client has everything but the password. Its own password is so different from the
        // right one that no mutation of a response is right.
        let mut client = Client::new(
            if mechanism == Mechanism::ScramSha256Plus { Mechanism::ScramSha256 } else { mechanism },
            "jon",
            "XXXXXXXX",
        )
        .expect("usable");
        let mut response = if chance.percent(25) { None } else { client.step(None).ok() };
        for _ in 0..6 {
            if let Some(response) = response.as_mut().filter(|_| chance.percent(50)) {
                *response = if chance.of(0..8) == 0 { chance.octets(0..200) } else { mutate(chance, response) };
            }
            match server.step(response.as_deref()) {
                Step::Challenge(challenge) => response = client.step(Some(&challenge)).ok().or(Some(Vec::new())),
                Step::Accepted(login) => panic!("{login} by {mechanism} with {response:?}"),
                Step::Rejected | Step::Blocked | Step::Malformed | Step::Temporary(_) => break,
            }
        }
        // The exchange is over, so the server accepts no further response, not even the right
        // password.
        if !matches!(server.step(Some(b"\0jon\0pencil")), Step::Challenge(_)) {
            assert_eq!(server.step(Some(b"")), Step::Malformed);
        }
    });
}

#[test]
fn a_client_survives_every_challenge() {
    let one = one();
    repeat(|chance| {
        let mechanism =
            [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2][chance.of(0..4)];
        let mut client = Client::new(mechanism, "jon", PASSWORD).expect("usable");
        let mut server = Server::new(&one, mechanism, None);
        let (mut response, mut accepted) = (client.step(None).ok(), false);
        for _ in 0..4 {
            let mut challenge = match server.step(response.as_deref()) {
                Step::Challenge(challenge) => challenge,
                step => {
                    accepted = matches!(step, Step::Accepted(_));
                    break;
                }
            };
            if chance.percent(50) {
                challenge = if chance.percent(25) { chance.octets(0..200) } else { mutate(chance, &challenge) };
            }
            response = client.step(Some(&challenge)).ok();
            if response.is_none() {
                break;
            }
        }
        let is_fooled = mechanism == Mechanism::ScramSha256 && client.is_done() && !accepted;
        assert!(!is_fooled, "a server is accepted without a proof");
    });
}

#[test]
fn an_undisturbed_exchange_succeeds_with_any_name_and_password() {
    const LETTERS: [char; 10] = ['a', 'Z', '=', ',', ' ', '@', '\u{fc}', '\u{2168}', '%', '"'];
    repeat(|chance| {
        let mut text = || -> String { (0..1 + chance.of(0..12)).map(|_| LETTERS[chance.of(0..10)]).collect() };
        let (name, password, wrong) = (text(), text(), text());
        struct All(Secret);
        impl Accounts for All {
            fn find(&self, name: &str) -> Option<Account> {
                Some(Account { login: name.to_owned(), secret: self.0.clone() })
            }
            fn qualify(&self, name: &str) -> String {
                name.to_owned()
            }

            fn domain(&self, _: &str) -> Option<String> {
                Some("razorback".to_owned())
            }
            fn kinds(&self) -> Vec<Secret> {
                Vec::new()
            }
            fn abilities(&self) -> Abilities {
                Abilities { login: true, scram: true }
            }
        }
        let line = Scram::make(&password).expect("a password").to_string();
        let all = All(Secret::parse(&line).expect("made here"));
        assert!(
            !all.0.verify(wrong.as_bytes()) || wrong.replace('\u{2168}', "IX") == password.replace('\u{2168}', "IX")
        );
        for mechanism in [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login] {
            let (mut server, mut client) =
                (Server::new(&all, mechanism, None), Client::new(mechanism, &name, &password).expect("usable"));
            let mut response = client.has_initial_response().then(|| client.step(None).expect("a response"));
            let end = loop {
                match server.step(response.as_deref()) {
                    Step::Challenge(challenge) => response = Some(client.step(Some(&challenge)).expect("a response")),
                    step => break step,
                }
            };
            assert!(matches!(end, Step::Accepted(_)) && client.is_done(), "{mechanism} {name:?} {password:?}: {end:?}");
        }
    });
}

#[test]
fn any_answer_of_dovecot_and_any_secret_is_survived() {
    const CORPUS: [&[u8]; 13] = [
        b"CONT\t1\tcj0x",
        b"OK\t1\tuser=jon\tresp=eD0x",
        b"FAIL\t1\tuser=jon\ttemp\tcode=temp_fail",
        b"MECH\tPLAIN\tplaintext",
        b"USER\t1\tjon\tuid=5000\tgid=5000\thome=/srv/mail/jon\tquota_rule=*:storage=1G",
        b"NOTFOUND\t1",
        b"FAIL\t1\treason=no LDAP",
        b"VERSION\t1\t2",
        b"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        b"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$pejGJjXX8NmZ+2mokctjSA$xmRrjNEalgQ+EgvYsaUKFZMxR3ae8JSuhsFFxCTLuoA",
        b"{SHA512-CRYPT}$6$rounds=1000$saltstring$Dst5SzMCiLiSWQN0EnEgf8DNbHOJRybf7gWFoq4HhaAWnZcpnsBwYgTSajPGyhfsjkr51qmiDafX//8bUiGTO1",
        b"{PLAIN}x",
        b"",
    ];
    repeat(|chance| {
        let seed = CORPUS[chance.of(0..CORPUS.len())];
        let text = mutate(chance, seed);
        if let Some(dovecot::Answer::Accepted(user)) = dovecot::answer(&text) {
            assert!(!user.is_empty() && !user.contains(char::is_control), "{user:?}");
        }
        if let Some(userdb::Answer::User(Found { home: Some(home), .. })) = userdb::answer(&text) {
            let home = home.to_str().expect("UTF-8");
            assert!(!home.contains(char::is_control), "{home:?}");
        }
        let text = String::from_utf8_lossy(&text);
        // If a secret is accepted, the cost of checking it is bounded, and the check never panics.
        if let Ok(secret) = Secret::parse(&text)
            && chance.of(0..2000) == 0
        {
            secret.verify(b"stencil");
        }
    });
}
