package drawbridge_test

import (
	"context"
	"fmt"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/mcpv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// The main function of a service. The package gen, with its constant Contract, is generated.
func ExampleMain() {
	var contract []byte // gen.Contract
	drawbridge.Main(drawbridge.Service{
		Name:     "payments",
		About:    "Finds and approves payments",
		Contract: contract,
		Register: func(server grpc.ServiceRegistrar) error {
			testv1.RegisterTestServiceServer(server, &testv1.UnimplementedTestServiceServer{})
			return nil
		},
	})
}

// A handler reads who is calling, and refuses what it does not find.
func ExampleCallerFrom() {
	_ = func(ctx context.Context, _ *testv1.SimpleRequest) (*testv1.SimpleResponse, error) {
		caller := drawbridge.CallerFrom(ctx)
		if caller.Tenant == "" {
			return nil, status.Error(codes.NotFound, "there are no payments without a tenant")
		}
		return &testv1.SimpleResponse{Username: caller.Subject}, nil
	}
}

// A handler asks the person once, and continues when it is called again with the answer.
func ExampleResponses() {
	pay := func(input *mcpv1.InputResponses) (*mcpv1.InputRequired, error) {
		responses := drawbridge.Responses{InputResponses: input}
		answer, isAnswered := responses.Answer("confirm")
		switch {
		case !isAnswered && !responses.CanFillForms():
			return nil, status.Error(
				codes.FailedPrecondition,
				"this client cannot ask for a confirmation",
			)
		case !isAnswered:
			requests := map[string]*mcpv1.InputRequest{
				"confirm": drawbridge.Confirmation("Pay 10 €?"),
			}
			return drawbridge.Require(requests, nil), nil
		case !answer.Accepted:
			return nil, status.Error(
				codes.FailedPrecondition,
				"the person did not confirm the payment",
			)
		}
		return nil, nil
	}
	asked, _ := pay(&mcpv1.InputResponses{Client: &mcpv1.ClientCapabilities{ElicitForm: true}})
	fmt.Println(asked.GetRequests()["confirm"].GetForm().GetMessage())
	// Output: Pay 10 €?
}
