//! `Random`: Roblox's generator (PCG, 32 bits of a state of 64), which gives the same numbers for
//! the same seed as Luau's `math.random`.

use std::sync::Arc;

use mlua::{Lua, Table, UserData, UserDataRef};
use parking_lot::Mutex;
use profilestore::env::Rng;

use crate::vm::{Failed, Vm};

const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 105;

#[derive(Clone, Copy)]
struct Pcg(u64);

impl Pcg {
    fn new(seed: u64) -> Self {
        let mut new = Self(0);
        new.next();
        new.0 = new.0.wrapping_add(seed);
        new.next();
        new
    }

    #[expect(clippy::cast_possible_truncation, reason = "the generator takes the low bits")]
    fn next(&mut self) -> u32 {
        let old = self.0;
        self.0 = old.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        ((((old >> 18) ^ old) >> 27) as u32).rotate_right((old >> 59) as u32)
    }

    /// At least 0, below 1.
    fn number(&mut self) -> f64 {
        let low = u64::from(self.next());
        let high = u64::from(self.next());
        (low | high << 32) as f64 / 18_446_744_073_709_551_616.0
    }

    /// From `min` to `max`, both included.
    fn integer(&mut self, min: i64, max: i64) -> i64 {
        let span = (i128::from(max) - i128::from(min) + 1).cast_unsigned();
        let offset = if span <= 1 << 32 {
            (span * u128::from(self.next())) >> 32
        } else {
            let bits = u64::from(self.next()) | u64::from(self.next()) << 32;
            (span * u128::from(bits)) >> 64
        };
        #[expect(clippy::cast_possible_truncation, reason = "it lies between the two")]
        let drawn = (i128::from(min) + offset.cast_signed()) as i64;
        drawn
    }
}

struct LuaRandom(Mutex<Pcg>);

impl UserData for LuaRandom {}

pub(super) fn install(vm: &Vm, host: &Table, chance: Arc<dyn Rng>) -> Result<(), Failed> {
    type Own = UserDataRef<LuaRandom>;
    // (seed or nil) -> generator
    let new = move |_: &Lua, seed: Option<f64>| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a seed is as many bits of it as there are"
        )]
        let seed = seed.map_or_else(|| chance.bits() as u64, |seed| (seed as i64).cast_unsigned());
        Ok(LuaRandom(Mutex::new(Pcg::new(seed))))
    };
    host.set("random_new", vm.prompt(new)?)?;
    host.set(
        "random_clone",
        vm.prompt(|_: &Lua, of: Own| Ok(LuaRandom(Mutex::new(*of.0.lock()))))?,
    )?;
    host.set("random_number", vm.prompt(|_: &Lua, of: Own| Ok(of.0.lock().number()))?)?;
    let integer =
        |_: &Lua, (of, min, max): (Own, i64, i64)| Ok(of.0.lock().integer(min, max) as f64);
    host.set("random_integer", vm.prompt(integer)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_luau() {
        let lua = Lua::new();
        let (number, integer): (f64, i64) = lua
            .load("math.randomseed(42) return math.random(), math.random(1, 1000)")
            .eval()
            .expect("two numbers");
        let mut own = Pcg::new(42);
        assert!((own.number() - number).abs() < f64::EPSILON);
        assert_eq!(own.integer(1, 1000), integer);
        assert!((0..1000).all(|_| (-3..=3).contains(&own.integer(-3, 3))));
    }
}
