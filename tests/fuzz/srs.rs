//! Rewritten senders: no text is taken for an address of this host that the host has not made, and
//! whatever can be rewritten is found again.

use super::{mutate, repeat};
use common::chance::Chance;
use penfold::address::Address;
use penfold::srs::{Secret, forward, is_rewritten, reverse};

const DAY: u64 = 86_400;

/// A local part from pieces that mean something in a rewritten address.
fn local(chance: &mut Chance) -> String {
    const PIECES: [&str; 14] =
        ["SRS0", "srs1", "=", "==", "+", "-", "AB", "ABCDEF", "x.test", "jon", "\"", "@", " ", "[192.0.2.1]"];
    (0..chance.of(1..9)).map(|_| *chance.pick(&PIECES)).collect()
}

#[test]
fn what_is_rewritten_is_found_again_and_nothing_else() {
    let secrets = [Secret::new(b"a secret"), Secret::new(b"an older secret")];
    repeat(|chance| {
        let now = chance.of(0..4000) as u64 * DAY;
        let text = local(chance);
        assert!(reverse(&secrets, &text, now).is_none(), "{text}");
        let domain = *chance.pick(&["x.test", "b-c.example.com", "SRS0.test"]);
        let Ok(sender) = Address::new(&text, domain) else { return };
        let secret = chance.pick(&secrets);
        let Some(rewritten) = forward(secret, &sender, "forwarder.test", now) else { return };
        // An address of this host goes through the syntax of SMTP and comes back.
        let parsed = Address::parse(&rewritten.to_string()).expect("an address");
        assert!(parsed == rewritten && is_rewritten(parsed.local()), "{rewritten}");
        let back = reverse(&secrets, parsed.local(), now + chance.of(0..21) as u64 * DAY).expect("it is valid");
        let again = forward(secret, &rewritten, "second.test", now).expect("a sender");
        if is_rewritten(sender.local()) && !back.to_string().eq_ignore_ascii_case(&sender.to_string()) {
            // The sender is at a further forwarder, and the bounce goes to the first.
            assert!(parsed.local().starts_with("SRS1="), "{sender} {rewritten} {back}");
        } else {
            assert!(back.to_string().eq_ignore_ascii_case(&sender.to_string()), "{sender} {rewritten} {back}");
        }
        assert!(again.local().starts_with("SRS1="), "{again}");
        // After a change, it is another spelling of the same address, or it is refused.
        let changed = String::from_utf8_lossy(&mutate(chance, parsed.local().as_bytes())).into_owned();
        if let Some(other) = reverse(&secrets, &changed, now) {
            assert!(other.to_string().eq_ignore_ascii_case(&back.to_string()), "{changed}: {other}");
        }
    });
}
