use super::*;

fn parse(text: &str) -> Result<Aliases, Vec<String>> {
    let errors = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect();
    Aliases::parse(Path::new("aliases"), text).map_err(errors)
}

/// Returns the members of an alias as text. A direct address begins with `\`, and a member that is
/// not an address with `!`.
fn members_of(table: &Aliases, name: &str) -> Vec<String> {
    let written = |member: &Member| match member {
        Member::Address(address) => address.to_string(),
        Member::Direct(address) => format!("\\{address}"),
        Member::Run(text) => format!("!|{text}"),
        Member::File(text) => format!("!{text}"),
        Member::Include(text) => format!("!:{text}"),
    };
    table.find(name).expect(name).unwrap_or_default().iter().map(written).collect()
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
        ("www: \"admin@company.example\"", "www", vec!["admin@company.example"]),
        ("p: a (b, c), \"Doe, J\" <d@x.org>, e (#1) # f", "p", vec!["a", "d@x.org", "e"]),
        ("\u{feff}jon: a\r\nmary: b\r\n", "jon", vec!["a"]),
    ] {
        assert_eq!(members_of(&parse(text).expect(text), name), members, "{text}");
    }
}

#[test]
fn every_error_has_its_line_and_column() {
    for (text, errors) in [
        ("jon mary", vec!["aliases:1:1: expected a name, a colon and addresses"]),
        ("jon mary\n  x\n", vec!["aliases:1:1: expected a name, a colon and addresses"]),
        ("  mary", vec!["aliases:1:3: a continuation line needs an entry above it"]),
        ("jon:", vec!["aliases:1:1: jon has no members: expected an address"]),
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
        (
            "a: j\u{85}n, b@@",
            vec!["aliases:1:4: the part before the @ is not a valid name", "aliases:1:9: the domain is not valid"],
        ),
    ] {
        assert_eq!(parse(text).expect_err(text), errors, "{text}");
    }
}

#[test]
fn a_loop_that_no_member_leaves_is_an_error_of_the_file() {
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
fn long_chains_and_loops_need_no_stack() {
    let chain: String = (0..100_000).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
    assert!(parse(&chain).is_ok());
    let errors = parse(&format!("{chain}n100000: n0\n")).expect_err("a loop");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("aliases:1:1: alias loop: n0 -> n1 -> "));
}

/// Every error is reported, and delays only the mail for the name on its line.
#[test]
fn an_error_affects_one_name() {
    let text = "# J\u{fffd}rg\njon: mary\nbad line\n  continued\nlist: jon, x y\nlist2: a\n  b\nmary: a@b@@\n\
                jon: other\nempty:\na: b\nb: a\nj\u{fffd}n: x\n";
    let (table, errors) = Aliases::read(Path::new("aliases"), text);
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [3, 5, 7, 8, 9, 10, 11, 13], "{errors:?}");
    for (name, line) in [("bad", 3), ("list", 5), ("mary", 8), ("empty", 10)] {
        assert_eq!(table.find(name).expect_err(name).line, line, "{name}");
    }
    assert_eq!(members_of(&table, "jon"), ["mary"], "the first line of a name holds");
    assert_eq!(members_of(&table, "list2"), ["a", "b"], "its members are clear");
    assert_eq!(members_of(&table, "a"), ["b"], "a loop is found when it is followed");
    assert_eq!(table.find("nosuch"), Ok(None));
    let unreadable = Aliases::unreadable(&ConfigError::whole(Path::new("aliases"), "Permission denied"));
    assert!(unreadable.find("jon").is_err() && unreadable.find("nosuch").is_err());
}

#[test]
fn a_malformed_line_of_a_list_is_skipped() {
    let text = "\u{feff}jon@x.org (Jon Doe)\r\nMary <mary@x.org>,\r\n\r\nann@x.org # a comment, with x@y.org\r\n\
                J\u{fffd}rg Doe <j@x.org> (J\u{fffd})\r\nj\u{fffd}rg@x.org\r\n\"open\r\na@x.org, b b, c@x.org,,\r\n";
    let (members, errors) = list(text);
    let found: Vec<String> = members.iter().map(|member| format!("{member:?}")).collect();
    let wanted = ["jon", "mary", "ann", "j", "a", "c"].map(|name| format!("Address(<{name}@x.org>)"));
    assert_eq!(found, wanted);
    assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6, 7, 8], "{errors:?}");
}
