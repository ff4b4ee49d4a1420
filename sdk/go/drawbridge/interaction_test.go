package drawbridge

import (
	"context"
	"testing"

	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// sent records the events of a stream. ToolResult has no field for progress, ToolResult's own
// fields stand for none; InputRequest has none either.
type sent[E any] struct {
	grpc.ServerStream
	events []*E
}

func (s *sent[E]) Send(event *E) error {
	s.events = append(s.events, event)
	return nil
}

func (s *sent[E]) Context() context.Context { return context.Background() }

func TestAnEventIsFoundByTheTypeOfItsField(t *testing.T) {
	// A content block has one field of the type TextContent.
	stream := &sent[mcpv1.ContentBlock]{}
	if err := send(stream, &mcpv1.TextContent{Text: "half"}); err != nil {
		t.Fatal(err)
	}
	if text := stream.events[0].GetText().GetText(); text != "half" {
		t.Fatal(text)
	}
	if err := SendProgress(stream, 1, 2, "half"); err == nil || len(stream.events) != 1 {
		t.Fatal("an event without a field for progress is sent")
	}
}

func TestResponsesDistinguishAcceptedDeclinedAndUnasked(t *testing.T) {
	result := func(action mcpv1.ElicitResult_Action) *mcpv1.InputResponse {
		content, err := structpb.NewStruct(map[string]any{"days": 3.0})
		if err != nil {
			t.Fatal(err)
		}
		elicited := &mcpv1.ElicitResult{Action: action, Content: content}
		return &mcpv1.InputResponse{Kind: &mcpv1.InputResponse_Elicitation{Elicitation: elicited}}
	}
	responses := Responses{&mcpv1.InputResponses{
		Responses: map[string]*mcpv1.InputResponse{
			"yes": result(
				mcpv1.ElicitResult_ACTION_ACCEPT,
			), "no": result(mcpv1.ElicitResult_ACTION_DECLINE),
			"unspecified": result(mcpv1.ElicitResult_ACTION_UNSPECIFIED),
		},
		Client: &mcpv1.ClientCapabilities{ElicitForm: true},
	}}
	if yes, given := responses.Answer("yes"); !given || !yes.Accepted || yes.Values["days"] != 3.0 {
		t.Fatal(yes, given)
	}
	for _, key := range []string{"no", "unspecified"} {
		if no, given := responses.Answer(key); !given || no.Accepted || no.Values != nil {
			t.Fatal(key, no, given)
		}
	}
	if _, given := responses.Answer("unasked"); given {
		t.Fatal("an answer that was not given")
	}
	if !responses.CanFillForms() || responses.CanOpenPages() {
		t.Fatal(responses.GetClient())
	}
	// An internal caller has no client.
	if none := (Responses{}); none.CanFillForms() || none.CanSample() || none.Roots("a") != nil {
		t.Fatal("an absent client can be asked")
	}
}

func TestARequiredInputIsAFormWithASchema(t *testing.T) {
	required := Require(
		map[string]*mcpv1.InputRequest{"confirm": Confirmation("Sure?")},
		[]byte("state"),
	)
	form := required.GetRequests()["confirm"].GetForm()
	expected, err := structpb.NewStruct(
		map[string]any{"type": "object", "properties": map[string]any{}},
	)
	if err != nil || !proto.Equal(form.GetRequestedSchema(), expected) ||
		form.GetMessage() != "Sure?" {
		t.Fatal(form, err)
	}
	if _, err := Form("?", map[string]any{"type": make(chan int)}); err == nil {
		t.Fatal("an invalid schema is accepted")
	}
}
