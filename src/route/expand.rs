//! The expansion of an address to its final recipients.
//!
//! The walk visits one address after the other, so the depth of a chain costs no stack; it visits
//! each address once, so it ends; and it counts them, so it is bounded. A cycle of aliases is
//! harmless if a path leads out of it, or if it contains the name of a user: there it is broken, as
//! sendmail does. Users are looked up only where the result depends on the look-up, not for every
//! member of a large alias, since a look-up may need another process. An alias with a list or an
//! owner is a final recipient: at delivery the list is read and the walk continues with its
//! members, as it does with those of a `.forward`. An error in a table or of the system makes the
//! expansion `Temporary`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::address::Address;
use crate::aliases::{Aliases, Member};
use crate::envelope::{Action, Recipient};

use super::cycles::on_cycle;
use super::routes::{RouteTarget, Routes};
use super::virtual_table::VirtualTable;
use super::{Expansion, LOCAL_ONLY, NO_WAY_OUT, POSTMASTER, Router, lower};

/// Maximum number of addresses of one expansion, intermediate ones included.
const MAX_ADDRESSES: usize = 10_000;

/// See [`Router::expand`]. The address must have a domain.
pub(super) fn expand(router: &Router, address: &Address) -> Expansion {
    let tables = Tables::new(router);
    let mut walk = Walk::new(&tables, None);
    ended(walk.node(address.clone(), Ask::Tables).and_then(|_| walk.run(0)).and_then(|()| walk.finals()))
}

/// See [`Router::expand_members`]. The address must have a domain.
pub(super) fn expand_members(router: &Router, address: &Address, members: &[Member], user: Option<&str>) -> Expansion {
    let tables = Tables::new(router);
    let mut walk = Walk::new(&tables, user);
    let walked = walk.node(address.clone(), Ask::Tables).and_then(|root| walk.follow(root, members));
    ended(walked.and_then(|()| walk.run(1)).and_then(|()| walk.finals()))
}

fn ended(result: Result<Expansion, String>) -> Expansion {
    result.unwrap_or_else(Expansion::Temporary)
}

/// The tables as they were when the expansion began.
struct Tables<'r> {
    router: &'r Router,
    aliases: Arc<Aliases>,
    virtual_table: Arc<VirtualTable>,
}

/// The answer of the tables for one address.
enum TableAnswer<'t> {
    Final(Action),
    /// In no table: a final recipient if it is a user, otherwise unknown.
    Local(Action),
    Unknown,
    Members(&'t [Member]),
}

/// A question about an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    /// Which entry of the tables applies to the address.
    Tables,
    /// Whether the address is that of a user; asked if an alias names itself.
    User,
    /// Whether the address has a mailbox; asked for `\name`, and for a user in that user's own
    /// `.forward`.
    Mailbox,
}

impl<'r> Tables<'r> {
    fn new(router: &'r Router) -> Self {
        Self { router, aliases: router.aliases.current(), virtual_table: router.virtual_table.current() }
    }

    fn step(&self, address: &Address, ask: Ask) -> Result<TableAnswer<'_>, String> {
        let (domain, router) = (address.domain(), self.router);
        if !router.is_local(domain) {
            return Ok(TableAnswer::Final(Action::Deliver));
        }
        let name = lower(address.local());
        let is_postmaster = name == POSTMASTER;
        if ask != Ask::Tables {
            // Only system users have a `.forward`, which has to be skipped here.
            let is_direct = ask == Ask::Mailbox && router.users.are_of_system();
            let action = if is_direct { Action::Direct } else { Action::Deliver };
            return Ok(match is_postmaster {
                true if router.mailbox(&name, domain)?.is_none() => TableAnswer::Final(Action::Deliver),
                _ => TableAnswer::Local(action),
            });
        }
        if let Some(step) = self.named(&name, domain)? {
            return Ok(step);
        }
        let base = router.without_detail(&name);
        let base_answer = base.map_or(Ok(None), |base| self.named(base, domain));
        let catch_all = self.virtual_table.catch_all(domain);
        if matches!((&base_answer, &catch_all), (Ok(None), Ok(None))) && !is_postmaster {
            return Ok(TableAnswer::Local(Action::Deliver));
        }
        if router.users.mailbox(&name, domain)?.is_some() {
            return Ok(TableAnswer::Final(Action::Deliver));
        }
        if let Some(step) = base_answer? {
            return Ok(step);
        }
        if let Some(base) = base
            && router.users.mailbox(base, domain)?.is_some()
        {
            return Ok(TableAnswer::Final(Action::Deliver));
        }
        match catch_all.map_err(ToString::to_string)? {
            Some(members) => Ok(TableAnswer::Members(members)),
            None if is_postmaster => self.postmaster(address),
            None => Ok(TableAnswer::Unknown),
        }
    }

    /// The answer of the virtual table or, if it has none, of the aliases; `None` if neither has
    /// one.
    fn named(&self, name: &str, domain: &str) -> Result<Option<TableAnswer<'_>>, String> {
        if let Some(members) = self.virtual_table.find(name, domain).map_err(ToString::to_string)? {
            return Ok(Some(TableAnswer::Members(members)));
        }
        let Some(members) = self.aliases.find(name).map_err(ToString::to_string)? else { return Ok(None) };
        let is_list = members.iter().any(|member| matches!(member, Member::Include(_)));
        let is_late = is_list || self.aliases.owner(name).is_some();
        Ok(Some(if is_late { TableAnswer::Final(Action::Expand) } else { TableAnswer::Members(members) }))
    }

    /// Whether an address that no table contains is that of a user.
    fn is_user(&self, address: &Address) -> Result<bool, String> {
        Ok(self.router.mailbox(&lower(address.local()), address.domain())?.is_some())
    }

    /// The address of a list; its detail is dropped, unless that is part of the alias's name.
    fn list(&self, address: &Address) -> Address {
        self.router.alias_of(&self.aliases, address).map_or_else(|| address.clone(), |name| address.with_local(&name))
    }

    /// The answer for a postmaster that no table contains: the recipient in the configuration or,
    /// if that recipient does not exist, the mailbox of last resort.
    fn postmaster(&self, address: &Address) -> Result<TableAnswer<'_>, String> {
        let router = self.router;
        let members = &router.postmaster;
        let [Member::Address(named) | Member::Direct(named)] = members else {
            return Ok(TableAnswer::Final(Action::Deliver));
        };
        let named = router.qualified(named);
        let is_postmaster = named.local().eq_ignore_ascii_case(POSTMASTER);
        if is_postmaster && named.domain() == address.domain() {
            return Ok(TableAnswer::Final(Action::Deliver));
        }
        // Another domain's postmaster is expanded later, since it could lead back here.
        let is_nobody = !is_postmaster
            && match self.step(&named, Ask::Tables)? {
                TableAnswer::Unknown => true,
                TableAnswer::Local(_) => !self.is_user(&named)?,
                _ => false,
            };
        if is_nobody {
            return Ok(TableAnswer::Final(Action::Deliver));
        }
        Ok(TableAnswer::Members(members))
    }
}

struct Walk<'t> {
    tables: &'t Tables<'t>,
    /// The user whose `.forward` contains the members of the first address; `None` if they come
    /// from a table.
    user: Option<&'t str>,
    nodes: Vec<Node>,
    /// The index in `nodes`, by the key of an address and the question about it.
    known: HashMap<(Address, Ask), usize>,
    /// Whether an address was named more than once: otherwise there is no cycle.
    has_repeats: bool,
}

struct Node {
    address: Address,
    ask: Ask,
    end: NodeEnd,
    action: Action,
    members: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeEnd {
    Final,
    /// A user or an unknown name; not looked up yet.
    Local,
    Unknown,
    /// Replaced by its members.
    None,
}

impl<'t> Walk<'t> {
    fn new(tables: &'t Tables<'t>, user: Option<&'t str>) -> Self {
        Self { tables, user, nodes: Vec::new(), known: HashMap::new(), has_repeats: false }
    }

    /// Visits the addresses from index `next` on, and all that they lead to.
    fn run(&mut self, mut next: usize) -> Result<(), String> {
        while let Some(node) = self.nodes.get_mut(next) {
            if node.end != NodeEnd::Final {
                match self.tables.step(&node.address, node.ask)? {
                    TableAnswer::Final(action) => (node.end, node.action) = (NodeEnd::Final, action),
                    TableAnswer::Local(action) => (node.end, node.action) = (NodeEnd::Local, action),
                    TableAnswer::Unknown => node.end = NodeEnd::Unknown,
                    TableAnswer::Members(members) => self.follow(next, members)?,
                }
            }
            next += 1;
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, members: &[Member]) -> Result<(), String> {
        let parent = self.nodes[at].address.clone();
        let parent_key = self.key(&parent);
        let user = self.user.filter(|_| at == 0);
        let self_question = if user.is_some() { Ask::Mailbox } else { Ask::User };
        for member in members {
            let index = match member {
                Member::Address(address) => {
                    let address = self.tables.router.qualify(address);
                    let ask = if self.key(&address) == parent_key { self_question } else { Ask::Tables };
                    self.node(address, ask)?
                }
                Member::Direct(address) => self.node(self.tables.router.qualify(address), Ask::Mailbox)?,
                Member::Run(command) => {
                    let action = Action::Run { command: command.clone(), user: user.map(Into::into) };
                    self.final_node(&parent, self_question, action)?
                }
                Member::File(file) => {
                    let action = Action::Append { file: file.clone(), user: user.map(Into::into) };
                    self.final_node(&parent, self_question, action)?
                }
                // Lists are read before the walk: see `TableAnswer::Final(Action::Expand)`.
                Member::Include(file) => {
                    return Err(format!("{parent} stands for the list {file}, which was not read"));
                }
            };
            self.nodes[at].members.push(index);
        }
        Ok(())
    }

    /// The index of an address, which is added if it is new.
    fn node(&mut self, address: Address, ask: Ask) -> Result<usize, String> {
        let key = (self.key(&address), ask);
        if let Some(&index) = self.known.get(&key) {
            self.has_repeats = true;
            return Ok(index);
        }
        let index =
            self.push(Node { address, ask, end: NodeEnd::None, action: Action::Deliver, members: Vec::new() })?;
        self.known.insert(key, index);
        Ok(index)
    }

    /// The index of a new node for a command or a file of an address.
    fn final_node(&mut self, address: &Address, ask: Ask, action: Action) -> Result<usize, String> {
        self.push(Node { address: address.clone(), ask, end: NodeEnd::Final, action, members: Vec::new() })
    }

    fn push(&mut self, node: Node) -> Result<usize, String> {
        let index = self.nodes.len();
        if index >= MAX_ADDRESSES {
            return Err(format!("{} stands for more than {MAX_ADDRESSES} addresses", self.nodes[0].address));
        }
        self.nodes.push(node);
        Ok(index)
    }

    /// The key of an address: local names are compared without case.
    fn key(&self, address: &Address) -> Address {
        if self.tables.router.is_local(address.domain()) {
            address.with_local(&lower(address.local()))
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
                // The user's own `.forward` leads back to the user.
                (NodeEnd::None, _) if at == 0 && self.user.is_some() => &Action::Direct,
                (_, action) => action,
            };
            // A mailbox or a list gets one copy, whatever details its addresses have.
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
        // One existing recipient is enough: the others fail later, at delivery.
        for address in undecided {
            is_known = is_known || self.tables.is_user(address)?;
        }
        if is_known {
            return Ok(self.refusal(&finals).unwrap_or(Expansion::Finals(finals)));
        }
        let mut visited = self.nodes.iter().map(|node| &node.address);
        match visited.find(|address| lower(address.local()) == POSTMASTER) {
            // The postmaster always exists.
            Some(postmaster) => Ok(Expansion::Finals(vec![Recipient::new(postmaster.clone())])),
            None if !finals.is_empty() => Ok(Expansion::Unknown),
            None => Err(self.describe_loop()),
        }
    }

    /// For each node, whether a cycle is broken there: at an alias that leads back to itself and is
    /// a user too. Empty if there is no cycle.
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

    /// The answer if all recipients are rejected.
    fn refusal(&self, finals: &[Recipient]) -> Option<Expansion> {
        let router = self.tables.router;
        let routes = finals.iter().all(|a| !router.is_local(a.address.domain())).then(|| router.routes.current())?;
        let refused = |routes: &Routes, address: &Address| match routes.find(address.domain()) {
            Some(RouteTarget::Error(status, why)) if status.0 == 5 => {
                Some(Expansion::Refused(*status, why.to_string()))
            }
            None if router.local_only => Some(Expansion::Refused(LOCAL_ONLY, NO_WAY_OUT.into())),
            _ => None,
        };
        let first = refused(&routes, &finals.first()?.address)?;
        finals.iter().all(|to| refused(&routes, &to.address).is_some()).then_some(first)
    }

    /// The cycle that the expansion leads into, for the log.
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
