//! SASL under fire: random and mutated responses, challenges, answers of Dovecot and
//! secrets, for `PENFOLD_FUZZ` seconds each, three by default.
//!
//! The seed is printed where a test fails, and `PENFOLD_FUZZ_SEED` makes the same
//! choices again. Nothing panics; nobody is let in without the password; an exchange
//! that nobody disturbed ends well, whatever name and password.

use std::env;
use std::time::{Duration, Instant, SystemTime};

use penfold::sasl::client::Client;
use penfold::sasl::dovecot;
use penfold::sasl::secret::{Scram, Secret};
use penfold::sasl::server::{Abilities, Account, Accounts, Server, Step};
use penfold::sasl::{Mechanism, complete};

const PASSWORD: &str = "pencil";

struct One(Secret);

impl Accounts for One {
    fn find(&self, name: &str) -> Option<Account> {
        (name == "jon@here").then(|| Account { login: name.to_owned(), secret: self.0.clone() })
    }

    fn qualify(&self, name: &str) -> String {
        complete(name, "here")
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

/// Choices that a seed makes (xorshift64*).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let seed = env::var("PENFOLD_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
        println!("PENFOLD_FUZZ_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// The text with some octets changed, dropped, doubled or put in.
    fn mutate(&mut self, text: &[u8]) -> Vec<u8> {
        const SPICE: &[u8] = b"\0\t\n\r ,=%{}$\x01\xff\x80pnyracvise0189AZ";
        let mut text = text.to_vec();
        for _ in 0..1 + self.below(4) {
            let (at, octet) = (self.below(text.len() + 1), SPICE[self.below(SPICE.len())]);
            match self.below(6) {
                0 => text.insert(at, octet),
                1 if at < text.len() => text[at] = octet,
                2 if at < text.len() => drop(text.remove(at)),
                3 => text.truncate(at),
                4 => text.extend_from_within(at..),
                _ if at < text.len() => text[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        text
    }

    /// Anything at all.
    fn noise(&mut self) -> Vec<u8> {
        (0..self.below(200)).map(|_| self.below(256) as u8).collect()
    }
}

/// Does it again and again for as long as is wanted.
fn repeat(mut this: impl FnMut(&mut Chance)) {
    let seconds = env::var("PENFOLD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let (mut chance, end) = (Chance::new(), Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        this(&mut chance);
    }
}

const MECHANISMS: [Mechanism; 4] =
    [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];

#[test]
fn nobody_gets_in_by_mutated_responses() {
    let one = one();
    repeat(|chance| {
        let mechanism = MECHANISMS[chance.below(4)];
        let binding = (chance.below(2) == 0).then(|| b"binding".to_vec());
        let mut server = Server::new(&one, mechanism, binding);
        // Who does not know the password, but all else. What he says instead is so far from it
        // that no mutation makes it right.
        let mut client = Client::new(
            if mechanism == Mechanism::ScramSha256Plus { Mechanism::ScramSha256 } else { mechanism },
            "jon",
            "XXXXXXXX",
        )
        .expect("usable");
        let mut said = if chance.below(4) == 0 { None } else { client.step(None).ok() };
        for _ in 0..6 {
            if let Some(said) = said.as_mut().filter(|_| chance.below(2) == 0) {
                *said = if chance.below(8) == 0 { chance.noise() } else { chance.mutate(said) };
            }
            match server.step(said.as_deref()) {
                Step::Challenge(challenge) => said = client.step(Some(&challenge)).ok().or(Some(Vec::new())),
                Step::Accepted(login) => panic!("{login} by {mechanism} with {said:?}"),
                Step::Rejected | Step::Blocked | Step::Malformed | Step::Temporary(_) => break,
            }
        }
        // It is over, whatever comes.
        if !matches!(server.step(Some(b"\0jon\0pencil")), Step::Challenge(_)) {
            assert_eq!(server.step(Some(b"")), Step::Malformed);
        }
    });
}

#[test]
fn a_client_bears_every_challenge() {
    let one = one();
    repeat(|chance| {
        let mechanism =
            [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2][chance.below(4)];
        let mut client = Client::new(mechanism, "jon", PASSWORD).expect("usable");
        let mut server = Server::new(&one, mechanism, None);
        let (mut said, mut accepted) = (client.step(None).ok(), false);
        for _ in 0..4 {
            let mut challenge = match server.step(said.as_deref()) {
                Step::Challenge(challenge) => challenge,
                step => {
                    accepted = matches!(step, Step::Accepted(_));
                    break;
                }
            };
            if chance.below(2) == 0 {
                challenge = if chance.below(4) == 0 { chance.noise() } else { chance.mutate(&challenge) };
            }
            said = client.step(Some(&challenge)).ok();
            if said.is_none() {
                break;
            }
        }
        let is_fooled = mechanism == Mechanism::ScramSha256 && client.is_done() && !accepted;
        assert!(!is_fooled, "a server that proved nothing is believed");
    });
}

#[test]
fn an_exchange_that_nobody_disturbs_ends_well() {
    const LETTERS: [char; 10] = ['a', 'Z', '=', ',', ' ', '@', '\u{fc}', '\u{2168}', '%', '"'];
    repeat(|chance| {
        let mut text = || -> String { (0..1 + chance.below(12)).map(|_| LETTERS[chance.below(10)]).collect() };
        let (name, password, wrong) = (text(), text(), text());
        struct All(Secret);
        impl Accounts for All {
            fn find(&self, name: &str) -> Option<Account> {
                Some(Account { login: name.to_owned(), secret: self.0.clone() })
            }
            fn qualify(&self, name: &str) -> String {
                name.to_owned()
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
            let mut said = client.speaks_first().then(|| client.step(None).expect("a response"));
            let end = loop {
                match server.step(said.as_deref()) {
                    Step::Challenge(challenge) => said = Some(client.step(Some(&challenge)).expect("a response")),
                    step => break step,
                }
            };
            assert!(matches!(end, Step::Accepted(_)) && client.is_done(), "{mechanism} {name:?} {password:?}: {end:?}");
        }
    });
}

#[test]
fn answers_of_dovecot_and_secrets_may_be_anything() {
    const CORPUS: [&[u8]; 10] = [
        b"CONT\t1\tcj0x",
        b"OK\t1\tuser=jon\tresp=eD0x",
        b"FAIL\t1\tuser=jon\ttemp\tcode=temp_fail",
        b"MECH\tPLAIN\tplaintext",
        b"VERSION\t1\t2",
        b"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        b"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$pejGJjXX8NmZ+2mokctjSA$xmRrjNEalgQ+EgvYsaUKFZMxR3ae8JSuhsFFxCTLuoA",
        b"{SHA512-CRYPT}$6$rounds=1000$saltstring$Dst5SzMCiLiSWQN0EnEgf8DNbHOJRybf7gWFoq4HhaAWnZcpnsBwYgTSajPGyhfsjkr51qmiDafX//8bUiGTO1",
        b"{PLAIN}x",
        b"",
    ];
    repeat(|chance| {
        let seed = CORPUS[chance.below(CORPUS.len())];
        let text = chance.mutate(seed);
        if let Some(dovecot::Answer::Good(user)) = dovecot::answer(&text) {
            assert!(!user.is_empty() && !user.contains(char::is_control), "{user:?}");
        }
        let text = String::from_utf8_lossy(&text);
        // What is accepted costs no more than is good, and never panics.
        if let Ok(secret) = Secret::parse(&text)
            && chance.below(2000) == 0
        {
            secret.verify(b"stencil");
        }
    });
}
