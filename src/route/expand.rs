//! From one address to the final recipients that it stands for.
//!
//! The walk goes from address to address and takes one step at a time, so the
//! depth of a chain costs no stack; each address is met once, so it ends; it
//! counts what it meets, so it is bounded. A ring of aliases is no trouble as long
//! as a way leads out of it, or it passes through a name that is also a user:
//! there it is broken, as sendmail does. What depends on a table or the system
//! being out of order is `Unsure`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::address::Address;
use crate::aliases::{Aliases, Member};

use super::routes::{Routes, Target};
use super::virtual_table::VirtualTable;
use super::{Expansion, LOCAL_ONLY, NO_WAY_OUT, POSTMASTER, Router, lower};

/// How many addresses one may stand for, the names on the way counted too.
const MAX_ADDRESSES: usize = 10_000;

/// See [`Router::expand`]; the address has a domain.
pub(super) fn expand(router: &Router, address: &Address) -> Expansion {
    let (aliases, virtual_table) = (router.aliases.current(), router.virtual_table.current());
    let tables = Tables { router, aliases, virtual_table };
    let mut walk = Walk::new(&tables);
    match walk.node(address.clone(), false).and_then(|_| walk.run()).and_then(|()| walk.finals()) {
        Ok(expansion) => expansion,
        Err(why) => Expansion::Unsure(why),
    }
}

/// The tables in force when the expansion began.
struct Tables<'r> {
    router: &'r Router,
    aliases: Arc<Aliases>,
    virtual_table: Arc<VirtualTable>,
}

/// What the tables say of one address.
enum Step<'t> {
    Final,
    Unknown,
    Members(&'t [Member]),
}

impl Tables<'_> {
    fn step(&self, address: &Address, direct: bool) -> Result<Step<'_>, String> {
        let (domain, router) = (address.domain(), self.router);
        if !router.is_local(domain) {
            return Ok(Step::Final);
        }
        let name = lower(address.local());
        if direct {
            let exists = name == POSTMASTER || router.mailbox(&name, domain)?.is_some();
            return Ok(if exists { Step::Final } else { Step::Unknown });
        }
        for name in [Some(&*name), router.without_detail(&name)].into_iter().flatten() {
            if let Some(step) = self.named(name, domain)? {
                return Ok(step);
            }
        }
        match self.virtual_table.catch_all(domain) {
            Some(members) => Ok(Step::Members(members)),
            None if name == POSTMASTER => self.postmaster(address),
            None => Ok(Step::Unknown),
        }
    }

    fn named(&self, name: &str, domain: &str) -> Result<Option<Step<'_>>, String> {
        if let Some(members) = self.virtual_table.find(name, domain).or_else(|| self.aliases.find(name)) {
            return Ok(Some(Step::Members(members)));
        }
        Ok(self.router.users.mailbox(name, domain)?.map(|_| Step::Final))
    }

    /// A postmaster whom no table knows: whom the configuration names, or the
    /// last resort if that is nobody.
    fn postmaster(&self, address: &Address) -> Result<Step<'_>, String> {
        let router = self.router;
        let members = &router.postmaster;
        let [Member::Address(named) | Member::Direct(named)] = members else { return Ok(Step::Final) };
        let named = router.qualified(named);
        let is_postmaster = named.local().eq_ignore_ascii_case(POSTMASTER);
        if is_postmaster && named.domain() == address.domain() {
            return Ok(Step::Final);
        }
        // Another domain's postmaster is followed, not asked from here: it could ask back.
        if !is_postmaster && matches!(self.step(&named, false)?, Step::Unknown) {
            return Ok(Step::Final);
        }
        Ok(Step::Members(members))
    }
}

struct Walk<'t> {
    tables: &'t Tables<'t>,
    nodes: Vec<Node>,
    /// Where each address is in `nodes`, by its key and whether it is direct.
    known: HashMap<(Address, bool), usize>,
    /// Whether an address was named that had been met before: else there is no ring.
    met_again: bool,
}

struct Node {
    address: Address,
    /// Whether the tables are not to be asked: `\name`, or an alias that names itself.
    direct: bool,
    end: End,
    members: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Final,
    Unknown,
    /// It stands for its members.
    None,
}

impl<'t> Walk<'t> {
    fn new(tables: &'t Tables<'t>) -> Self {
        Self { tables, nodes: Vec::new(), known: HashMap::new(), met_again: false }
    }

    /// Follows every address met until nothing new comes up.
    fn run(&mut self) -> Result<(), String> {
        let mut at = 0;
        while let Some(node) = self.nodes.get_mut(at) {
            match self.tables.step(&node.address, node.direct)? {
                Step::Final => node.end = End::Final,
                Step::Unknown => node.end = End::Unknown,
                Step::Members(members) => self.follow(at, members)?,
            }
            at += 1;
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, members: &[Member]) -> Result<(), String> {
        let own = self.nodes[at].address.clone();
        for member in members {
            let (address, direct) = match member {
                Member::Address(address) => {
                    (address, self.key(&self.tables.router.qualified(address)) == self.key(&own))
                }
                Member::Direct(address) => (address, true),
                Member::Unsupported(_) => {
                    return Err(format!("{own} stands for a command, a file or a list, which is not supported yet"));
                }
            };
            let index = self.node(self.tables.router.qualify(address), direct)?;
            self.nodes[at].members.push(index);
        }
        Ok(())
    }

    /// The node of an address, new if it is met for the first time.
    fn node(&mut self, address: Address, direct: bool) -> Result<usize, String> {
        let key = (self.key(&address), direct);
        if let Some(&index) = self.known.get(&key) {
            self.met_again = true;
            return Ok(index);
        }
        let index = self.nodes.len();
        if index >= MAX_ADDRESSES {
            return Err(format!("{} stands for more than {MAX_ADDRESSES} addresses", self.nodes[0].address));
        }
        self.known.insert(key, index);
        self.nodes.push(Node { address, direct, end: End::None, members: Vec::new() });
        Ok(index)
    }

    /// What is equal for addresses that mean the same: a local name has no case.
    fn key(&self, address: &Address) -> Address {
        if self.tables.router.is_local(address.domain()) {
            address.with_local(&lower(address.local()))
        } else {
            address.clone()
        }
    }

    fn finals(&self) -> Result<Expansion, String> {
        let mut seen = HashSet::new();
        let (mut finals, mut unknown) = (Vec::new(), 0);
        for (at, node) in self.nodes.iter().enumerate() {
            if (node.end != End::None || self.is_broken_at(at)?) && seen.insert(self.key(&node.address)) {
                finals.push(node.address.clone());
                unknown += usize::from(node.end == End::Unknown);
            }
        }
        if finals.len() > unknown {
            return Ok(self.refusal(&finals).unwrap_or(Expansion::Finals(finals)));
        }
        let mut met = self.nodes.iter().map(|node| &node.address);
        match met.find(|address| lower(address.local()) == POSTMASTER) {
            // It always exists, wherever it leads.
            Some(postmaster) => Ok(Expansion::Finals(vec![postmaster.clone()])),
            None if unknown > 0 => Ok(Expansion::Unknown),
            None => Err(self.describe_loop()),
        }
    }

    /// Whether a ring is broken here: an alias that leads back to itself and is a user too.
    fn is_broken_at(&self, at: usize) -> Result<bool, String> {
        if !self.met_again {
            return Ok(false);
        }
        let address = &self.nodes[at].address;
        let user = self.tables.router.mailbox(&lower(address.local()), address.domain())?;
        Ok(user.is_some() && self.leads_back(at))
    }

    fn leads_back(&self, start: usize) -> bool {
        let mut seen = HashSet::new();
        let mut todo = vec![start];
        while let Some(at) = todo.pop() {
            for &member in &self.nodes[at].members {
                if member == start {
                    return true;
                }
                if seen.insert(member) {
                    todo.push(member);
                }
            }
        }
        false
    }

    /// The answer if every one of the recipients is refused.
    fn refusal(&self, finals: &[Address]) -> Option<Expansion> {
        let router = self.tables.router;
        let routes = finals.iter().all(|a| !router.is_local(a.domain())).then(|| router.routes.current())?;
        let refused = |routes: &Routes, address: &Address| match routes.find(address.domain()) {
            Some(Target::Error(status, why)) if status.0 == 5 => Some(Expansion::Refused(*status, why.to_string())),
            None if router.local_only => Some(Expansion::Refused(LOCAL_ONLY, NO_WAY_OUT.into())),
            _ => None,
        };
        let first = refused(&routes, finals.first()?)?;
        finals.iter().all(|address| refused(&routes, address).is_some()).then_some(first)
    }

    /// The ring that everything ends in, for people.
    fn describe_loop(&self) -> String {
        const SHOWN: usize = 10;
        let (mut path, mut at) = (Vec::new(), 0);
        while !path.contains(&at) {
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
