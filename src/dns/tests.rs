//! Tests of look-ups that need no network.

use super::*;

#[test]
fn no_server_is_asked_for_special_names() {
    for (name, want) in [
        ("x.invalid", Some(NoAnswer::NxDomain)),
        ("onion", Some(NoAnswer::NxDomain)),
        ("localhost", Some(NoAnswer::NoData)),
        ("x.localhost", Some(NoAnswer::NoData)),
        ("notlocalhost", None),
        ("invalid.example", None),
    ] {
        assert_eq!(special_name(name), want, "{name}");
    }
}

#[test]
fn addresses_of_both_families_alternate() {
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
    let (six, four) = (addresses(&["::1", "::2", "::3"]), addresses(&["192.0.2.1"]));
    assert_eq!(alternate(six.clone(), four), addresses(&["::1", "192.0.2.1", "::2", "::3"]));
    assert_eq!(alternate(Vec::new(), six.clone()), six);
}
