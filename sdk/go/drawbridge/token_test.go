package drawbridge_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// with is a context whose calls have these values of the metadata of the token.
func with(t *testing.T, tokens ...string) context.Context {
	ctx := t.Context()
	for _, token := range tokens {
		ctx = metadata.AppendToOutgoingContext(ctx, "txn-token", token)
	}
	return ctx
}

// callEach calls every RPC of the contract and returns its code.
func callEach(ctx context.Context, conn grpc.ClientConnInterface) map[string]codes.Code {
	found := map[string]codes.Code{}
	methods := testv1.File_grpc_testing_test_proto.Services().ByName("TestService").Methods()
	for index := range methods.Len() {
		method := methods.Get(index)
		described := &grpc.StreamDesc{
			ServerStreams: method.IsStreamingServer(), ClientStreams: method.IsStreamingClient(),
		}
		rpc := testService + "/" + string(method.Name())
		ctx, cancel := context.WithCancel(ctx)
		stream, err := conn.NewStream(ctx, described, "/"+rpc)
		if err == nil {
			// The answer is the error, whether or not the request could be sent.
			_ = stream.SendMsg(&testv1.Empty{})
			_ = stream.CloseSend()
			err = stream.RecvMsg(&testv1.Empty{})
		}
		cancel()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		found[rpc] = status.Code(err)
	}
	return found
}

func TestEveryRPCRefusesAMissingAForeignAndAForgedToken(t *testing.T) {
	running, other := start(t), drawbridgetest.NewAuth(t)
	good := func(change func(claims, transaction map[string]any)) map[string]any {
		claims := drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall")
		change(claims, claims["tctx"].(map[string]any))
		return claims
	}
	set := func(name string, value any) map[string]any {
		return good(func(claims, _ map[string]any) { claims[name] = value })
	}
	valid := good(func(_, _ map[string]any) {})
	sign := func(claims map[string]any) string { return running.Auth.Sign(t, claims) }
	unsigned := sign(valid)
	past := time.Now().Add(-time.Minute).Unix()
	forged := map[string]string{
		"empty": "", "nonsense": "nonsense",
		"expired":         sign(set("exp", past)),
		"without expiry":  sign(set("exp", nil)),
		"another service": sign(set("aud", "another")),
		"two services":    sign(set("aud", []string{"greeter", "another"})),
		"no audience":     sign(set("aud", "")),
		"no subject":      sign(set("sub", "")),
		"another issuer":  sign(set("iss", "https://evil.example")),
		"no issuer":       sign(set("iss", nil)),
		"another RPC": sign(
			good(func(_, tctx map[string]any) { tctx["rpc"] = testService + "/Nothing" }),
		),
		"all RPCs":         sign(good(func(_, tctx map[string]any) { tctx["rpc"] = "*" })),
		"no RPC":           sign(good(func(_, tctx map[string]any) { delete(tctx, "rpc") })),
		"an access token":  running.Auth.SignAs(t, valid, "at+jwt"),
		"untyped":          running.Auth.SignAs(t, valid, "JWT"),
		"untrusted signer": other.Sign(t, valid),
		"not signed":       unsigned[:strings.LastIndex(unsigned, ".")+1],
	}
	for why, token := range forged {
		for rpc, code := range callEach(with(t, token), running.Conn) {
			if code != codes.Unauthenticated {
				t.Errorf("%s with a token that is %s: %v", rpc, why, code)
			}
		}
	}
	for rpc, code := range callEach(t.Context(), running.Conn) {
		if code != codes.Unauthenticated {
			t.Errorf("%s without a token: %v", rpc, code)
		}
	}
	for rpc, code := range callEach(with(t, sign(valid)), running.Conn) {
		if isAccepted := code != codes.Unauthenticated; isAccepted != (rpc == testService+"/UnaryCall") {
			t.Errorf("%s with a token for UnaryCall: %v", rpc, code)
		}
	}
}

func TestHandlersOfEveryKindKnowTheCaller(t *testing.T) {
	client := testv1.NewTestServiceClient(start(t).As("alice"))
	response, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{})
	if err != nil || response.GetUsername() != "alice" {
		t.Fatal(response, err)
	}
	stream, err := client.StreamingOutputCall(t.Context(), &testv1.StreamingOutputCallRequest{
		ResponseParameters: []*testv1.ResponseParameters{{}, {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if event, err := stream.Recv(); err != nil ||
			string(event.GetPayload().GetBody()) != "alice" {
			t.Fatal(event, err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestEveryResponseHasItsRequestIDAndARefusalHasNoHeaders(t *testing.T) {
	running := start(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "request-1")
	for conn, expected := range map[grpc.ClientConnInterface]codes.Code{
		running.As("alice"): codes.OK, running.Conn: codes.Unauthenticated,
	} {
		var headers, trailers metadata.MD
		_, err := testv1.NewTestServiceClient(conn).UnaryCall(ctx, &testv1.SimpleRequest{},
			grpc.Header(&headers), grpc.Trailer(&trailers))
		if status.Code(err) != expected {
			t.Fatal(err)
		}
		inHeaders, inTrailers := headers.Get("x-request-id"), trailers.Get("x-request-id")
		found := append(inHeaders, inTrailers...)
		if len(found) != 1 || found[0] != "request-1" || len(inHeaders) == 1 != (expected == codes.OK) {
			t.Fatal(headers, trailers)
		}
	}
}

func TestACallWithTwoTokensIsRefused(t *testing.T) {
	running := start(t)
	token := running.Auth.Sign(
		t,
		drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall"),
	)
	_, err := testv1.NewTestServiceClient(running.Conn).
		UnaryCall(with(t, token, token), &testv1.SimpleRequest{})
	if status.Code(err) != codes.Unauthenticated {
		t.Fatal(err)
	}
}

func TestATokenForOneMessageIsRefusedForAnother(t *testing.T) {
	running := start(t)
	client := testv1.NewTestServiceClient(running.Conn)
	decided := &testv1.SimpleRequest{ResponseSize: 7}
	message, err := proto.Marshal(decided)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(message)
	claims := drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall")
	claims["tctx"].(map[string]any)["message_sha256"] = base64.RawURLEncoding.EncodeToString(
		digest[:],
	)
	ctx := with(t, running.Auth.Sign(t, claims))
	if _, err := client.UnaryCall(ctx, decided); err != nil {
		t.Fatal(err)
	}
	_, err = client.UnaryCall(ctx, &testv1.SimpleRequest{ResponseSize: 8})
	if status.Code(err) != codes.Unauthenticated ||
		!strings.Contains(err.Error(), "another message") {
		t.Fatal(err)
	}
}

func TestAMessageThatAToolServiceDoesNotTakeIsRefused(t *testing.T) {
	client := testv1.NewTestServiceClient(start(t).As("alice"))
	large := &testv1.SimpleRequest{Payload: &testv1.Payload{Body: make([]byte, 5<<20)}}
	_, err := client.UnaryCall(t.Context(), large)
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatal(err)
	}
	echo := &testv1.SimpleRequest{ResponseStatus: &testv1.EchoStatus{Message: "a\x00b"}}
	_, err = client.UnaryCall(t.Context(), echo)
	const refused = "response_status.message: must not contain the character NUL (U+0000)"
	if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != refused {
		t.Fatal(err)
	}
	body := &testv1.SimpleRequest{Payload: &testv1.Payload{Body: []byte{0}}}
	if _, err := client.UnaryCall(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	stream, err := client.StreamingInputCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); status.Code(err) != codes.Unimplemented {
		t.Fatal("a stream of requests:", err)
	}
}

func TestACompressedRequestIsRefused(t *testing.T) {
	running := start(t)
	conn, err := grpc.NewClient(running.Address.String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		//nolint:staticcheck // The newer option would register the compressor for the server too.
		grpc.WithCompressor(grpc.NewGZIPCompressor()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	token := running.Auth.Sign(
		t,
		drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall"),
	)
	_, err = testv1.NewTestServiceClient(conn).UnaryCall(with(t, token), &testv1.SimpleRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
}

func TestCallsAreUnavailableWhileAuthsKeysCannotBeFetched(t *testing.T) {
	described, _ := service(t)
	auth := drawbridgetest.NewAuth(t)
	auth.SetDown(true)
	running := drawbridgetest.StartWith(t, described, func(config *drawbridge.Config) {
		config.AuthJWKSURL = auth.JWKSURL
	})
	running.Auth = auth
	client := testv1.NewTestServiceClient(running.As("alice"))
	if _, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{}); status.Code(
		err,
	) != codes.Unavailable {
		t.Fatal(err)
	}
	running.Auth.SetDown(false)
	// The pause after a failure is a second.
	for {
		_, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{})
		if err == nil {
			break
		}
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
