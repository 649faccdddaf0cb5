//! Expands an address to its final recipients, through the tables.
//!
//! The expansion is a walk that visits one address after the other, so that a long chain costs no
//! stack. The walk visits each address once, and so it ends. The number of addresses is limited.
//!
//! A cycle of aliases is harmless if a path leads out of it. If a cycle contains the name of a
//! user, the cycle is broken there, as sendmail does. Users are looked up only where the result
//! depends on the look-up, not for every member of a large alias, because a look-up may need
//! another process.
//!
//! An alias with a list or an owner is a final recipient. At delivery the list is read, and the
//! walk continues with the members of the list, as it does with the members of a `.forward`. If a
//! table or the system has an error, the expansion is `Temporary`.

use std::collections::{HashMap, HashSet};

use crate::address::{Address, fold, is_same_local};
use crate::aliases::Member;
use crate::envelope::{Action, Recipient};

use super::cycles::on_cycle;
use super::realm::{Realm, Snapshot, Snapshots};
use super::routes::RouteTarget;
use super::trace::{self, Found, MAX_VISITS, Traced, Visit};
use super::{Expansion, LOCAL_ONLY, NO_WAY_OUT, POSTMASTER, RoutedMail, Router};

/// Maximum number of addresses that one expansion visits, intermediate addresses included.
const MAX_ADDRESSES: usize = 10_000;

/// An expansion, and the tables that it has asked, with the numbers of their realms.
pub(super) type Expanded = (Expansion, Vec<(usize, Snapshot)>);

/// Expands an address for [`Router::expand`]. The address must have a domain.
pub(super) fn expand(router: &Router, address: &Address) -> Expanded {
    let tables = Tables::new(router);
    let expansion = Walk::new(&tables, None).expand(address);
    (expansion, tables.snapshots.into_asked())
}

/// Expands an address as [`expand`] does, and returns the addresses that were visited, too.
pub(super) fn trace(router: &Router, address: &Address) -> Traced {
    let tables = Tables::new(router);
    let mut walk = Walk::new(&tables, None);
    let expansion = walk.expand(address);
    Traced { expansion, visits: walk.visits() }
}

/// Expands members for [`Router::expand_members`]. The address must have a domain.
pub(super) fn expand_members(router: &Router, address: &Address, members: &[Member], user: Option<&str>) -> Expansion {
    let tables = Tables::new(router);
    let mut walk = Walk::new(&tables, user);
    let domain = members_domain(router, address, user);
    let walked = walk.node(address.clone(), Ask::Tables).and_then(|root| walk.follow(root, members, domain));
    ended(walked.and_then(|()| walk.run(1)).and_then(|()| walk.finals()))
}

/// Returns the domain of names without a domain among the members of a list or a `.forward`.
fn members_domain<'r>(router: &'r Router, address: &Address, user: Option<&str>) -> &'r str {
    match (router.realm(address.domain()), user) {
        (Some(realm), None) => &realm.aliases.domain,
        (Some(realm), Some(_)) => &realm.domain,
        (None, _) => &router.first_domain,
    }
}

fn ended(result: Result<Expansion, String>) -> Expansion {
    result.unwrap_or_else(Expansion::Temporary)
}

/// The tables as they were when the expansion began.
struct Tables<'r> {
    router: &'r Router,
    snapshots: Snapshots<'r>,
}

/// What the tables say about one address, and where it was found.
type Answer<'t> = (TableAnswer<'t>, Found);

/// What the tables say about one address.
enum TableAnswer<'t> {
    Final(Action),
    /// The address is in no table. If it is that of a user, it is a final recipient, otherwise it
    /// is unknown.
    Local(Action),
    Unknown,
    /// The members that replace the address, and the domain of those without a domain.
    Members(&'t [Member], &'t str),
    /// The one address that replaces the address.
    Another(&'t Address),
}

/// What the walk asks about an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    /// Which entry of the tables applies to the address.
    Tables,
    /// Whether the address is that of a user. This is asked if an alias names itself.
    User,
    /// Whether the address has a mailbox. This is asked for `\name`, and for a user who is named in
    /// that user's own `.forward`.
    Mailbox,
}

impl<'r> Tables<'r> {
    fn new(router: &'r Router) -> Self {
        Self { router, snapshots: Snapshots::new(router) }
    }

    fn step(&self, address: &Address, ask: Ask) -> Result<Answer<'_>, String> {
        let domain = address.domain();
        let Some((realm, tables)) = self.snapshots.of(domain) else {
            return Ok((TableAnswer::Final(Action::Deliver), Found::Elsewhere));
        };
        let name = fold(address.local());
        let is_postmaster = name == POSTMASTER;
        if ask != Ask::Tables {
            return self.without_tables(realm, (&name, domain), ask);
        }
        if let Some(step) = named((realm, tables), &name, domain)? {
            return Ok(step);
        }
        // An address that the routes table names exists at another host.
        let routed = (TableAnswer::Final(Action::Deliver), Found::Routed);
        if self.router.is_routed(&name, domain) {
            return Ok(routed);
        }
        let base = realm.without_detail(&name);
        let base_answer = base.map_or(Ok(None), |base| named((realm, tables), base, domain));
        let catch_all = tables.virtual_table.catch_all(domain);
        let is_base_routed = base.is_some_and(|base| self.router.is_routed(base, domain));
        let is_in_no_table = matches!((&base_answer, &catch_all), (Ok(None), Ok(None))) && !is_base_routed;
        if is_in_no_table && !is_postmaster && realm.catch_all.is_none() {
            return Ok((TableAnswer::Local(Action::Deliver), Found::NoTable));
        }
        // If every name is that of a user, an alias or a route for the name without its detail says more.
        let is_vague = realm.users.are_any() && (is_base_routed || !matches!(base_answer, Ok(None)));
        if !is_vague && realm.users.inbox(&name, domain)?.is_some() {
            return Ok((TableAnswer::Final(Action::Deliver), Found::NoTable));
        }
        if let Some(step) = base_answer? {
            return Ok(step);
        }
        if is_base_routed {
            return Ok(routed);
        }
        if let Some(base) = base
            && realm.users.inbox(base, domain)?.is_some()
        {
            return Ok((TableAnswer::Final(Action::Deliver), Found::NoTable));
        }
        if !is_postmaster {
            self.router.expect_routes()?;
        }
        match catch_all.map_err(ToString::to_string)? {
            Some(members) => Ok((TableAnswer::Members(members, &realm.virtual_table.domain), Found::CatchAll)),
            None if is_postmaster => self.postmaster(realm, address),
            None => Ok(match &realm.catch_all {
                // The recipient itself does not exist.
                Some(recipient) if recipient.domain() == domain && is_same_local(recipient.local(), &name) => {
                    (TableAnswer::Unknown, Found::NoTable)
                }
                Some(recipient) => (TableAnswer::Another(recipient), Found::CatchAllKey),
                None => (TableAnswer::Unknown, Found::NoTable),
            }),
        }
    }

    /// Returns the answer about an address for which the virtual table and the aliases are not asked.
    fn without_tables(&self, realm: &Realm, (name, domain): (&str, &str), ask: Ask) -> Result<Answer<'_>, String> {
        // An alias that leads to its own name, as in `jon: jon, ann`, leads to the route of that name.
        let routes = self.router.routes.current();
        if self.router.line_for(&routes, (name, domain), &RoutedMail::default())?.is_some() {
            return Ok((TableAnswer::Final(Action::Deliver), Found::Routed));
        }
        if name == POSTMASTER && realm.inbox(name, domain)?.is_none() {
            return Ok((TableAnswer::Final(Action::Deliver), Found::LastResort));
        }
        // Only a system user can have a `.forward`, which delivery must skip for this recipient.
        let is_direct = ask == Ask::Mailbox && realm.users.are_of_system();
        let action = if is_direct { Action::Direct } else { Action::Deliver };
        Ok((TableAnswer::Local(action), Found::Direct))
    }

    /// Whether an address that no table contains is that of a user.
    fn is_user(&self, address: &Address) -> Result<bool, String> {
        let Some(realm) = self.router.realm(address.domain()) else { return Ok(false) };
        Ok(realm.inbox(&fold(address.local()), address.domain())?.is_some())
    }

    /// Returns the address of a list without its detail, unless the detail is part of the alias's
    /// name.
    fn list(&self, address: &Address) -> Address {
        let name =
            self.snapshots.of(address.domain()).and_then(|(realm, tables)| realm.alias_of(&tables.aliases, address));
        name.map_or_else(|| address.clone(), |name| address.with_local(&name))
    }

    /// Returns the answer for a postmaster that is in no table: the recipient in the configuration
    /// (`local.postmaster`) or, if that recipient does not exist, the mailbox of last resort.
    fn postmaster(&self, realm: &'r Realm, address: &Address) -> Result<Answer<'_>, String> {
        let last_resort = || (TableAnswer::Final(Action::Deliver), Found::LastResort);
        let named = &realm.postmaster;
        let is_postmaster = named.local().eq_ignore_ascii_case(POSTMASTER);
        if is_postmaster && named.domain() == address.domain() {
            return Ok(last_resort());
        }
        // If the recipient is the postmaster of another domain, it is not looked up here but
        // expanded later, because its expansion could lead back to this address.
        let is_nobody = !is_postmaster
            && match self.step(named, Ask::Tables)?.0 {
                TableAnswer::Unknown => true,
                TableAnswer::Local(_) => !self.is_user(named)?,
                _ => false,
            };
        if is_nobody {
            return Ok(last_resort());
        }
        Ok((TableAnswer::Another(named), Found::Postmaster))
    }
}

/// Returns the answer of the virtual table or, if it has none, of the aliases; `None` if neither has
/// an answer.
fn named<'t>(
    (realm, tables): (&'t Realm, &'t Snapshot),
    name: &str,
    domain: &str,
) -> Result<Option<Answer<'t>>, String> {
    if let Some(members) = tables.virtual_table.find(name, domain).map_err(ToString::to_string)? {
        return Ok(Some((TableAnswer::Members(members, &realm.virtual_table.domain), Found::Virtual)));
    }
    let Some(members) = tables.aliases.find(name).map_err(ToString::to_string)? else { return Ok(None) };
    let is_list = members.iter().any(|member| matches!(member, Member::Include(_)));
    let is_late = is_list || tables.aliases.owner(name).is_some();
    Ok(Some(match is_late {
        true => (TableAnswer::Final(Action::Expand), Found::List),
        false => (TableAnswer::Members(members, &realm.aliases.domain), Found::Alias),
    }))
}

/// Returns an address, completed with a domain if it has none.
fn completed(address: &Address, domain: &str) -> Address {
    if address.domain().is_empty() { address.at(domain) } else { address.clone() }
}

struct Walk<'t> {
    tables: &'t Tables<'t>,
    /// The user whose `.forward` contains the members of the first address; `None` if the members
    /// come from a table.
    user: Option<&'t str>,
    nodes: Vec<Node>,
    /// The index in `nodes` for each address and question. The address is in the form that
    /// `Walk::key` returns.
    known: HashMap<(Address, Ask), usize>,
    /// Whether an address was named more than once. Without such an address, there is no cycle.
    has_repeats: bool,
}

struct Node {
    address: Address,
    ask: Ask,
    end: NodeEnd,
    action: Action,
    /// Where the address was found; `None` if it was not looked up.
    found: Option<Found>,
    members: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeEnd {
    Final,
    /// The address is in no table. Whether it is that of a user is not known yet.
    Local,
    Unknown,
    /// The address is replaced by its members.
    None,
}

impl<'t> Walk<'t> {
    fn new(tables: &'t Tables<'t>, user: Option<&'t str>) -> Self {
        Self { tables, user, nodes: Vec::new(), known: HashMap::new(), has_repeats: false }
    }

    fn expand(&mut self, address: &Address) -> Expansion {
        ended(self.node(address.clone(), Ask::Tables).and_then(|_| self.run(0)).and_then(|()| self.finals()))
    }

    /// Returns the addresses that were looked up, at most [`MAX_VISITS`], in the order of the walk.
    fn visits(&self) -> Vec<Visit> {
        let name = |index: &usize| self.nodes.get(*index).map(|node| trace::named(&node.address, &node.action));
        let visit = |node: &Node| {
            let members = node.members.iter().take(MAX_VISITS).filter_map(name).collect();
            Some(Visit { address: node.address.clone(), found: node.found?, members, count: node.members.len() })
        };
        self.nodes.iter().filter_map(visit).take(MAX_VISITS).collect()
    }

    /// Visits the addresses in `nodes` from index `next` on, and all addresses that they lead to.
    fn run(&mut self, mut next: usize) -> Result<(), String> {
        while let Some(node) = self.nodes.get_mut(next) {
            if node.end != NodeEnd::Final {
                let (answer, found) = self.tables.step(&node.address, node.ask)?;
                node.found = Some(found);
                match answer {
                    TableAnswer::Final(action) => (node.end, node.action) = (NodeEnd::Final, action),
                    TableAnswer::Local(action) => (node.end, node.action) = (NodeEnd::Local, action),
                    TableAnswer::Unknown => node.end = NodeEnd::Unknown,
                    TableAnswer::Members(members, domain) => self.follow(next, members, domain)?,
                    TableAnswer::Another(address) => {
                        self.follow(next, &[Member::Address(address.clone())], address.domain())?;
                    }
                }
            }
            next += 1;
        }
        Ok(())
    }

    /// Adds the members of the address at index `at`. Names without a domain get `domain`.
    fn follow(&mut self, at: usize, members: &[Member], domain: &str) -> Result<(), String> {
        let parent = self.nodes[at].address.clone();
        let parent_key = self.key(&parent);
        let user = self.user.filter(|_| at == 0);
        let self_question = if user.is_some() { Ask::Mailbox } else { Ask::User };
        for member in members {
            let index = match member {
                Member::Address(address) => {
                    let address = completed(address, domain);
                    let ask = if self.key(&address) == parent_key { self_question } else { Ask::Tables };
                    self.node(address, ask)?
                }
                Member::Direct(address) => self.node(completed(address, domain), Ask::Mailbox)?,
                Member::Run(command) => {
                    let action = Action::Run { command: command.clone(), user: user.map(Into::into) };
                    self.final_node(&parent, self_question, action)?
                }
                Member::File(file) => {
                    let action = Action::Append { file: file.clone(), user: user.map(Into::into) };
                    self.final_node(&parent, self_question, action)?
                }
                // A list never appears here: at delivery it is read before the walk, and at other
                // times its alias is a final recipient, `TableAnswer::Final(Action::Expand)`.
                Member::Include(file) => {
                    return Err(format!("{parent} stands for the list {file}, which was not read"));
                }
            };
            self.nodes[at].members.push(index);
        }
        Ok(())
    }

    /// Returns the index of an address in `nodes`. A new address is added.
    fn node(&mut self, address: Address, ask: Ask) -> Result<usize, String> {
        let key = (self.key(&address), ask);
        if let Some(&index) = self.known.get(&key) {
            self.has_repeats = true;
            return Ok(index);
        }
        let (end, action) = (NodeEnd::None, Action::Deliver);
        let index = self.push(Node { address, ask, end, action, found: None, members: Vec::new() })?;
        self.known.insert(key, index);
        Ok(index)
    }

    /// Adds a node for a command or a file that is a member of an address; returns its index.
    fn final_node(&mut self, address: &Address, ask: Ask, action: Action) -> Result<usize, String> {
        let (address, end) = (address.clone(), NodeEnd::Final);
        self.push(Node { address, ask, end, action, found: None, members: Vec::new() })
    }

    fn push(&mut self, node: Node) -> Result<usize, String> {
        let index = self.nodes.len();
        if index >= MAX_ADDRESSES {
            return Err(format!("{} stands for more than {MAX_ADDRESSES} addresses", self.nodes[0].address));
        }
        self.nodes.push(node);
        Ok(index)
    }

    /// Returns an address in the form for comparisons: a local name in lower case.
    fn key(&self, address: &Address) -> Address {
        if self.tables.router.is_local(address.domain()) {
            address.with_local(&fold(address.local()))
        } else {
            address.clone()
        }
    }

    fn finals(&self) -> Result<Expansion, String> {
        let mut seen = HashSet::new();
        let (mut finals, mut is_known, mut undecided) = (Vec::new(), false, Vec::new());
        let is_broken = self.broken_cycles()?;
        for (at, node) in self.nodes.iter().enumerate() {
            let action = match (node.end, &node.action) {
                (NodeEnd::None, _) if !is_broken.get(at).is_some_and(|is_broken| *is_broken) => continue,
                // The user's own `.forward` leads back to the user, so the message goes to the
                // mailbox.
                (NodeEnd::None, _) if at == 0 && self.user.is_some() => &Action::Direct,
                (_, action) => action,
            };
            // A mailbox or a list gets one copy, even if its addresses differ in their details.
            let key = match action {
                Action::Direct => (self.key(&node.address), &Action::Deliver),
                Action::Expand => (self.tables.list(&node.address), action),
                _ => (self.key(&node.address), action),
            };
            if seen.insert(key) {
                finals.push(Recipient { action: action.clone(), ..Recipient::new(node.address.clone()) });
                is_known |= matches!(node.end, NodeEnd::Final | NodeEnd::None);
                if node.end == NodeEnd::Local {
                    undecided.push(&node.address);
                }
            }
        }
        // Once one recipient is known to exist, the others are not looked up. Those that do not
        // exist fail later, at delivery.
        for address in undecided {
            is_known = is_known || self.tables.is_user(address)?;
        }
        if is_known {
            return Ok(self.refusal(&finals)?.unwrap_or(Expansion::Finals(finals)));
        }
        let mut visited = self.nodes.iter().map(|node| &node.address);
        match visited.find(|address| fold(address.local()) == POSTMASTER) {
            // The postmaster always exists.
            Some(postmaster) => Ok(Expansion::Finals(vec![Recipient::new(postmaster.clone())])),
            None if !finals.is_empty() => self.tables.router.expect_routes().map(|()| Expansion::Unknown),
            // The catch-alls of several domains lead to each other, so that nobody gets such mail.
            None if self.nodes.iter().all(|node| node.found == Some(Found::CatchAllKey)) => Ok(Expansion::Unknown),
            None => Err(self.describe_loop()),
        }
    }

    /// Returns for each node whether a cycle is broken there: at an alias that leads back to itself
    /// and has the name of a user. The result is empty if there is no cycle.
    fn broken_cycles(&self) -> Result<Vec<bool>, String> {
        if !self.has_repeats {
            return Ok(Vec::new());
        }
        let edges: Vec<Vec<usize>> = self.nodes.iter().map(|node| node.members.clone()).collect();
        let mut is_broken = on_cycle(&edges);
        for (is_broken, node) in is_broken.iter_mut().zip(&self.nodes).filter(|(is_in, _)| **is_in) {
            *is_broken = node.end == NodeEnd::None && self.tables.is_user(&node.address)?;
        }
        Ok(is_broken)
    }

    /// Returns the refusal if mail to each of the recipients is refused; `None` otherwise. A command, a file
    /// and a list have no route.
    fn refusal(&self, finals: &[Recipient]) -> Result<Option<Expansion>, String> {
        let router = self.tables.router;
        let routes = router.routes.current();
        if routes.is_empty() && !router.local_only {
            return Ok(None);
        }
        let mut first = None;
        for to in finals {
            if !matches!(to.action, Action::Deliver | Action::Direct) {
                return Ok(None);
            }
            let (name, domain) = (fold(to.address.local()), to.address.domain());
            let line = router.line_for(&routes, (&name, domain), &RoutedMail::default())?;
            let refusal = match line.map(|found| found.target) {
                Some(RouteTarget::Error(status, why)) if status.0 == 5 => (*status, why.to_string()),
                None if router.local_only && !router.is_local(domain) => (LOCAL_ONLY, NO_WAY_OUT.into()),
                _ => return Ok(None),
            };
            first.get_or_insert(refusal);
        }
        Ok(first.map(|(status, why)| Expansion::Refused(status, why)))
    }

    /// Describes the cycle that the expansion leads into, for the log.
    fn describe_loop(&self) -> String {
        const SHOWN: usize = 10;
        let (mut path, mut at, mut seen) = (Vec::new(), 0, HashSet::new());
        while seen.insert(at) {
            path.push(at);
            at = self.nodes[at].members.first().copied().unwrap_or(at);
        }
        let ring = path.iter().skip_while(|index| **index != at).chain([&at]);
        let mut names: Vec<String> = ring.map(|index| self.nodes[*index].address.to_string()).collect();
        if names.len() > SHOWN {
            names.splice(SHOWN / 2..names.len() - SHOWN / 2, ["...".to_owned()]);
        }
        format!("alias loop: {}", names.join(" -> "))
    }
}
