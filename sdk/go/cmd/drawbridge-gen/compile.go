package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	// Built-in imports of contracts.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "drawbridge.dev/sdk/go/mcpv1"
)

// goPackages are the Go packages of the built-in imports, by the folder of the .proto files.
var goPackages = map[string]string{
	"drawbridge/mcp/v1": "drawbridge.dev/sdk/go/mcpv1",
	"buf/validate":      "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate",
}

// contract is a compiled contract: its own files, and all files in the order of their imports.
type contract struct {
	own []string
	all []*descriptorpb.FileDescriptorProto
}

func compile(ctx context.Context, include string, files []string) (*contract, error) {
	own := protocompile.ResolverFunc(func(name string) (protocompile.SearchResult, error) {
		file, err := os.Open(filepath.Join(include, filepath.FromSlash(name)))
		return protocompile.SearchResult{Source: file}, err
	})
	builtIn := protocompile.ResolverFunc(func(name string) (protocompile.SearchResult, error) {
		file, err := protoregistry.GlobalFiles.FindFileByPath(name)
		return protocompile.SearchResult{Desc: file}, err
	})
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(
			protocompile.CompositeResolver{own, builtIn},
		),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, files...)
	if err != nil {
		return nil, err
	}
	result := &contract{own: files}
	seen := map[string]bool{}
	for _, file := range compiled {
		result.add(file, seen)
	}
	return result, nil
}

// add adds a file after its imports.
func (c *contract) add(file protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	for index := range file.Imports().Len() {
		c.add(file.Imports().Get(index).FileDescriptor, seen)
	}
	if compiled, ok := file.(linker.Result); ok {
		c.all = append(c.all, compiled.FileDescriptorProto())
		return
	}
	c.all = append(c.all, protodesc.ToFileDescriptorProto(file))
}

// descriptors are the encoded FileDescriptorSet.
func (c *contract) descriptors() ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{File: c.all}
	return proto.MarshalOptions{Deterministic: true}.Marshal(set)
}

// code runs the plugins. The names of the files are relative to the folder of the generated code.
func (c *contract) code(ctx context.Context, given settings) (map[string][]byte, error) {
	parameters := []string{"module=" + given.module}
	for _, file := range c.all {
		name := file.GetName()
		if known, ok := goPackages[path.Dir(name)]; ok {
			parameters = append(parameters, "M"+name+"="+known)
		} else if !strings.HasPrefix(name, "google/") {
			parameters = append(parameters, "M"+name+"="+goPackage(given.module, name))
		}
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: c.own,
		Parameter:      proto.String(strings.Join(parameters, ",")),
		ProtoFile:      c.all,
	}
	files := map[string][]byte{}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := runPlugin(ctx, plugin, request, files); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// goPackage is the Go package of a .proto file: its folder below the folder of the generated code,
// named after the area and its version, as in `paymentsv1`.
func goPackage(module, name string) string {
	folder := path.Dir(name)
	base := path.Base(path.Join(module, folder))
	if version := len(base) > 1 && base[0] == 'v' && base[1] >= '0' && base[1] <= '9'; version {
		base = path.Base(path.Dir(folder)) + base
	}
	return path.Join(
		module,
		folder,
	) + ";" + strings.NewReplacer("-", "", ".", "", "_", "").
		Replace(base)
}

func runPlugin(
	ctx context.Context,
	plugin string,
	request *pluginpb.CodeGeneratorRequest,
	files map[string][]byte,
) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "tool", plugin)
	command.Stdin = bytes.NewReader(input)
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("go tool %s: %w", plugin, withStderr(err))
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return fmt.Errorf("go tool %s: %w", plugin, err)
	}
	if response.Error != nil {
		return fmt.Errorf("go tool %s: %s", plugin, response.GetError())
	}
	for _, file := range response.GetFile() {
		files[file.GetName()] = []byte(file.GetContent())
	}
	return nil
}
