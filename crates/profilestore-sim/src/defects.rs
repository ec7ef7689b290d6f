//! Does the net catch fish? Each deliberate defect in turn, until a seed finds it.

use std::ops::Range;

use profilestore::Defect;

use crate::world::{self, Size};

/// Prints a table of the defects that the world has a place for, with the first seed that finds
/// each. How many were not found.
pub fn table(seeds: &Range<u64>, size: Size) -> usize {
    let mut missed = 0;
    println!("| defect | first seed | found as |\n| --- | ---: | --- |");
    let of_world = |defect: &Defect| Defect::OF_HOSTING.contains(defect) == size.hosted;
    for (defect, what) in Defect::ALL.iter().filter(|(defect, _)| of_world(defect)) {
        Defect::choose(Some(*defect));
        let found =
            seeds.clone().find_map(|seed| Some((seed, world::run(seed, size, false).violation?)));
        match found {
            Some((seed, violation)) => println!("|{what} | {seed} | {} |", violation.broken),
            None => {
                missed += 1;
                println!("|{what} | none of {} | |", seeds.end - seeds.start);
            }
        }
    }
    Defect::choose(None);
    missed
}
