//! Tests of exchanges with `sasl::client`, and with clients that cheat.

use super::*;
use crate::sasl::client::Client;

const CRYPT: &str =
    "{SHA512-CRYPT}$6$saltsalt$rD9fW1BwIrjB90WCgCTdIQc3phTBhf04I6Iw/XlgKD9E9aEbzqGZipjiFxGo/4wWXDA6jV6/vZO.kKdDSfUJb0";

/// Accounts for the tests. The accounts `jon` and `crypt` have the password "pencil"; only the
/// secret of `jon` can be used with SCRAM.
struct Table(Scram);

impl Accounts for Table {
    fn find(&self, name: &str) -> Option<Account> {
        let login = self.qualify(name);
        let secret = match login.as_str() {
            "jon@here" | "a,=b@here" => Secret::Scram(self.0.clone()),
            "crypt@here" => Secret::parse(CRYPT).expect("good"),
            _ => return None,
        };
        Some(Account { login, secret })
    }

    fn qualify(&self, name: &str) -> String {
        crate::sasl::complete(name, "here")
    }

    fn domain(&self, _: &str) -> Option<String> {
        Some("here".to_owned())
    }

    fn kinds(&self) -> Vec<Secret> {
        vec![Secret::Scram(self.0.clone())]
    }

    fn abilities(&self) -> Abilities {
        Abilities { login: true, scram: true }
    }
}

fn table() -> Table {
    let Ok(Secret::Scram(scram)) = Secret::parse(
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ) else {
        panic!("it is a good secret");
    };
    Table(scram)
}

/// Authenticates with `sasl::client`.
fn log_in(table: &Table, mechanism: Mechanism, name: &str, password: &str) -> Step {
    let mut server = Server::new(table, mechanism, None);
    let mut client = Client::new(mechanism, name, password).expect("usable");
    let mut response = client.has_initial_response().then(|| client.step(None).expect("a response"));
    loop {
        match server.step(response.as_deref()) {
            Step::Challenge(challenge) => response = Some(client.step(Some(&challenge)).expect("a response")),
            step => {
                assert_eq!(client.is_done(), matches!(step, Step::Accepted(_)) || mechanism != Mechanism::ScramSha256);
                return step;
            }
        }
    }
}

#[test]
fn every_mechanism_accepts_the_password() {
    let table = table();
    let good = |login: &str| Step::Accepted(login.to_owned());
    for mechanism in [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login] {
        assert_eq!(log_in(&table, mechanism, "jon", "pencil"), good("jon@here"), "{mechanism}");
        assert_eq!(log_in(&table, mechanism, "JON@here", "pencil"), good("jon@here"), "{mechanism}");
        assert_eq!(log_in(&table, mechanism, "a,=b", "pencil"), good("a,=b@here"), "{mechanism}");
        assert_eq!(log_in(&table, mechanism, "jon", "Pencil"), Step::Rejected, "{mechanism}");
        assert_eq!(log_in(&table, mechanism, "nobody", "pencil"), Step::Rejected, "{mechanism}");
        let crypt = log_in(&table, mechanism, "crypt", "pencil");
        assert_eq!(crypt == good("crypt@here"), mechanism != Mechanism::ScramSha256, "{mechanism}");
    }
}

#[test]
fn plain_is_parsed_strictly() {
    let table = table();
    for (text, wanted) in [
        ("\0jon\0pencil", Step::Accepted("jon@here".to_owned())),
        ("jon\0jon\0pencil", Step::Accepted("jon@here".to_owned())),
        ("jon@here\0JON\0pencil", Step::Accepted("jon@here".to_owned())),
        ("crypt\0jon\0pencil", Step::Rejected),
        ("\0jon\0", Step::Malformed),
        ("\0\0pencil", Step::Malformed),
        ("jon\0pencil", Step::Malformed),
        ("\0jon\0pencil\0", Step::Malformed),
        ("\0j\u{7}on\0pencil", Step::Malformed),
        ("", Step::Malformed),
    ] {
        let mut server = Server::new(&table, Mechanism::Plain, None);
        assert_eq!(server.step(None), Step::Challenge(Vec::new()));
        assert_eq!(server.step(Some(text.as_bytes())), wanted, "{text:?}");
        assert_eq!(server.step(Some(b"\0jon\0pencil")), Step::Malformed, "it is over");
    }
}

/// Begins an exchange with the message `text`, and returns the server's step. `binding` is the
/// channel binding.
fn first(mechanism: Mechanism, binding: Option<&[u8]>, text: &str) -> Step {
    Server::new(&table(), mechanism, binding.map(<[u8]>::to_vec)).step(Some(text.as_bytes()))
}

#[test]
fn a_client_that_did_not_see_the_offer_of_binding_is_refused() {
    use Mechanism::{ScramSha256, ScramSha256Plus};
    let bound = Some(&b"binding"[..]);
    for (mechanism, binding, flag, goes_on) in [
        (ScramSha256, None, "n", true),
        (ScramSha256, None, "y", true),
        (ScramSha256, bound, "n", true),
        (ScramSha256, bound, "y", false),
        (ScramSha256, bound, "p=tls-exporter", false),
        (ScramSha256Plus, bound, "p=tls-exporter", true),
        (ScramSha256Plus, bound, "p=tls-unique", false),
        (ScramSha256Plus, bound, "p=", false),
        (ScramSha256Plus, bound, "n", false),
        (ScramSha256Plus, bound, "y", false),
    ] {
        let step = first(mechanism, binding, &format!("{flag},,n=jon,r=abc"));
        assert_eq!(matches!(step, Step::Challenge(_)), goes_on, "{mechanism} {flag}: {step:?}");
    }
}

/// Makes a SCRAM exchange without `sasl::client`, with this flag and this value of the attribute
/// `c=`.
fn bound_by(mechanism: Mechanism, flag: &str, bound: &[u8]) -> Step {
    let table = table();
    let mut server = Server::new(&table, mechanism, Some(b"binding".to_vec()));
    let Step::Challenge(challenge) = server.step(Some(format!("{flag},,n=jon,r=abc").as_bytes())) else {
        return Step::Malformed;
    };
    let challenge = String::from_utf8(challenge).expect("ASCII");
    let nonce = scram::value(challenge.split(',').next(), 'r').expect("a nonce");
    let without = format!("c={},r={nonce}", BASE64.encode(bound));
    let message = format!("n=jon,r=abc,{challenge},{without}");
    let salted = scram::salted(b"pencil", &table.0.salt, table.0.iterations);
    let proof = BASE64.encode(&scram::proof(&salted, message.as_bytes()));
    match server.step(Some(format!("{without},p={proof}").as_bytes())) {
        Step::Challenge(last) => {
            let signature = scram::sign(&table.0.keys.server, message.as_bytes());
            assert_eq!(String::from_utf8_lossy(&last), format!("v={}", BASE64.encode(&signature)));
            server.step(Some(b""))
        }
        step => step,
    }
}

#[test]
fn the_binding_must_match_the_connection() {
    let good = Step::Accepted("jon@here".to_owned());
    assert_eq!(bound_by(Mechanism::ScramSha256Plus, "p=tls-exporter", b"p=tls-exporter,,binding"), good);
    assert_eq!(bound_by(Mechanism::ScramSha256Plus, "p=tls-exporter", b"p=tls-exporter,,another"), Step::Rejected);
    assert_eq!(bound_by(Mechanism::ScramSha256Plus, "p=tls-exporter", b"p=tls-exporter,,"), Step::Rejected);
    assert_eq!(bound_by(Mechanism::ScramSha256, "n", b"n,,"), good);
    assert_eq!(bound_by(Mechanism::ScramSha256, "n", b"y,,"), Step::Rejected);
}

#[test]
fn an_unknown_account_looks_like_a_known_one() {
    let challenge = |name: &str| match first(Mechanism::ScramSha256, None, &format!("n,,n={name},r=abc")) {
        Step::Challenge(challenge) => String::from_utf8(challenge).expect("ASCII"),
        step => panic!("{step:?}"),
    };
    let (real, nobody, crypt) = (challenge("jon"), challenge("nobody"), challenge("crypt"));
    let rest = |text: &str| text.split_once(',').map(|(_, rest)| rest.to_owned()).expect("more");
    assert_eq!((real.len(), rest(&real).len()), (nobody.len(), rest(&nobody).len()));
    assert_eq!(rest(&nobody), rest(&challenge("NOBODY@here")), "the salt stays the same");
    assert!(rest(&nobody) != rest(&crypt) && rest(&nobody) != rest(&real));
    assert!(nobody.ends_with(",i=4096"));
}

#[test]
fn malformed_first_messages_are_rejected() {
    for text in [
        "",
        "n",
        "n,,",
        "n,,n=jon",
        "n,,n=jon,r=",
        "n,,n=,r=abc",
        "n,,n=jo=n,r=abc",
        "n,,m=x,n=jon,r=abc",
        "n,jon,n=jon,r=abc",
        "x,,n=jon,r=abc",
        "n,,n=jon,r=a\u{fc}",
        "n,a=crypt,n=jon,r=abc",
    ] {
        let step = first(Mechanism::ScramSha256, None, text);
        assert!(matches!(step, Step::Malformed | Step::Rejected), "{text:?}: {step:?}");
    }
    assert_eq!(Server::new(&table(), Mechanism::Plain, None).step(Some(b"\0jon\0\xff")), Step::Rejected);
    assert_eq!(Server::new(&table(), Mechanism::Plain, None).step(Some(b"\0\xff\0x")), Step::Malformed);
}

#[test]
fn a_blocked_client_learns_nothing() {
    use crate::sasl::throttle::{MAX_PER_ACCOUNT, Throttle};
    let (table, throttle) = (table(), Throttle::default());
    for _ in 0..MAX_PER_ACCOUNT {
        let _ = throttle.failed(None, "jon@here");
    }
    for password in ["pencil", "stencil"] {
        for mechanism in [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login] {
            let mut server = Server::new(&table, mechanism, None).guarded(&throttle, None);
            let mut client = Client::new(mechanism, "jon", password).expect("usable");
            let mut response = client.step(None).ok();
            let mut answer = server.step(None);
            // The exchange ends when the client has sent the name: in its first or second response.
            for _ in 0..2 {
                if matches!(answer, Step::Challenge(_)) {
                    answer = server.step(response.as_deref());
                    if let Step::Challenge(challenge) = &answer {
                        response = client.step(Some(challenge)).ok();
                    }
                }
            }
            assert_eq!(answer, Step::Blocked, "{mechanism} {password}");
        }
    }
}
