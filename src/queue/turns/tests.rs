//! Attempts that count towards the limits of a destination, and those that do not.

use super::*;
use crate::outgoing::Rate;
use crate::retry::Schedule;

/// Turns in which each destination has this rate.
fn turns_at(rate: &str) -> Turns {
    let second = Duration::from_secs(1);
    let schedule = Schedule { min: second, max: second, expire_after: second };
    let settings = QueueSettings { schedule, per_destination: 20 };
    let limits = Limits { rate: Some(Rate::parse(rate).expect("a rate")), ..Limits::default() };
    Turns::new(20, &settings, Arc::default(), Arc::new(move |_| limits))
}

/// The numbers of the jobs that start now.
fn begin(turns: &mut Turns) -> Vec<u64> {
    std::iter::from_fn(|| turns.begin_next(|_, _| Some(1))).map(|next| next.number).collect()
}

#[test]
fn only_attempts_that_are_put_off_do_not_count() {
    let host = Endpoint::Tcp("192.0.2.1:25".parse().expect("an address"));
    let answered = Contact::Answered(None, Default::default());
    for (contact, address, counts) in [
        (Contact::AtLimit, Some(&host), false),
        // The MTA-STS policy must be fetched first.
        (Contact::Postponed, None, false),
        // The connection was cut short.
        (Contact::Postponed, Some(&host), true),
        (answered, Some(&host), true),
        (Contact::None, None, true),
    ] {
        let (mut turns, destination) = (turns_at("1/h"), Arc::new(Destination::mx("x.test")));
        let id = QueueId::generate().expect("random numbers");
        for index in 0..20 {
            turns.add(&destination, (id, index), (0, 0));
        }
        let begun = begin(&mut turns);
        assert_eq!((begun.len(), turns.paced(&destination).is_some()), (1, true), "{contact:?}");
        for number in begun {
            turns.end((&destination, number), contact.clone(), address.cloned());
        }
        turns.release_parked(&host, 1);
        assert_eq!(turns.paced(&destination).is_some(), counts, "{contact:?} {address:?}");
        assert_eq!(begin(&mut turns).is_empty(), counts, "{contact:?} {address:?}");
        assert_eq!(turns.paces.is_idle(), turns.paced(&destination).is_none(), "{contact:?}");
    }
}
