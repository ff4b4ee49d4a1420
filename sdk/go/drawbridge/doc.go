// Package drawbridge serves a tool service: an ordinary gRPC service whose contract has options
// that make its RPCs MCP tools, resources and prompts.
//
// A service is its contract, its generated code and its handlers. [Main] parses the options, serves
// the RPCs with health, reflection and an admin port, and stops gracefully:
//
//	func main() {
//		drawbridge.Main(drawbridge.Service{
//			Name:     "payments",
//			About:    "Finds and approves payments",
//			Contract: gen.Contract,
//			Register: func(server grpc.ServiceRegistrar) {
//				paymentsv1.RegisterPaymentServiceServer(server, payments.New())
//			},
//		})
//	}
//
// The command drawbridge-gen of this module generates the code and gen.Contract.
//
// # Who is calling
//
// Every RPC requires a transaction token that auth has signed for this service, this RPC and, where
// the decision read the arguments, this message; [CallerFrom] is the caller that it names. There is
// no option that turns the check off. Health and reflection are public.
//
// # During a call
//
// [SendProgress] and [SendLog] send progress and log messages to the client. [Responses] reads what
// a person has answered, and [Require] asks; the edge translates both for each revision of MCP.
//
// # Between machines
//
// Plaintext is served on loopback alone. Elsewhere the service has a certificate with a SPIFFE id
// and accepts the peers that --mtls-allow names; it follows its files while it runs.
package drawbridge
