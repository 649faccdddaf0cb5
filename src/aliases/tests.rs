use super::*;

fn parse(text: &str) -> Result<Aliases, Vec<String>> {
    let errors = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect();
    Aliases::parse(Path::new("aliases"), text).map_err(errors)
}

/// The members of a name, as text: `\name` for direct ones, `!` before what is no address.
fn members_of(table: &Aliases, name: &str) -> Vec<String> {
    let written = |member: &Member| match member {
        Member::Address(address) => address.to_string(),
        Member::Direct(address) => format!("\\{address}"),
        Member::Run(text) => format!("!|{text}"),
        Member::File(text) => format!("!{text}"),
        Member::Include(text) => format!("!:{text}"),
    };
    table.find(name).unwrap_or_default().iter().map(written).collect()
}

#[test]
fn the_format_of_sendmail() {
    for (text, name, members) in [
        ("jon: mary", "jon", vec!["mary"]),
        ("Jon: Mary@X.org", "jon", vec!["Mary@x.org"]),
        ("jon : a , b,c\r\n", "jon", vec!["a", "b", "c"]),
        ("jon:a,\n  b,\n# a comment changes nothing\n\tc", "jon", vec!["a", "b", "c"]),
        ("jon:\n a\n , b", "jon", vec!["a", "b"]),
        ("jon: a, # the first\n  b # the last\n", "jon", vec!["a", "b"]),
        ("\n\n# top\n\n# more\njon: a\n   \n  # indented\n", "jon", vec!["a"]),
        ("jon: a#b@x", "jon", vec!["a#b@x"]),
        ("jon: a,, b,", "jon", vec!["a", "b"]),
        ("\"j: on\": a", "j: on", vec!["a"]),
        ("\"jon\": a", "jon", vec!["a"]),
        ("jon: \"a, #b\"@x, c", "jon", vec!["\"a, #b\"@x", "c"]),
        ("jon: \"a\\\", b\"@x, c", "jon", vec!["\"a\\\", b\"@x", "c"]),
        ("jon: \\jon, mary", "jon", vec!["\\jon", "mary"]),
        ("owner-list: a%b@c", "owner-list", vec!["a%b@c"]),
        ("p: |cat, \"|cat -n, x\", |\"cat, x\"", "p", vec!["!|cat", "!|cat -n, x", "!|cat, x"]),
        ("p: /dev/null, \"/a file\", :Include:/x", "p", vec!["!/dev/null", "!/a file", "!:/x"]),
        (r#"p: "|a \"b\" \\c", |a "b" 'c', "a" <b@x.org>"#, "p", vec![r#"!|a "b" \c"#, r#"!|a "b" 'c'"#, "b@x.org"]),
        ("p: \"/x\"@y.org", "p", vec!["/x@y.org"]),
    ] {
        assert_eq!(members_of(&parse(text).expect(text), name), members, "{text}");
    }
}

#[test]
fn every_error_has_its_line_and_column() {
    for (text, errors) in [
        ("jon mary", vec!["aliases:1:1: expected a name, a colon and addresses"]),
        ("jon mary\n  x\n", vec!["aliases:1:1: expected a name, a colon and addresses"]),
        ("  mary", vec!["aliases:1:3: a line that begins with a blank continues nothing"]),
        ("jon:", vec!["aliases:1:1: jon stands for nothing: expected an address"]),
        ("j on: a", vec!["aliases:1:1: there is text after the address"]),
        (": a", vec!["aliases:1:1: an address is missing"]),
        ("jon@x: a", vec!["aliases:1:1: the name of an alias has no domain; the virtual table is for whole addresses"]),
        ("a: x\n\nA: y", vec!["aliases:3:1: the alias a is already on line 1"]),
        ("a: x y", vec!["aliases:1:4: there is text after the address"]),
        ("a: b,\n  c d", vec!["aliases:2:3: there is text after the address"]),
        ("a: b\n  c", vec!["aliases:2:3: expected a comma between this line and the one before"]),
        ("a: b, \"c", vec!["aliases:1:7: the quotation mark has no end"]),
        ("a: b, \"|c", vec!["aliases:1:7: the quotation mark has no end"]),
        ("a: |", vec!["aliases:1:4: a command is missing"]),
        ("a: \"|\"", vec!["aliases:1:4: a command is missing"]),
        ("a: \"|x\0y\"", vec!["aliases:1:4: a command has a control character in it"]),
        ("a: :include:x", vec!["aliases:1:4: expected a path that begins with / after :include:"]),
        ("a: j\u{f6}n, b@@", vec!["aliases:1:4: the address is not in ASCII", "aliases:1:9: the domain is not valid"]),
    ] {
        assert_eq!(parse(text).expect_err(text), errors, "{text}");
    }
}

#[test]
fn a_ring_without_a_way_out_is_an_error_of_the_file() {
    for (text, errors) in [
        ("a: b\nb: A", vec!["aliases:1:1: alias loop: a -> b -> a"]),
        ("z: a\na: b\nb: c, a\nc: a\n", vec!["aliases:2:1: alias loop: a -> b -> c -> a"]),
        (
            "a: b\nb: a\nc: d\nd: c",
            vec!["aliases:1:1: alias loop: a -> b -> a", "aliases:3:1: alias loop: c -> d -> c"],
        ),
    ] {
        assert_eq!(parse(text).expect_err(text), errors, "{text}");
    }
    for text in ["a: a", "a: a, b\nb: a", "a: b\nb: a, x@y.org", "a: b\nb: \\a", "a: b, /x\nb: a", "a: b\nb: a@x.org"] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn long_chains_and_rings_need_no_stack() {
    let chain: String = (0..100_000).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
    assert!(parse(&chain).is_ok());
    let errors = parse(&format!("{chain}n100000: n0\n")).expect_err("a ring");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("aliases:1:1: alias loop: n0 -> n1 -> "));
}
