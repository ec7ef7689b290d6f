//! Purchases of developer products, offered to `MarketplaceService.ProcessReceipt` until a server
//! grants them: at once, a while later when it was not granted, and whenever the player joins a
//! server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mlua::{Lua, Table};

use super::world::World;
use crate::vm::{Failed, Vm};

/// How long after an answer other than `PurchaseGranted` the purchase is offered again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is offered on one server until the player joins again.
const OFFERS: u32 = 10;

/// All purchases of a game that are not granted.
#[derive(Default)]
pub(super) struct Purchases {
    open: BTreeMap<String, Purchase>,
    made: u64,
    /// What players own for good: its kind, the user's id and its own.
    owned: BTreeSet<(String, i64, i64)>,
}

#[derive(Clone)]
struct Purchase {
    /// Counts all purchases.
    number: u64,
    user_id: i64,
    product_id: i64,
    /// The servers where it is being processed now.
    processing: Vec<usize>,
    /// How often it was offered since the player joined.
    offers: u32,
}

impl World {
    /// A player buys a product.
    pub(super) fn buy(self: &Arc<Self>, user_id: i64, product_id: i64) {
        let id = self.env.uuid().to_string();
        {
            let purchases = &mut self.inner.lock().purchases;
            purchases.made += 1;
            let purchase = Purchase {
                number: purchases.made,
                user_id,
                product_id,
                processing: Vec::new(),
                offers: 0,
            };
            purchases.open.insert(id.clone(), purchase);
        }
        if let Some(server) = self.servers_of(user_id).last() {
            self.offer(*server, &id);
        }
    }

    fn offer(&self, server: usize, id: &str) {
        let (user_id, product_id) = {
            let mut inner = self.inner.lock();
            let Some(purchase) = inner.purchases.open.get_mut(id) else { return };
            if purchase.processing.contains(&server) {
                return;
            }
            purchase.processing.push(server);
            purchase.offers += 1;
            (purchase.user_id, purchase.product_id)
        };
        self.tell(server, "receipt", (id, user_id, product_id));
    }

    /// `heard`: a callback was there. `granted`: it granted the purchase.
    fn receipt_done(self: &Arc<Self>, server: usize, id: String, heard: bool, granted: bool) {
        let again = {
            let mut inner = self.inner.lock();
            let Some(purchase) = inner.purchases.open.get_mut(&id) else { return };
            purchase.processing.retain(|on| *on != server);
            if granted {
                inner.purchases.open.remove(&id);
                return;
            }
            heard && purchase.offers < OFFERS
        };
        if again {
            let world = self.clone();
            self.spawn(async move {
                tokio::time::sleep(AGAIN).await;
                let user_id =
                    world.inner.lock().purchases.open.get(&id).map(|purchase| purchase.user_id);
                if user_id.is_some_and(|user_id| world.servers_of(user_id).contains(&server)) {
                    world.offer(server, &id);
                }
            });
        }
    }
}

/// Offers what is not granted yet, of one player or of all who are on the server.
pub(super) fn offer_all(world: &Arc<World>, server: usize, user_id: Option<i64>) {
    // In the order in which they were made.
    let mut ids: Vec<(u64, String, i64)> = {
        let mut inner = world.inner.lock();
        let open = inner.purchases.open.iter_mut();
        let wanted =
            open.filter(|(_, purchase)| user_id.is_none_or(|user_id| purchase.user_id == user_id));
        wanted
            .map(|(id, purchase)| {
                purchase.offers = 0;
                (purchase.number, id.clone(), purchase.user_id)
            })
            .collect()
    };
    ids.sort_unstable();
    for (_, id, user_id) in ids {
        if world.servers_of(user_id).contains(&server) {
            world.offer(server, &id);
        }
    }
}

pub(super) fn install(
    vm: &Vm,
    host: &Table,
    world: &Arc<World>,
    server: usize,
) -> Result<(), Failed> {
    let own = world.clone();
    let buy = move |_: &Lua, (user_id, product_id): (i64, i64)| {
        own.buy(user_id, product_id);
        Ok(())
    };
    host.set("buy", vm.prompt(buy)?)?;
    let own = world.clone();
    let acquire = move |_: &Lua, (kind, user_id, id): (String, i64, i64)| {
        own.inner.lock().purchases.owned.insert((kind, user_id, id));
        Ok(())
    };
    host.set("acquire", vm.prompt(acquire)?)?;
    let own = world.clone();
    let owns = move |_: &Lua, owned: (String, i64, i64)| {
        Ok(own.inner.lock().purchases.owned.contains(&owned))
    };
    host.set("owns", vm.prompt(owns)?)?;
    let own = world.clone();
    let offer = move |_: &Lua, ()| {
        let world = own.clone();
        own.spawn(async move { offer_all(&world, server, None) });
        Ok(())
    };
    host.set("offer_receipts", vm.prompt(offer)?)?;
    let own = world.clone();
    let done = move |_: &Lua, (id, heard, granted): (String, bool, bool)| {
        own.receipt_done(server, id, heard, granted);
        Ok(())
    };
    host.set("receipt_done", vm.prompt(done)?)?;
    Ok(())
}
