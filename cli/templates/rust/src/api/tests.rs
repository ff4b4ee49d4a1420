use drawbridge_sdk::{
    mcp::{
        ClientCapabilities, ElicitResult, InputResponse, InputResponses, elicit_result::Action,
        input_response::Kind,
    },
    testing::request_of_person,
    tokio_stream::StreamExt as _,
    tonic::Code,
};

use super::*;
use crate::contract::{{name}}::v1::{Booking, Building, RoomFilter};

/// A request of Alice to book Ada, from a client that can ask, with her answer.
fn booking(answer: Option<Action>) -> Request<BookRequest> {
    let mut input = InputResponses {
        client: Some(ClientCapabilities { elicit_form: true, ..Default::default() }),
        ..Default::default()
    };
    if let Some(action) = answer {
        let result = ElicitResult { action: action.into(), content: None };
        let response = InputResponse { kind: Some(Kind::Elicitation(result)) };
        input.responses.insert("confirm".to_owned(), response);
    }
    let (room_id, purpose) = ("ada".to_owned(), "stand-up".to_owned());
    request_of_person("alice", "acme", BookRequest { room_id, purpose, input: Some(input) })
}

async fn book(api: &Api, request: Request<BookRequest>) -> Result<Vec<Event>, Status> {
    let events = api.book(request).await?.into_inner();
    Ok(events.filter_map(|event| event.ok()?.event).collect().await)
}

#[tokio::test]
async fn a_search_finds_the_rooms_that_meet_all_conditions() {
    let found = async |filter: RoomFilter| {
        let request = SearchRequest { filter: Some(filter), limit: None };
        let response = Api::default().search(Request::new(request)).await.unwrap();
        response.into_inner().rooms.into_iter().map(|room| room.id).collect::<Vec<_>>()
    };
    assert_eq!(found(RoomFilter::default()).await, ["ada", "boole", "curie"]);
    let building = Some(Building::North.into());
    let filter = RoomFilter { building, seats_min: Some(5), ..Default::default() };
    assert_eq!(found(filter).await, ["ada"]);
}

#[tokio::test]
async fn a_booking_is_made_once_the_person_has_confirmed_it() {
    let api = Api::default();
    let asked = book(&api, booking(None)).await.unwrap();
    assert!(matches!(asked[..], [Event::InputRequired(_)]), "{asked:?}");
    let declined = book(&api, booking(Some(Action::Decline))).await.unwrap_err();
    assert_eq!(declined.code(), Code::FailedPrecondition);
    let booked = book(&api, booking(Some(Action::Accept))).await.unwrap();
    let [Event::Progress(_), Event::Progress(_), Event::Booking(Booking { booked_by, .. })] =
        &booked[..]
    else {
        panic!("{booked:?}");
    };
    assert_eq!(booked_by, "alice");
    let again = book(&api, booking(None)).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
}
