package drawbridgeotel_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgeotel"
	"drawbridge.dev/sdk/go/drawbridgetest"
	"go.opentelemetry.io/otel"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
)

// collector keeps the spans that it receives.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mutex    sync.Mutex
	services []string
	spans    []*tracev1.Span
}

func (c *collector) Export(
	_ context.Context, request *collectorv1.ExportTraceServiceRequest,
) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, group := range request.GetResourceSpans() {
		for _, attribute := range group.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				c.services = append(c.services, attribute.GetValue().GetStringValue())
			}
		}
		for _, scope := range group.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (c *collector) named(t *testing.T, name string) *tracev1.Span {
	t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	index := slices.IndexFunc(c.spans, func(span *tracev1.Span) bool { return span.GetName() == name })
	if index < 0 {
		t.Fatal(name, "is missing:", c.spans)
	}
	return c.spans[index]
}

// startCollector sets the variable that names the collector.
func startCollector(t *testing.T) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, found := grpc.NewServer(), &collector{}
	collectorv1.RegisterTraceServiceServer(server, found)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	return found
}

// handlers start a span of their own.
type handlers struct {
	testv1.UnimplementedTestServiceServer
}

func (*handlers) UnaryCall(
	ctx context.Context, _ *testv1.SimpleRequest,
) (*testv1.SimpleResponse, error) {
	_, span := otel.Tracer("test").Start(ctx, "work")
	defer span.End()
	return &testv1.SimpleResponse{Username: drawbridge.CallerFrom(ctx).Subject}, nil
}

func service(t *testing.T) drawbridge.Service {
	t.Helper()
	var set descriptorpb.FileDescriptorSet
	file := testv1.File_grpc_testing_test_proto
	for index := range file.Imports().Len() {
		imported := file.Imports().Get(index).FileDescriptor
		set.File = append(set.File, protodesc.ToFileDescriptorProto(imported))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	contract, err := proto.Marshal(&set)
	if err != nil {
		t.Fatal(err)
	}
	return drawbridge.Service{
		Name:     "greeter",
		Contract: contract,
		Register: func(server grpc.ServiceRegistrar) error {
			testv1.RegisterTestServiceServer(server, &handlers{})
			return nil
		},
	}
}

func TestACallIsASpanInTheTraceOfItsCallerAndTheLastSpansAreExportedAtTheEnd(t *testing.T) {
	found := startCollector(t)
	described, released := service(t), false
	described.OnDrained = func() { released = true }
	running := drawbridgetest.Start(t, drawbridgeotel.Traced(described))
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		"traceparent", "00-"+traceID+"-"+parentID+"-01")
	client := testv1.NewTestServiceClient(running.As("alice"))
	if _, err := client.UnaryCall(ctx, &testv1.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	// A refused call is a span too, unlike a health check.
	refused := testv1.NewTestServiceClient(running.Conn)
	if _, err := refused.EmptyCall(t.Context(), &testv1.Empty{}); err == nil {
		t.Fatal("accepted")
	}
	health := healthv1.NewHealthClient(running.Conn)
	if _, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	running.Stop()

	call, work := found.named(t, "grpc.testing.TestService/UnaryCall"), found.named(t, "work")
	if hex(call.GetTraceId()) != traceID || hex(call.GetParentSpanId()) != parentID {
		t.Fatal(call)
	}
	if hex(work.GetParentSpanId()) != hex(call.GetSpanId()) {
		t.Fatal(work)
	}
	found.named(t, "grpc.testing.TestService/EmptyCall")
	if len(found.spans) != 3 || found.services[0] != "greeter" || !released {
		t.Fatal(found.spans, found.services, released)
	}
}

func TestWithoutAnEndpointOrWhenItIsDisabledNothingIsExported(t *testing.T) {
	before := otel.GetTracerProvider()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	drawbridgeotel.Traced(service(t))
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	drawbridgeotel.Traced(service(t))
	if otel.GetTracerProvider() != before {
		t.Fatal("the provider was replaced")
	}
}

func hex(id []byte) string { return fmt.Sprintf("%x", id) }
