package drawbridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec of messages
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const requestIDMetadata = "x-request-id"

// registrar registers the services of a tool service. Each RPC verifies its caller before it reads
// a message, and checks the message before it is decoded.
//
// INVARIANT: health and reflection are registered elsewhere; all other services come through here.
type registrar struct {
	server   *grpc.Server
	verifier *verifier
	metrics  *callMetrics
	services []string
}

// RegisterService implements grpc.ServiceRegistrar. Every RPC becomes a stream of one message in
// each direction or a stream of responses: the handler of a unary RPC would run only after gRPC has
// read and decoded the message.
func (r *registrar) RegisterService(described *grpc.ServiceDesc, implementation any) {
	guarded := grpc.ServiceDesc{
		ServiceName: described.ServiceName,
		HandlerType: described.HandlerType,
		Metadata:    described.Metadata,
	}
	for _, method := range described.Methods {
		guarded.Streams = append(guarded.Streams, grpc.StreamDesc{
			StreamName:    method.MethodName,
			ServerStreams: true,
			Handler:       r.guard(unary(method)),
		})
	}
	for _, stream := range described.Streams {
		handler := stream.Handler
		if stream.ClientStreams {
			// A decision of auth covers one message.
			handler = func(any, grpc.ServerStream) error {
				return status.Error(codes.Unimplemented, "an RPC takes one message")
			}
		}
		stream.Handler = r.guard(handler)
		guarded.Streams = append(guarded.Streams, stream)
	}
	r.services = append(r.services, described.ServiceName)
	r.server.RegisterService(&guarded, implementation)
}

// unary serves a unary RPC on a stream.
func unary(method grpc.MethodDesc) grpc.StreamHandler {
	return func(service any, stream grpc.ServerStream) error {
		response, err := method.Handler(service, stream.Context(), stream.RecvMsg, nil)
		if err != nil {
			return err
		}
		return stream.SendMsg(response)
	}
}

// guard verifies the caller of an RPC, measures it, and turns a panic into an error.
func (r *registrar) guard(handler grpc.StreamHandler) grpc.StreamHandler {
	return func(service any, stream grpc.ServerStream) (err error) {
		method, _ := grpc.MethodFromServerStream(stream)
		rpc := method[1:]
		ctx := withRequestID(stream.Context())
		checked := &checkedStream{ServerStream: stream, rpc: rpc}
		started := time.Now()
		defer func() {
			if !checked.sent {
				// A response without messages is one frame: its trailers are its headers.
				stream.SetTrailer(metadata.Pairs(requestIDMetadata, requestID(ctx)))
			}
			if panicked := recover(); panicked != nil {
				slog.ErrorContext(ctx, "a handler panicked",
					"rpc", rpc, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
				err = status.Error(codes.Internal, "the service failed")
			}
			r.metrics.observe(rpc, status.Code(err), time.Since(started))
			if code := status.Code(err); code == codes.Unknown || code == codes.Internal {
				slog.ErrorContext(ctx, "a call failed",
					"rpc", rpc, "request_id", requestID(ctx), "error", err.Error())
			}
		}()
		found, err := r.verifier.authenticate(ctx, rpc)
		if err != nil {
			return err
		}
		checked.ctx = context.WithValue(ctx, callerKey{}, found.caller)
		checked.verified = found
		return handler(service, checked)
	}
}

// checkedStream checks the message of a call before its handler gets it.
type checkedStream struct {
	grpc.ServerStream
	ctx      context.Context
	rpc      string
	verified *verified
	received bool
	sent     bool
}

// Context has the caller.
func (s *checkedStream) Context() context.Context { return s.ctx }

// SendMsg sends a message of the response. The first one follows the headers.
func (s *checkedStream) SendMsg(message any) error {
	if !s.sent {
		s.sent = true
		// The headers are sent with the first message, so this cannot fail here.
		_ = s.SetHeader(metadata.Pairs(requestIDMetadata, requestID(s.ctx)))
	}
	return s.ServerStream.SendMsg(message)
}

// RecvMsg receives the message of the call.
func (s *checkedStream) RecvMsg(message any) error {
	var received frame
	err := s.ServerStream.RecvMsg(&received)
	switch {
	case errors.Is(err, io.EOF) && !s.received:
		return status.Error(codes.InvalidArgument, "the request contains no message")
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return err
	case s.received:
		return status.Error(codes.InvalidArgument, "the request must contain exactly one message")
	}
	s.received = true
	if err := s.verified.checkMessage(received); err != nil {
		return refuse(s.ctx, s.rpc, err)
	}
	decoded, ok := message.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is not a protobuf message", message)
	}
	if err := proto.Unmarshal(received, decoded); err != nil {
		return status.Error(codes.InvalidArgument, "the message does not match the contract")
	}
	// Most messages contain no NUL at all.
	if bytes.IndexByte(received, 0) >= 0 {
		if field := findNUL(decoded.ProtoReflect()); field != "" {
			return status.Errorf(codes.InvalidArgument,
				"%s: must not contain the character NUL (U+0000)", field)
		}
	}
	return nil
}

// frame is a message as it was on the wire.
type frame []byte

// frameCodec is the codec of messages, which also reads a frame.
type frameCodec struct{ encoding.CodecV2 }

func newFrameCodec() frameCodec { return frameCodec{encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2.
func (c frameCodec) Unmarshal(data mem.BufferSlice, message any) error {
	if received, ok := message.(*frame); ok {
		*received = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, message)
}

type requestIDKey struct{}

// withRequestID is the context of a call with its request id, which the response carries too.
func withRequestID(ctx context.Context) context.Context {
	id := metadata.ValueFromIncomingContext(ctx, requestIDMetadata)
	if len(id) == 0 || !isPrintable(id[0]) {
		id = []string{newRequestID()}
	}
	return context.WithValue(ctx, requestIDKey{}, id[0])
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// isPrintable reports whether a request id is safe to log.
func isPrintable(id string) bool {
	for _, character := range []byte(id) {
		if character <= ' ' || character > '~' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}
