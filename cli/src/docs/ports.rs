//! The ports of a mesh.

use drawbridge_mesh::services;

use super::table;

pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    let rows = services().map(|service| {
        let (port, admin) = (service.port.to_string(), (service.port + 1).to_string());
        [service.name.to_owned(), port, admin, service.serves.to_owned()]
    });
    let table = table(["service", "port", "admin port", "serves"], rows);
    [("ports".to_owned(), table)].into_iter()
}
