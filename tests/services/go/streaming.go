package main

import (
	"fmt"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"

	pb "drawbridge.test/conformance/gen"
)

// pause is the pause between two events of a stream.
const pause = 50 * time.Millisecond

type events = grpc.ServerStreamingServer[pb.Event]

func finish(stream events, message string) error {
	result := &mcpv1.ToolResult{Content: []*mcpv1.ContentBlock{text(message)}}
	return stream.Send(&pb.Event{Event: &pb.Event_Result{Result: result}})
}

func (s *service) ToolWithProgress(_ *pb.Nothing, stream events) error {
	for _, progress := range []float64{0, 50, 100} {
		if err := drawbridge.SendProgress(stream, progress, 100, ""); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return finish(stream, "done")
}

func (s *service) LoggingTool(_ *pb.Nothing, stream events) error {
	for _, line := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
		if err := drawbridge.SendLog(stream, mcpv1.LogMessage_LEVEL_INFO, "", line); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return finish(stream, "done")
}

func (s *service) ToolWithLogging(request *pb.Nothing, stream events) error {
	return s.LoggingTool(request, stream)
}

func (s *service) StreamingElicitation(request *pb.Asking, stream events) error {
	if _, isGiven := responses(request).Answer("answer"); isGiven {
		return finish(stream, "done")
	}
	asked := requests{"answer": textForm("Please answer", "name")}
	return drawbridge.SendInputRequired(stream, drawbridge.Require(asked, nil))
}

func (s *service) SlowWork(request *pb.SlowWorkRequest, stream events) error {
	steps := request.GetMilliseconds() / 20
	for step := range steps {
		message := fmt.Sprintf("step %d", step)
		if err := drawbridge.SendProgress(stream, float64(step), float64(steps), message); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return finish(stream, "worked")
}

func (s *service) Watch(_ *pb.Nothing, stream grpc.ServerStreamingServer[pb.Changed]) error {
	for stream.Context().Err() == nil {
		if err := stream.Send(&pb.Changed{}); err != nil {
			return err
		}
		time.Sleep(2 * pause)
	}
	return nil
}
