// Command conformance is the tool service that the official MCP conformance suite expects, on the
// SDK for Go. Its contract is tests/proto/conformance.proto.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "drawbridge.test/conformance/gen"
)

const (
	png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="
	wav = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
)

// service has the handlers.
type service struct {
	pb.UnimplementedConformanceServiceServer

	// changed are the descriptions of the contract that are written in capitals.
	changed atomic.Uint32
	// fixed: the contract does not change, so that the service is not restarted.
	fixed bool
	// restart restarts the service with the changed contract.
	restart chan struct{}
}

const (
	toolsChanged uint32 = 1 << iota
	promptsChanged
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run serves until SIGTERM, and again at the same addresses after each change of the contract.
func run() error {
	handlers := &service{restart: make(chan struct{}, 1)}
	described := drawbridge.Service{Name: "test", About: "The service of the conformance suite"}
	described.Register = func(server grpc.ServiceRegistrar) error {
		pb.RegisterConformanceServiceServer(server, handlers)
		return nil
	}
	described.Flags = func(flags *flag.FlagSet) {
		flags.BoolVar(&handlers.fixed, "fixed-contract", false, "do not change the contract")
	}
	config, err := described.Parse(os.Args[1:])
	if err != nil {
		return err
	}
	slog.SetDefault(
		slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: rename})),
	)
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for {
		described.Contract = handlers.contract()
		running, err := drawbridge.Start(described, config)
		if err != nil {
			return err
		}
		config.Listen, config.AdminListen = running.Address.String(), running.Admin.String()
		slog.Info("serving", "address", config.Listen, "admin", config.AdminListen)
		select {
		case <-stopping.Done():
			running.Stop()
			return nil
		case <-handlers.restart:
			running.Stop()
		}
	}
}

func rename(_ []string, attribute slog.Attr) slog.Attr {
	if attribute.Key == slog.MessageKey {
		attribute.Key = "message"
	}
	return attribute
}

// contract is the contract. A changed part has another description of the same length.
func (s *service) contract() []byte {
	contract, changed := bytes.Clone(pb.Contract), s.changed.Load()
	for flag, text := range map[uint32]string{
		toolsChanged: "Returns a text.", promptsChanged: "A prompt that needs input.",
	} {
		if changed&flag != 0 {
			contract = bytes.Replace(contract, []byte(text), bytes.ToUpper([]byte(text)), 1)
		}
	}
	return contract
}

func (s *service) change(flag uint32) (*pb.Answer, error) {
	for {
		old := s.changed.Load()
		if s.changed.CompareAndSwap(old, old^flag) {
			break
		}
	}
	if !s.fixed {
		s.restart <- struct{}{}
	}
	return reply(text("it changes"))
}

func (s *service) TriggerToolChange(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return s.change(toolsChanged)
}

func (s *service) TriggerPromptChange(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return s.change(promptsChanged)
}

func decoded(text string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return data
}

func text(text string) *mcpv1.ContentBlock {
	return &mcpv1.ContentBlock{Kind: &mcpv1.ContentBlock_Text{Text: &mcpv1.TextContent{Text: text}}}
}

func image() *mcpv1.ContentBlock {
	image := &mcpv1.ImageContent{Data: decoded(png), MimeType: "image/png"}
	return &mcpv1.ContentBlock{Kind: &mcpv1.ContentBlock_Image{Image: image}}
}

func resource(uri, mimeType, text string) *mcpv1.ContentBlock {
	contents := &mcpv1.ResourceContents{
		Uri: uri, MimeType: mimeType, Contents: &mcpv1.ResourceContents_Text{Text: text},
	}
	return &mcpv1.ContentBlock{Kind: &mcpv1.ContentBlock_Resource{Resource: contents}}
}

func reply(content ...*mcpv1.ContentBlock) (*pb.Answer, error) {
	return &pb.Answer{Result: &mcpv1.ToolResult{Content: content}}, nil
}

func (s *service) SimpleText(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return reply(text("This is a simple text response for testing."))
}

func (s *service) ImageContent(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return reply(image())
}

func (s *service) AudioContent(context.Context, *pb.Nothing) (*pb.Answer, error) {
	audio := &mcpv1.AudioContent{Data: decoded(wav), MimeType: "audio/wav"}
	return reply(&mcpv1.ContentBlock{Kind: &mcpv1.ContentBlock_Audio{Audio: audio}})
}

func (s *service) EmbeddedResource(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return reply(
		resource("test://embedded-resource", "text/plain", "This is an embedded resource content."),
	)
}

func (s *service) MultipleContentTypes(context.Context, *pb.Nothing) (*pb.Answer, error) {
	json := resource(
		"test://mixed-content-resource",
		"application/json",
		`{"test":"data","value":123}`,
	)
	return reply(text("Multiple content types test:"), image(), json)
}

func (s *service) ErrorHandling(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return nil, status.Error(
		codes.FailedPrecondition,
		"This tool intentionally returns an error for testing",
	)
}

func (s *service) Reconnection(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return reply(text("done"))
}

func (s *service) JsonSchema(context.Context, *pb.Nothing) (*pb.Answer, error) {
	return reply(text("done"))
}

func (s *service) CustomHeader(_ context.Context, request *pb.Headed) (*pb.Answer, error) {
	return reply(text(request.GetValue()))
}

func (s *service) WhoAmI(ctx context.Context, _ *pb.Introduced) (*pb.Answer, error) {
	caller := drawbridge.CallerFrom(ctx)
	return reply(text(caller.Subject + " of " + caller.Tenant))
}

func contents(text string) (*pb.Contents, error) {
	return &pb.Contents{
		Contents: &mcpv1.ResourceContents{Contents: &mcpv1.ResourceContents_Text{Text: text}},
	}, nil
}

func (s *service) StaticText(context.Context, *pb.Nothing) (*pb.Contents, error) {
	return contents("This is the content of the static text resource.")
}

func (s *service) StaticBinary(context.Context, *pb.Nothing) (*pb.Contents, error) {
	blob := &mcpv1.ResourceContents_Blob{Blob: decoded(png)}
	return &pb.Contents{Contents: &mcpv1.ResourceContents{Contents: blob}}, nil
}

func (s *service) WatchedResource(context.Context, *pb.Nothing) (*pb.Contents, error) {
	return contents("This resource can be watched.")
}

func (s *service) TemplateData(_ context.Context, request *pb.Identified) (*pb.Contents, error) {
	return contents(
		fmt.Sprintf(
			`{"id":%q,"templateTest":true,"data":"Data for ID: %s"}`,
			request.GetId(),
			request.GetId(),
		),
	)
}

func prompt(content ...*mcpv1.ContentBlock) (*pb.Prompt, error) {
	prompt := &pb.Prompt{}
	for _, block := range content {
		message := &mcpv1.PromptMessage{Role: mcpv1.Role_ROLE_USER, Content: block}
		prompt.Messages = append(prompt.Messages, message)
	}
	return prompt, nil
}

func (s *service) SimplePrompt(context.Context, *pb.Nothing) (*pb.Prompt, error) {
	return prompt(text("This is a simple prompt for testing."))
}

func (s *service) PromptWithArguments(
	_ context.Context,
	request *pb.TwoArguments,
) (*pb.Prompt, error) {
	return prompt(
		text(
			fmt.Sprintf(
				"Prompt with arguments: arg1='%s', arg2='%s'",
				request.GetArg1(),
				request.GetArg2(),
			),
		),
	)
}

func (s *service) PromptWithEmbeddedResource(
	_ context.Context,
	request *pb.Referring,
) (*pb.Prompt, error) {
	embedded := resource(
		request.GetResourceUri(),
		"text/plain",
		"Embedded resource content for testing.",
	)
	return prompt(embedded, text("Please process the embedded resource above."))
}

func (s *service) PromptWithImage(context.Context, *pb.Nothing) (*pb.Prompt, error) {
	return prompt(image(), text("Please analyze the image above."))
}

func (s *service) Complete(_ context.Context, request *pb.Completing) (*pb.Completed, error) {
	completion := &mcpv1.Completion{}
	for _, value := range []string{"testValue1", "testValue2", "other"} {
		if strings.HasPrefix(value, request.GetArgument().GetValue()) {
			completion.Values = append(completion.Values, value)
		}
	}
	return &pb.Completed{Completion: completion}, nil
}
