package drawbridge_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
)

// startOn starts the test service on an address.
func startOn(t *testing.T, listen string) (*drawbridge.Running, error) {
	t.Helper()
	described, _ := service(t)
	config := drawbridge.DefaultConfig()
	config.Listen, config.AdminListen = listen, "127.0.0.1:0"
	return drawbridge.Start(described, config)
}

func TestAServiceOnAUnixSocketServesAndRemovesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.sock")
	for _, address := range []string{"unix:" + path, "unix://" + path} {
		described, _ := service(t)
		running := drawbridgetest.StartWith(t, described, func(config *drawbridge.Config) {
			config.Listen = address
		})
		if found := running.Address.String(); found != "unix:"+path {
			t.Fatal(found)
		}
		found, err := os.Stat(path)
		if err != nil || found.Mode().Perm() != 0o600 {
			t.Fatal(found, err)
		}
		client := testv1.NewTestServiceClient(running.As("alice"))
		response, err := client.UnaryCall(t.Context(), &testv1.SimpleRequest{})
		if err != nil || response.GetUsername() != "alice" {
			t.Fatal(response, err)
		}
		if _, err := startOn(t, address); err == nil || !strings.Contains(err.Error(), "is in use") {
			t.Fatal(err)
		}
		running.Stop()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Fatal("the socket is still there:", err)
		}
	}
}

func TestAStaleSocketIsReplacedAndAnotherFileIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	running, err := startOn(t, "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	running.Stop()

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := startOn(t, "unix:"+path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "mine" {
		t.Fatal(content, err)
	}
}

func TestASocketThatOthersCouldReplaceOrThatHasNoPathIsRefused(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for listen, expected := range map[string]string{
		"unix:" + open + "/test.sock":       "others can write to",
		"unix:relative.sock":                "invalid --listen",
		"unix:@abstract":                    "invalid --listen",
		"unix://host/test.sock":             "invalid --listen",
		"unix:/test.sock?mode=0666":         "invalid --listen",
		"unix:/" + strings.Repeat("a", 107): "at most 107 bytes",
	} {
		if _, err := startOn(t, listen); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
