package drawbridge

import (
	"fmt"

	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// Event is the pointer to the message type of a stream.
type Event[E any] interface {
	*E
	proto.Message
}

// SendProgress sends progress to clients that requested it. The progress must increase with each
// event; a total of zero is unknown. The stream's events need a field of the type
// drawbridge.mcp.v1.Progress.
func SendProgress[E any, P Event[E]](
	stream grpc.ServerStreamingServer[E], progress, total float64, message string,
) error {
	sent := &mcpv1.Progress{Progress: progress, Message: message}
	if total > 0 {
		sent.Total = &total
	}
	return send[E, P](stream, sent)
}

// SendLog sends a log message, whose data is any value that JSON can express. The stream's events
// need a field of the type drawbridge.mcp.v1.LogMessage.
func SendLog[E any, P Event[E]](
	stream grpc.ServerStreamingServer[E], level mcpv1.LogMessage_Level, logger string, data any,
) error {
	value, err := structpb.NewValue(data)
	if err != nil {
		return fmt.Errorf("the data of a log message: %w", err)
	}
	return send[E, P](stream, &mcpv1.LogMessage{Level: level, Logger: logger, Data: value})
}

// SendInputRequired ends a streaming call that needs input; return nil after it. The stream's
// events need a field of the type drawbridge.mcp.v1.InputRequired.
func SendInputRequired[E any, P Event[E]](
	stream grpc.ServerStreamingServer[E], required *mcpv1.InputRequired,
) error {
	return send[E, P](stream, required)
}

// send sends an event whose field of the part's type has this value.
func send[E any, P Event[E]](stream grpc.ServerStreamingServer[E], part proto.Message) error {
	event := new(E)
	message := P(event).ProtoReflect()
	wanted := part.ProtoReflect().Descriptor().FullName()
	fields := message.Descriptor().Fields()
	for index := range fields.Len() {
		field := fields.Get(index)
		if field.Message() != nil && !field.IsList() && field.Message().FullName() == wanted {
			message.Set(field, protoreflect.ValueOfMessage(part.ProtoReflect()))
			return stream.Send(event)
		}
	}
	return fmt.Errorf("%s has no field of the type %s", message.Descriptor().FullName(), wanted)
}

// Require ends a call that needs input: put its result into the response's field of the type
// drawbridge.mcp.v1.InputRequired, or send it with [SendInputRequired]. The edge asks the client
// and calls the RPC again with the responses, under the same keys, and with the state, which the
// client can neither read nor change.
func Require(requests map[string]*mcpv1.InputRequest, state []byte) *mcpv1.InputRequired {
	return &mcpv1.InputRequired{Requests: requests, State: state}
}

// Form asks the person for values. The schema is a JSON Schema of a flat object with primitive
// properties, in the types that encoding/json decodes into; nil asks for consent alone.
func Form(message string, schema map[string]any) (*mcpv1.InputRequest, error) {
	if schema == nil {
		schema = map[string]any{"type": "object", "properties": map[string]any{}}
	}
	requested, err := structpb.NewStruct(schema)
	if err != nil {
		return nil, fmt.Errorf("the schema of a form: %w", err)
	}
	form := &mcpv1.ElicitForm{Message: message, RequestedSchema: requested}
	return &mcpv1.InputRequest{Kind: &mcpv1.InputRequest_Form{Form: form}}, nil
}

// Confirmation asks the person for consent.
func Confirmation(message string) *mcpv1.InputRequest {
	// The schema is valid, so this cannot fail.
	request, _ := Form(message, nil)
	return request
}

// Page asks the person to open a page, for data that must not pass through the client. A response
// means that the person agreed to open it, not that they have finished there.
func Page(message, url string) *mcpv1.InputRequest {
	page := &mcpv1.ElicitUrl{Message: message, Url: url}
	return &mcpv1.InputRequest{Kind: &mcpv1.InputRequest_Url{Url: page}}
}

// Sample requests a message from the client's model.
func Sample(sampling *mcpv1.Sampling) *mcpv1.InputRequest {
	return &mcpv1.InputRequest{Kind: &mcpv1.InputRequest_Sampling{Sampling: sampling}}
}

// Roots requests the client's roots.
func Roots() *mcpv1.InputRequest {
	return &mcpv1.InputRequest{Kind: &mcpv1.InputRequest_Roots{Roots: &mcpv1.ListRoots{}}}
}

// Responses are the client's responses to a service's requests, and what it can be asked. Convert a
// request's field of the type drawbridge.mcp.v1.InputResponses, which may be nil: Responses{field}.
type Responses struct{ *mcpv1.InputResponses }

// CanFillForms reports whether the client can ask its user to fill in forms. It is false where there
// is no client, as for internal callers.
func (r Responses) CanFillForms() bool { return r.GetClient().GetElicitForm() }

// CanOpenPages reports whether the client can ask its user to open pages.
func (r Responses) CanOpenPages() bool { return r.GetClient().GetElicitUrl() }

// CanSample reports whether the client's model can be asked.
func (r Responses) CanSample() bool { return r.GetClient().GetSampling() }

// CanListRoots reports whether the client lists its roots.
func (r Responses) CanListRoots() bool { return r.GetClient().GetRoots() }

// Answer is a person's response to a form or a page.
type Answer struct {
	// Accepted reports whether the person accepted. Otherwise they declined, or dismissed it.
	Accepted bool
	// Values are the values of an accepted form, in the types that encoding/json decodes into.
	Values map[string]any
}

// Answer is the response to a form or a page; false without one, and the service asks.
func (r Responses) Answer(key string) (Answer, bool) {
	result := r.GetResponses()[key].GetElicitation()
	if result == nil {
		return Answer{}, false
	}
	accepted := result.GetAction() == mcpv1.ElicitResult_ACTION_ACCEPT
	if !accepted {
		return Answer{}, true
	}
	return Answer{Accepted: true, Values: result.GetContent().AsMap()}, true
}

// Sampled is what the client's model has written; nil if it was not asked yet.
func (r Responses) Sampled(key string) *mcpv1.SamplingResult {
	return r.GetResponses()[key].GetSampling()
}

// Roots are the client's roots; nil if it was not asked yet.
func (r Responses) Roots(key string) *mcpv1.Roots {
	return r.GetResponses()[key].GetRoots()
}
