//! The module ProfileStore.

use crate::check;

#[test]
fn the_module_loads() {
    check("assert(type(require('ProfileStore')) == 'table')");
}
