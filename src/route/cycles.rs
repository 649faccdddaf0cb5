//! Finds the nodes of a graph that are on a cycle, for the expansion of aliases.
//!
//! The algorithm is Kosaraju's: a depth-first search yields the nodes in post-order, and the
//! reversed graph is then searched from the last of these nodes to the first. The search is not
//! recursive, and its time is proportional to the number of nodes and edges.

/// Returns for each node whether it is on a cycle. `edges` lists the successors of each node.
pub(super) fn on_cycle(edges: &[Vec<usize>]) -> Vec<bool> {
    let order = post_order(edges);
    let mut back: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (from, to) in edges.iter().enumerate().flat_map(|(from, all)| all.iter().map(move |to| (from, *to))) {
        back[to].push(from);
    }
    let mut is_in: Vec<bool> = edges.iter().enumerate().map(|(at, to)| to.contains(&at)).collect();
    let mut seen = vec![false; edges.len()];
    for start in order.into_iter().rev() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let (mut part, mut next) = (vec![start], 0);
        while let Some(&at) = part.get(next) {
            next += 1;
            part.extend(back[at].iter().filter(|&&from| !std::mem::replace(&mut seen[from], true)));
        }
        if part.len() > 1 {
            part.iter().for_each(|&at| is_in[at] = true);
        }
    }
    is_in
}

/// Returns all nodes, in the post-order of a depth-first search.
fn post_order(edges: &[Vec<usize>]) -> Vec<usize> {
    let (mut order, mut seen) = (Vec::with_capacity(edges.len()), vec![false; edges.len()]);
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..edges.len() {
        if !std::mem::replace(&mut seen[start], true) {
            path.push((start, 0));
        }
        while let Some((at, next)) = path.last_mut() {
            match edges[*at].get(*next) {
                Some(&to) => {
                    *next += 1;
                    if !std::mem::replace(&mut seen[to], true) {
                        path.push((to, 0));
                    }
                }
                None => {
                    order.push(*at);
                    path.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_between_two_cycles_is_on_none() {
        for (edges, cycles) in [
            (vec![vec![]], vec![]),
            (vec![vec![0]], vec![0]),
            (vec![vec![1], vec![0]], vec![0, 1]),
            (vec![vec![1], vec![2], vec![]], vec![]),
            (vec![vec![1], vec![0, 2], vec![3], vec![4], vec![3], vec![0]], vec![0, 1, 3, 4]),
            (vec![vec![1, 2], vec![3], vec![3], vec![]], vec![]),
            (vec![vec![1, 2], vec![3], vec![3], vec![1]], vec![1, 3]),
        ] {
            let found: Vec<usize> =
                on_cycle(&edges).iter().enumerate().filter(|(_, is_in)| **is_in).map(|f| f.0).collect();
            assert_eq!(found, cycles, "{edges:?}");
        }
    }

    #[test]
    fn a_long_cycle_needs_no_stack() {
        let edges: Vec<Vec<usize>> = (0..100_000).map(|at| vec![(at + 1) % 100_000, at / 2]).collect();
        assert!(on_cycle(&edges).into_iter().all(|is_in| is_in));
    }
}
