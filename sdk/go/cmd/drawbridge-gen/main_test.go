package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const contractText = `// The contract.
syntax = "proto3";
package payments.v1;

import "buf/validate/validate.proto";
import "drawbridge/mcp/v1/options.proto";
import "google/protobuf/timestamp.proto";

// PaymentsService finds payments.
service PaymentsService {
  option (drawbridge.mcp.v1.service) = {namespace: "payments"};
  // Finds a payment.
  rpc Find(FindRequest) returns (Payment) {
    option (drawbridge.mcp.v1.tool) = {hints: {read_only: true}};
  }
}

// FindRequest selects a payment.
message FindRequest {
  // Its name.
  string name = 1 [(buf.validate.field).string.min_len = 1];
}

// Payment is a payment.
message Payment {
  // Since when.
  google.protobuf.Timestamp since = 1;
}
`

func writeFile(t *testing.T, folder, name, text string) {
	t.Helper()
	path := filepath.Join(folder, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCodeAndDescriptorsWithCommentsAreGenerated(t *testing.T) {
	include, out := t.TempDir(), t.TempDir()
	writeFile(t, include, "payments/v1/payments.proto", contractText)
	files, err := contracts(include)
	if err != nil {
		t.Fatal(err)
	}
	given := settings{include: include, out: out, module: "example.com/payments/gen", files: files}
	if err := generate(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	for name, expected := range map[string]string{
		"payments/v1/payments.pb.go":      `mcpv1 "drawbridge.dev/sdk/go/mcpv1"`,
		"payments/v1/payments_grpc.pb.go": "package paymentsv1",
		"contract.go":                     "package gen",
	} {
		content, err := os.ReadFile(filepath.Join(out, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		expected = strings.ReplaceAll(expected, `mcpv1 "`, `"`)
		if !strings.Contains(string(content), expected) {
			t.Errorf("%s does not contain %s", name, expected)
		}
	}
	encoded, err := os.ReadFile(filepath.Join(out, "contract.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(encoded, &set); err != nil {
		t.Fatal(err)
	}
	last := set.GetFile()[len(set.GetFile())-1]
	comments := ""
	for _, location := range last.GetSourceCodeInfo().GetLocation() {
		comments += location.GetLeadingComments()
	}
	if last.GetName() != "payments/v1/payments.proto" ||
		!strings.Contains(comments, "Finds a payment.") {
		t.Fatal(last.GetName(), comments)
	}
}

func TestAMistakeInAContractIsReportedWithItsPosition(t *testing.T) {
	include := t.TempDir()
	writeFile(
		t,
		include,
		"payments.proto",
		"syntax = \"proto3\";\nmessage Payment { Nothing it = 1; }\n",
	)
	_, err := compile(t.Context(), include, []string{"payments.proto"})
	if err == nil || !strings.Contains(err.Error(), "payments.proto:2:19") {
		t.Fatal(err)
	}
	if _, err := contracts(t.TempDir()); err == nil {
		t.Fatal("an empty folder is accepted")
	}
}

func TestPackagesAreNamedAfterTheAreaAndItsVersion(t *testing.T) {
	for name, expected := range map[string]string{
		"payments/v1/payments.proto":           "m/gen/payments/v1;paymentsv1",
		"acme/meeting_payments/v1beta/a.proto": "m/gen/acme/meeting_payments/v1beta;meetingpaymentsv1beta",
		"bills.proto":                          "m/gen;gen",
		"acme/billing/bills.proto":             "m/gen/acme/billing;billing",
	} {
		if found := goPackage("m/gen", name); found != expected {
			t.Errorf("%s: %s", name, found)
		}
	}
}

func TestTheGeneratedContractOfTheModuleIsCurrent(t *testing.T) {
	const protos = "../../../../proto/proto"
	if _, err := os.Stat(protos); err != nil {
		t.Skip("the contract is in Drawbridge's repository alone")
	}
	out := t.TempDir()
	given := settings{include: protos, out: out, module: "drawbridge.dev/sdk/go", codeOnly: true}
	for _, name := range []string{"content", "interaction", "options"} {
		given.files = append(given.files, "drawbridge/mcp/v1/"+name+".proto")
	}
	if err := generate(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"content.pb.go", "interaction.pb.go", "options.pb.go"} {
		expected, err := os.ReadFile(filepath.Join(out, "mcpv1", name))
		if err != nil {
			t.Fatal(err)
		}
		found, err := os.ReadFile(filepath.Join("../../mcpv1", name))
		if err != nil || string(found) != string(expected) {
			t.Errorf("%s is outdated: generate it as README.md says (%v)", name, err)
		}
	}
}
