package drawbridge

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// serveReflection serves the contract with its comments (v1 and v1alpha).
func serveReflection(server *grpc.Server, contract []byte, services []string) error {
	files, err := parseContract(contract)
	if err != nil {
		return err
	}
	infos := serviceInfos{}
	for _, name := range services {
		found, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if _, ok := found.(protoreflect.ServiceDescriptor); err != nil || !ok {
			return fmt.Errorf("the contract does not contain the service %s: "+
				"generate it with drawbridge-gen, and set Service.Contract", name)
		}
		infos[name] = grpc.ServiceInfo{}
	}
	options := reflection.ServerOptions{Services: infos, DescriptorResolver: files}
	reflectionv1.RegisterServerReflectionServer(server, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(server, reflection.NewServer(options))
	return nil
}

func parseContract(contract []byte) (*protoregistry.Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(contract, &set); err != nil {
		return nil, fmt.Errorf("the contract is no FileDescriptorSet: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("the contract is invalid: %w", err)
	}
	return files, nil
}

// serviceInfos are the services that reflection lists.
type serviceInfos map[string]grpc.ServiceInfo

// GetServiceInfo implements reflection.ServiceInfoProvider.
func (s serviceInfos) GetServiceInfo() map[string]grpc.ServiceInfo { return s }
