package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/mcpv1"

	pb "drawbridge.test/conformance/gen"
)

type requests = map[string]*mcpv1.InputRequest

func ask(requests requests, state string) (*pb.Answer, error) {
	return &pb.Answer{InputRequired: drawbridge.Require(requests, []byte(state))}, nil
}

func responses(request interface {
	GetInteraction() *mcpv1.InputResponses
}) drawbridge.Responses {
	return drawbridge.Responses{InputResponses: request.GetInteraction()}
}

// form is a form whose schema is JSON text.
func form(message, schema string) *mcpv1.InputRequest {
	var parsed map[string]any
	if err := json.Unmarshal([]byte(schema), &parsed); err != nil {
		panic(err)
	}
	request, err := drawbridge.Form(message, parsed)
	if err != nil {
		panic(err)
	}
	return request
}

func textForm(message, field string) *mcpv1.InputRequest {
	return form(message, fmt.Sprintf(
		`{"type":"object","properties":{%q:{"type":"string"}},"required":[%q]}`, field, field))
}

func sampling(prompt string) *mcpv1.InputRequest {
	message := &mcpv1.SamplingMessage{
		Role: mcpv1.Role_ROLE_USER, Content: []*mcpv1.ContentBlock{text(prompt)},
	}
	return drawbridge.Sample(
		&mcpv1.Sampling{Messages: []*mcpv1.SamplingMessage{message}, MaxTokens: 100},
	)
}

// sampled is the text that the client's model has written.
func sampled(given drawbridge.Responses, key string) (string, bool) {
	result := given.Sampled(key)
	if len(result.GetContent()) == 0 {
		return "", false
	}
	return result.GetContent()[0].GetText().GetText(), true
}

// value is a text of an accepted form.
func value(given drawbridge.Responses, key, field string) (string, bool) {
	answer, _ := given.Answer(key)
	text, ok := answer.Values[field].(string)
	return text, answer.Accepted && ok
}

// outcome elicits a form once, and reports the user's action and content.
func outcome(
	prefix string,
	request *mcpv1.InputRequest,
	given drawbridge.Responses,
) (*pb.Answer, error) {
	answer, isGiven := given.Answer("answer")
	if !isGiven {
		return ask(requests{"answer": request}, "")
	}
	result := given.GetResponses()["answer"].GetElicitation()
	action := strings.ToLower(strings.TrimPrefix(result.GetAction().String(), "ACTION_"))
	content, err := json.Marshal(answer.Values)
	if err != nil {
		return nil, err
	}
	return reply(text(fmt.Sprintf("%s: action=%s, content=%s", prefix, action, content)))
}

func (s *service) Elicitation(_ context.Context, request *pb.Messaged) (*pb.Answer, error) {
	schema := `{"type":"object","properties":{
		"username":{"type":"string","description":"User's response"},
		"email":{"type":"string","description":"User's email address"}},
		"required":["username","email"]}`
	return outcome("User response", form(request.GetMessage(), schema), responses(request))
}

func (s *service) ElicitationSep1034Defaults(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	schema := `{"type":"object","required":[],"properties":{
		"name":{"type":"string","default":"John Doe"},
		"age":{"type":"integer","default":30},
		"score":{"type":"number","default":95.5},
		"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},
		"verified":{"type":"boolean","default":true}}}`
	return outcome(
		"Elicitation completed",
		form("Please fill in the form", schema),
		responses(request),
	)
}

func (s *service) ElicitationSep1330Enums(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	titled := func(what string) string {
		return fmt.Sprintf(
			`[{"const":"value1","title":"First %[1]s"},{"const":"value2","title":"Second %[1]s"},`+
				`{"const":"value3","title":"Third %[1]s"}]`,
			what,
		)
	}
	schema := `{"type":"object","required":[],"properties":{
		"untitledSingle":{"type":"string","enum":["option1","option2","option3"]},
		"titledSingle":{"type":"string","oneOf":` + titled("Option") + `},
		"legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],
			"enumNames":["Option One","Option Two","Option Three"]},
		"untitledMulti":{"type":"array","items":{"type":"string","enum":["option1","option2","option3"]}},
		"titledMulti":{"type":"array","items":{"anyOf":` + titled("Choice") + `}}}}`
	return outcome("Elicitation completed", form("Please choose", schema), responses(request))
}

func (s *service) Sampling(_ context.Context, request *pb.Prompted) (*pb.Answer, error) {
	if written, ok := sampled(responses(request), "answer"); ok {
		return reply(text("LLM response: " + written))
	}
	return ask(requests{"answer": sampling(request.GetPrompt())}, "")
}

func (s *service) InputRequiredResultElicitation(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	if name, ok := value(responses(request), "user_name", "name"); ok {
		return reply(text("Hello, " + name + "!"))
	}
	return ask(requests{"user_name": textForm("What is your name?", "name")}, "")
}

func (s *service) InputRequiredResultSampling(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	if written, ok := sampled(responses(request), "capital_question"); ok {
		return reply(text(written))
	}
	return ask(requests{"capital_question": sampling("What is the capital of France?")}, "")
}

func (s *service) MissingCapability(ctx context.Context, request *pb.Asking) (*pb.Answer, error) {
	return s.InputRequiredResultSampling(ctx, request)
}

func (s *service) InputRequiredResultListRoots(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	roots := responses(request).Roots("client_roots")
	if roots == nil {
		return ask(requests{"client_roots": drawbridge.Roots()}, "")
	}
	var uris []string
	for _, root := range roots.GetRoots() {
		uris = append(uris, root.GetUri())
	}
	return reply(text(strings.Join(uris, " ")))
}

func (s *service) InputRequiredResultRequestState(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	given := responses(request)
	if answer, _ := given.Answer("confirm"); !answer.Accepted {
		schema := `{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}`
		return ask(requests{"confirm": form("Please confirm", schema)}, "the state")
	}
	if string(given.GetState()) == "the state" {
		return reply(text("state-ok"))
	}
	return reply(text("state-lost"))
}

func (s *service) InputRequiredResultTamperedState(
	ctx context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	return s.InputRequiredResultRequestState(ctx, request)
}

func (s *service) InputRequiredResultMultipleInputs(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	given := responses(request)
	name, hasName := value(given, "user_name", "name")
	greeting, hasGreeting := sampled(given, "greeting")
	if roots := given.Roots("client_roots"); hasName && hasGreeting && roots != nil {
		return reply(text(fmt.Sprintf("%s: %s (%d roots)", name, greeting, len(roots.GetRoots()))))
	}
	return ask(requests{
		"user_name":    textForm("What is your name?", "name"),
		"greeting":     sampling("Write a greeting."),
		"client_roots": drawbridge.Roots(),
	}, "several")
}

func (s *service) InputRequiredResultMultiRound(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	given := responses(request)
	first, _ := given.Answer("step1")
	second, _ := given.Answer("step2")
	switch state := string(given.GetState()); {
	case state == "round 2" && second.Accepted:
		return reply(text("done in two rounds"))
	case state == "round 1" && first.Accepted:
		return ask(
			requests{"step2": textForm("What is your favourite colour?", "color")},
			"round 2",
		)
	default:
		return ask(requests{"step1": textForm("What is your name?", "name")}, "round 1")
	}
}

func (s *service) InputRequiredResultCapabilities(
	_ context.Context,
	request *pb.Asking,
) (*pb.Answer, error) {
	given := responses(request)
	switch {
	case given.GetResponses()["asked"] != nil:
		return reply(text("thank you"))
	case given.CanFillForms():
		return ask(requests{"asked": textForm("What is your name?", "name")}, "")
	case given.CanSample():
		return ask(requests{"asked": sampling("What is the capital of France?")}, "")
	default:
		return ask(requests{"asked": drawbridge.Roots()}, "")
	}
}

func (s *service) InputRequiredResultPrompt(
	_ context.Context,
	request *pb.Asking,
) (*pb.Prompt, error) {
	context, ok := value(responses(request), "user_context", "context")
	if !ok {
		asked := requests{
			"user_context": textForm("What context should the prompt use?", "context"),
		}
		return &pb.Prompt{InputRequired: drawbridge.Require(asked, nil)}, nil
	}
	return prompt(text("In the context of " + context))
}
