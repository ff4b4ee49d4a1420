//! The meeting rooms, and who has booked them. A real service asks a calendar instead.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::contract::{{name}}::v1::{Booking, Building, Equipment, Room, RoomFilter};

/// Bookings by the ids of their rooms. They live as long as the process.
#[derive(Debug, Default)]
pub(crate) struct Bookings(Mutex<BTreeMap<String, Booking>>);

impl Bookings {
    /// The booking of a room.
    pub(crate) fn find(&self, room_id: &str) -> Option<Booking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(room_id).cloned()
    }

    /// Books a room. `None`: it is already booked.
    pub(crate) fn book(&self, room: Room, purpose: String, booked_by: String) -> Option<Booking> {
        let mut bookings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bookings.contains_key(&room.id) {
            return None;
        }
        let id = format!("booking-{}", bookings.len() + 1);
        let booking = Booking { id, room: Some(room.clone()), purpose, booked_by };
        bookings.insert(room.id, booking.clone());
        Some(booking)
    }
}

/// All rooms, by name.
pub(crate) fn rooms() -> [Room; 3] {
    let room = |id: &str, name: &str, building: Building, seats, equipment: &[Equipment]| Room {
        id: id.to_owned(),
        name: name.to_owned(),
        building: building.into(),
        seats,
        equipment: equipment.iter().map(|&item| item.into()).collect(),
    };
    let (screen, whiteboard) = (Equipment::Screen, Equipment::Whiteboard);
    [
        room("ada", "Ada", Building::North, 8, &[screen, whiteboard]),
        room("boole", "Boole", Building::North, 4, &[whiteboard]),
        room("curie", "Curie", Building::South, 20, &[screen, Equipment::Camera]),
    ]
}

/// Whether a room meets all conditions.
pub(crate) fn matches(room: &Room, filter: &RoomFilter) -> bool {
    filter.building.is_none_or(|building| room.building == building)
        && filter.seats_min.is_none_or(|seats| room.seats >= seats)
        && filter.equipment.iter().all(|item| room.equipment.contains(item))
}
