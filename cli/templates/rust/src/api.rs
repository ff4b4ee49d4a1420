//! The RPCs. Every request comes with a verified caller, and its arguments meet the contract's
//! `buf.validate` rules when an AI client sent them.

use std::vec;

use drawbridge_sdk::{
    Confirmation, ConfirmationError, VerifiedCaller,
    mcp::Progress,
    tokio_stream,
    tonic::{self, Request, Response, Status},
};

use crate::{
    bookings::{Bookings, matches, rooms},
    contract::{{name}}::v1::{
        BookEvent, BookRequest, Room, SearchRequest, SearchResponse, book_event::Event,
        {{name}}_service_server::{{Camel}}Service,
    },
};

/// The maximum number of found rooms, unless the caller gives another one.
const LIMIT: u32 = 20;

const CANNOT_ASK: &str =
    "a booking needs the person's confirmation, and this client cannot ask for it";

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Api {
    bookings: Bookings,
}

/// The events of a call, in their order.
type Events = tokio_stream::Iter<vec::IntoIter<Result<BookEvent, Status>>>;

#[tonic::async_trait]
impl {{Camel}}Service for Api {
    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        let SearchRequest { filter, limit } = request.into_inner();
        let filter = filter.unwrap_or_default();
        let found = rooms().into_iter().filter(|room| matches(room, &filter));
        let limit = usize::try_from(limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX);
        Ok(Response::new(SearchResponse { rooms: found.take(limit).collect() }))
    }

    type BookStream = Events;

    async fn book(&self, request: Request<BookRequest>) -> Result<Response<Events>, Status> {
        let caller = VerifiedCaller::require(&request)?.clone();
        let BookRequest { room_id, purpose, input } = request.into_inner();
        let Some(room) = rooms().into_iter().find(|room| room.id == room_id) else {
            return Err(Status::not_found(format!(
                "room_id: no room `{room_id}`; search for one"
            )));
        };
        if self.bookings.find(&room_id).is_some() {
            return Err(already_booked(&room_id));
        }
        let confirmation = confirmation(&room, &purpose);
        if let Some(question) = confirmation.check(&caller, input.as_ref()).map_err(unconfirmed)? {
            let client = input.and_then(|input| input.client).unwrap_or_default();
            if !client.elicit_form {
                return Err(Status::failed_precondition(CANNOT_ASK));
            }
            return Ok(events([Event::InputRequired(question)]));
        }
        let booked_by = caller.claims.sub.clone();
        let booking = self.bookings.book(room, purpose, booked_by);
        let booking = booking.ok_or_else(|| already_booked(&room_id))?;
        Ok(events([
            Event::Progress(progress(1.0, "checking the calendar")),
            Event::Progress(progress(2.0, "booked")),
            Event::Booking(booking),
        ]))
    }
}

fn events<const N: usize>(events: [Event; N]) -> Response<Events> {
    let events: Vec<_> =
        events.into_iter().map(|event| Ok(BookEvent { event: Some(event) })).collect();
    Response::new(tokio_stream::iter(events))
}

fn progress(progress: f64, message: &str) -> Progress {
    Progress { progress, total: Some(2.0), message: message.to_owned() }
}

/// What the person confirms.
fn confirmation(room: &Room, purpose: &str) -> Confirmation {
    Confirmation::new(format!("Book {} ({} seats) for: {purpose}?", room.name, room.seats))
}

fn already_booked(room_id: &str) -> Status {
    Status::already_exists(format!("room `{room_id}` is already booked"))
}

fn unconfirmed(error: ConfirmationError) -> Status {
    match error {
        ConfirmationError::Declined => {
            Status::failed_precondition("the person did not confirm the booking")
        }
        ConfirmationError::NoPerson => error.into(),
    }
}

#[cfg(test)]
mod tests;
