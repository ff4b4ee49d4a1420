package rooms_test

import (
	"errors"
	"io"
	"testing"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/{{kebab}}/gen"
	pb "example.com/{{kebab}}/gen/{{name}}/v1"
	"example.com/{{kebab}}/internal/rooms"
)

// alice is a client that calls a running service as alice.
func alice(t *testing.T) pb.{{Camel}}ServiceClient {
	t.Helper()
	running := drawbridgetest.Start(t, drawbridge.Service{
		Name:     "{{name}}",
		Contract: gen.Contract,
		Register: func(server grpc.ServiceRegistrar) error {
			pb.Register{{Camel}}ServiceServer(server, rooms.New())
			return nil
		},
	})
	return pb.New{{Camel}}ServiceClient(running.As("alice"))
}

// book calls Book with these responses of the client, and returns the events.
func book(
	t *testing.T,
	client pb.{{Camel}}ServiceClient,
	room string,
	input *mcpv1.InputResponses,
) ([]*pb.BookEvent, error) {
	t.Helper()
	stream, err := client.Book(
		t.Context(),
		&pb.BookRequest{RoomId: room, Purpose: "stand-up", Input: input},
	)
	if err != nil {
		t.Fatal(err)
	}
	var events []*pb.BookEvent
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return events, err
		}
		events = append(events, event)
	}
}

// answered is what a client sends when the person has answered.
func answered(action mcpv1.ElicitResult_Action) *mcpv1.InputResponses {
	elicited := &mcpv1.InputResponse_Elicitation{Elicitation: &mcpv1.ElicitResult{Action: action}}
	return &mcpv1.InputResponses{
		Responses: map[string]*mcpv1.InputResponse{"confirm": {Kind: elicited}},
	}
}

func TestASearchReturnsTheRoomsThatMeetAllConditions(t *testing.T) {
	north := pb.Building_BUILDING_NORTH
	seats, one := uint32(5), uint32(1)
	client := alice(t)
	for name, test := range map[string]struct {
		request  *pb.SearchRequest
		expected []string
	}{
		"all":       {&pb.SearchRequest{}, []string{"ada", "boole", "curie"}},
		"limited":   {&pb.SearchRequest{Limit: &one}, []string{"ada"}},
		"building":  {&pb.SearchRequest{Filter: &pb.RoomFilter{Building: &north}}, []string{"ada", "boole"}},
		"seats":     {&pb.SearchRequest{Filter: &pb.RoomFilter{Building: &north, SeatsMin: &seats}}, []string{"ada"}},
		"equipment": {&pb.SearchRequest{Filter: &pb.RoomFilter{Equipment: []pb.Equipment{pb.Equipment_EQUIPMENT_CAMERA}}}, []string{"curie"}},
	} {
		response, err := client.Search(t.Context(), test.request)
		if err != nil || len(response.GetRooms()) != len(test.expected) {
			t.Fatalf("%s: %v, %v", name, response, err)
		}
		for index, room := range response.GetRooms() {
			if room.GetId() != test.expected[index] {
				t.Errorf("%s: %v", name, response)
			}
		}
	}
}

func TestARoomIsBookedOnceThePersonHasConfirmed(t *testing.T) {
	client := alice(t)
	asking := &mcpv1.InputResponses{Client: &mcpv1.ClientCapabilities{ElicitForm: true}}
	events, err := book(t, client, "ada", asking)
	const question = "Book Ada (8 seats) for: stand-up?"
	if err != nil ||
		events[0].GetInputRequired().GetRequests()["confirm"].GetForm().GetMessage() != question {
		t.Fatal(events, err)
	}
	if _, err := book(t, client, "ada", answered(mcpv1.ElicitResult_ACTION_DECLINE)); status.Code(
		err,
	) != codes.FailedPrecondition {
		t.Fatal(err)
	}
	events, err = book(t, client, "ada", answered(mcpv1.ElicitResult_ACTION_ACCEPT))
	if err != nil || len(events) != 3 || events[1].GetProgress().GetMessage() != "booked" {
		t.Fatal(events, err)
	}
	if booking := events[2].GetBooking(); booking.GetRoom().GetId() != "ada" ||
		booking.GetBookedBy() != "alice" {
		t.Fatal(booking)
	}
	if _, err := book(t, client, "ada", asking); status.Code(err) != codes.AlreadyExists {
		t.Fatal(err)
	}
}

func TestAnUnknownRoomAndAClientThatCannotAskAreRefused(t *testing.T) {
	client := alice(t)
	if _, err := book(t, client, "zuse", nil); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	if _, err := book(t, client, "ada", nil); status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
}
