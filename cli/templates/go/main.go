// Command {{kebab}} serves the tools of the contract in proto/{{name}}.
package main

//go:generate go tool drawbridge-gen

import (
	"drawbridge.dev/sdk/go/drawbridge"
	"google.golang.org/grpc"

	"example.com/{{kebab}}/gen"
	pb "example.com/{{kebab}}/gen/{{name}}/v1"
	"example.com/{{kebab}}/internal/rooms"
)

func main() {
	drawbridge.Main(drawbridge.Service{
		Name:        "{{name}}",
		About:       "Finds and books meeting rooms",
		Listen:      "127.0.0.1:{{port}}",
		AdminListen: "127.0.0.1:{{admin_port}}",
		Contract:    gen.Contract,
		Register: func(server grpc.ServiceRegistrar) error {
			pb.Register{{Camel}}ServiceServer(server, rooms.New())
			return nil
		},
	})
}
