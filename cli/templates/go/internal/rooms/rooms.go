// Package rooms finds and books meeting rooms.
package rooms

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/{{kebab}}/gen/{{name}}/v1"
)

// limitDefault is how many rooms a search returns at most if the request does not say.
const limitDefault = 20

// Service serves the contract with sample rooms, in memory.
type Service struct {
	pb.Unimplemented{{Camel}}ServiceServer

	rooms []*pb.Room
	mutex sync.Mutex
	// booked are the ids of the booked rooms.
	booked map[string]bool
}

// New is a service whose rooms are free.
func New() *Service {
	room := func(id, name string, building pb.Building, seats uint32, equipment ...pb.Equipment) *pb.Room {
		return &pb.Room{Id: id, Name: name, Building: building, Seats: seats, Equipment: equipment}
	}
	north, south := pb.Building_BUILDING_NORTH, pb.Building_BUILDING_SOUTH
	screen, whiteboard := pb.Equipment_EQUIPMENT_SCREEN, pb.Equipment_EQUIPMENT_WHITEBOARD
	return &Service{
		rooms: []*pb.Room{
			room("ada", "Ada", north, 8, screen, whiteboard),
			room("boole", "Boole", north, 4, whiteboard),
			room("curie", "Curie", south, 20, screen, pb.Equipment_EQUIPMENT_CAMERA),
		},
		booked: map[string]bool{},
	}
}

// Search finds rooms. The edge has checked the request by the rules of the contract.
func (s *Service) Search(_ context.Context, request *pb.SearchRequest) (*pb.SearchResponse, error) {
	limit := limitDefault
	if request.Limit != nil {
		limit = int(request.GetLimit())
	}
	response := &pb.SearchResponse{}
	for _, room := range s.rooms {
		if len(response.Rooms) < limit && matches(room, request.GetFilter()) {
			response.Rooms = append(response.Rooms, room)
		}
	}
	return response, nil
}

// matches reports whether a room meets all conditions. A filter that is absent has none.
func matches(room *pb.Room, filter *pb.RoomFilter) bool {
	isMissing := func(wanted pb.Equipment) bool { return !slices.Contains(room.GetEquipment(), wanted) }
	return (filter.GetBuilding() == 0 || filter.GetBuilding() == room.GetBuilding()) &&
		filter.GetSeatsMin() <= room.GetSeats() &&
		!slices.ContainsFunc(filter.GetEquipment(), isMissing)
}

// Book books a room once the person has confirmed it.
func (s *Service) Book(request *pb.BookRequest, stream grpc.ServerStreamingServer[pb.BookEvent]) error {
	room, err := s.free(request.GetRoomId())
	if err != nil {
		return err
	}
	responses := drawbridge.Responses{InputResponses: request.GetInput()}
	answer, isAnswered := responses.Answer("confirm")
	switch {
	case !isAnswered && !responses.CanFillForms():
		return status.Error(codes.FailedPrecondition,
			"a booking needs the person's confirmation, and this client cannot ask for it")
	case !isAnswered:
		question := fmt.Sprintf(
			"Book %s (%d seats) for: %s?",
			room.GetName(),
			room.GetSeats(),
			request.GetPurpose(),
		)
		requests := map[string]*mcpv1.InputRequest{"confirm": drawbridge.Confirmation(question)}
		return drawbridge.SendInputRequired(stream, drawbridge.Require(requests, nil))
	case !answer.Accepted:
		return status.Error(codes.FailedPrecondition, "the person did not confirm the booking")
	}
	if err := drawbridge.SendProgress(stream, 1, 2, "checking the calendar"); err != nil {
		return err
	}
	if err := s.book(room); err != nil {
		return err
	}
	if err := drawbridge.SendProgress(stream, 2, 2, "booked"); err != nil {
		return err
	}
	booking := &pb.Booking{
		Id:       rand.Text(),
		Room:     room,
		Purpose:  request.GetPurpose(),
		BookedBy: drawbridge.CallerFrom(stream.Context()).Subject,
	}
	return stream.Send(&pb.BookEvent{Event: &pb.BookEvent_Booking{Booking: booking}})
}

// free is a room that is not booked.
func (s *Service) free(id string) (*pb.Room, error) {
	index := slices.IndexFunc(s.rooms, func(room *pb.Room) bool { return room.GetId() == id })
	if index < 0 {
		return nil, status.Errorf(codes.NotFound, "room_id: no room `%s`; search for one", id)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.rooms[index], s.checkFree(id)
}

// book books a room, unless another caller has done so meanwhile.
func (s *Service) book(room *pb.Room) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.checkFree(room.GetId()); err != nil {
		return err
	}
	s.booked[room.GetId()] = true
	return nil
}

// checkFree checks that a room is not booked. The caller holds the lock.
func (s *Service) checkFree(id string) error {
	if s.booked[id] {
		return status.Errorf(codes.AlreadyExists, "room `%s` is already booked", id)
	}
	return nil
}
