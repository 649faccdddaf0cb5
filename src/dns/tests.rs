//! Without a network: what is said where nobody can be asked.

use super::*;

#[test]
fn special_names_are_not_asked_for() {
    for (name, want) in [
        ("x.invalid", Some(NoAnswer::NxDomain)),
        ("onion", Some(NoAnswer::NxDomain)),
        ("localhost", Some(NoAnswer::NoData)),
        ("x.localhost", Some(NoAnswer::NoData)),
        ("notlocalhost", None),
        ("invalid.example", None),
    ] {
        assert_eq!(never_asked(name), want, "{name}");
    }
}

#[test]
fn addresses_come_by_turns() {
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
    let (six, four) = (addresses(&["::1", "::2", "::3"]), addresses(&["192.0.2.1"]));
    assert_eq!(by_turns(six.clone(), four), addresses(&["::1", "192.0.2.1", "::2", "::3"]));
    assert_eq!(by_turns(Vec::new(), six.clone()), six);
}
