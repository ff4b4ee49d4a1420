package drawbridge_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const testService = "grpc.testing.TestService"

// handlers serve the test contract of gRPC.
type handlers struct {
	testv1.UnimplementedTestServiceServer
	waiting chan struct{}
}

func (h *handlers) UnaryCall(
	ctx context.Context,
	request *testv1.SimpleRequest,
) (*testv1.SimpleResponse, error) {
	if request.GetFillUsername() {
		panic("planned")
	}
	return &testv1.SimpleResponse{Username: drawbridge.CallerFrom(ctx).Subject}, nil
}

func (h *handlers) EmptyCall(ctx context.Context, _ *testv1.Empty) (*testv1.Empty, error) {
	close(h.waiting)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (h *handlers) StreamingOutputCall(
	request *testv1.StreamingOutputCallRequest,
	stream grpc.ServerStreamingServer[testv1.StreamingOutputCallResponse],
) error {
	caller := drawbridge.CallerFrom(stream.Context())
	for range request.GetResponseParameters() {
		payload := &testv1.Payload{Body: []byte(caller.Subject)}
		if err := stream.Send(&testv1.StreamingOutputCallResponse{Payload: payload}); err != nil {
			return err
		}
	}
	return nil
}

// contract has a comment on the service.
func contract(t *testing.T) []byte {
	t.Helper()
	var set descriptorpb.FileDescriptorSet
	file := testv1.File_grpc_testing_test_proto
	for index := range file.Imports().Len() {
		imported := file.Imports().Get(index).FileDescriptor
		set.File = append(set.File, protodesc.ToFileDescriptorProto(imported))
	}
	described := protodesc.ToFileDescriptorProto(file)
	described.SourceCodeInfo = &descriptorpb.SourceCodeInfo{
		Location: []*descriptorpb.SourceCodeInfo_Location{
			{
				Path:            []int32{6, 0},
				Span:            []int32{0, 0, 1},
				LeadingComments: proto.String(" A comment.\n"),
			},
		},
	}
	set.File = append(set.File, described)
	encoded, err := proto.Marshal(&set)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func service(t *testing.T) (drawbridge.Service, *handlers) {
	t.Helper()
	implementation := &handlers{waiting: make(chan struct{})}
	return drawbridge.Service{
		Name:     "greeter",
		Contract: contract(t),
		Register: func(server grpc.ServiceRegistrar) error {
			testv1.RegisterTestServiceServer(server, implementation)
			return nil
		},
	}, implementation
}

func start(t *testing.T) *drawbridgetest.Running {
	t.Helper()
	described, _ := service(t)
	return drawbridgetest.Start(t, described)
}

func TestHealthAndReflectionArePublicAndReflectionHasComments(t *testing.T) {
	running := start(t)
	waitReady(t, running)
	checked, err := healthv1.NewHealthClient(running.Conn).
		Check(t.Context(), &healthv1.HealthCheckRequest{Service: testService})
	if err != nil || checked.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatal(checked, err)
	}
	stream, err := reflectionv1.NewServerReflectionClient(running.Conn).
		ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	list := ask(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	})
	services := list.GetListServicesResponse().GetService()
	if len(services) != 1 || services[0].GetName() != testService {
		t.Fatal(services)
	}
	file := ask(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: testService,
		},
	})
	found := false
	for _, encoded := range file.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var described descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(encoded, &described); err != nil {
			t.Fatal(err)
		}
		for _, location := range described.GetSourceCodeInfo().GetLocation() {
			found = found || location.GetLeadingComments() == " A comment.\n"
		}
	}
	if !found {
		t.Fatal("the comment is missing")
	}
}

func TestAPanicOfAHandlerFailsItsCallAlone(t *testing.T) {
	client := testv1.NewTestServiceClient(start(t).As("alice"))
	_, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{FillUsername: true})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "planned") {
		t.Fatal(err)
	}
	if _, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceThatStopsIsNotServingAndEndsItsCalls(t *testing.T) {
	described, implementation := service(t)
	running := drawbridgetest.Start(t, described)
	waitReady(t, running)
	watch, err := healthv1.NewHealthClient(running.Conn).
		Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := watch.Recv(); err != nil ||
		state.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatal(state, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := testv1.NewTestServiceClient(running.As("alice")).
			EmptyCall(t.Context(), &testv1.Empty{})
		ended <- err
	}()
	<-implementation.waiting
	running.Stop()
	if state, err := watch.Recv(); err != nil ||
		state.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Fatal(state, err)
	}
	if _, err := watch.Recv(); err == nil {
		t.Fatal("the watch did not end")
	}
	if err := <-ended; err == nil {
		t.Fatal("the call did not end")
	}
}

func TestTheAdminPortServesReadinessAndMetricsToOperatorsAlone(t *testing.T) {
	running := start(t)
	waitReady(t, running)
	client := testv1.NewTestServiceClient(running.As("alice"))
	if _, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	get := func(path, host string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://"+running.Admin.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	if code, body := get("/readyz", "localhost"); code != http.StatusOK ||
		body != "{\"ready\":true}\n" {
		t.Fatal(code, body)
	}
	const metric = `rpc_server_call_duration_seconds_count{rpc_method="grpc.testing.TestService/UnaryCall",` +
		`rpc_response_status_code="OK"} 1`
	if _, body := get("/metrics", "127.0.0.1"); !strings.Contains(body, metric) {
		t.Fatal(body)
	}
	if code, _ := get("/metrics", "evil.example"); code != http.StatusForbidden {
		t.Fatal(code)
	}
}

func TestAServiceThatIsNotInItsContractDoesNotStart(t *testing.T) {
	described, _ := service(t)
	described.Contract = nil
	_, err := drawbridge.Start(described, drawbridge.DefaultConfig())
	if err == nil || !strings.Contains(err.Error(), "drawbridge-gen") {
		t.Fatal(err)
	}
}
