package drawbridge

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func parsed(arguments ...string) (Config, error) {
	service := Service{Name: "big_payments", AdminListen: "127.0.0.1:4"}
	return service.Parse(arguments)
}

func TestTheCommandLineWinsOverTheEnvironmentAndTheEnvironmentOverDefaults(t *testing.T) {
	t.Setenv("DRAWBRIDGE_BIG_PAYMENTS_LISTEN", "127.0.0.1:1")
	t.Setenv("DRAWBRIDGE_BIG_PAYMENTS_ADMIN_LISTEN", "127.0.0.1:2")
	t.Setenv("DRAWBRIDGE_BIG_PAYMENTS_ALLOW_PLAINTEXT", "true")
	t.Setenv("DRAWBRIDGE_LOG", "debug")
	config, err := parsed("--listen", "127.0.0.1:3", "--mtls-allow", "spiffe://a/b,spiffe://a/c",
		"--mtls-allow=spiffe://a/d")
	if err != nil {
		t.Fatal(err)
	}
	found := fmt.Sprint(
		config.Listen,
		config.AdminListen,
		config.MTLS,
		config.LogLevel,
		config.AuthIssuer,
	)
	const expected = "127.0.0.1:3127.0.0.1:2{   [spiffe://a/b spiffe://a/c spiffe://a/d] true}debugdrawbridge-auth"
	if found != expected {
		t.Fatal(found)
	}
}

func TestAMistakeOnTheCommandLineOrInTheEnvironmentIsNamed(t *testing.T) {
	if _, err := parsed("serve"); err == nil || !strings.Contains(err.Error(), `"serve"`) {
		t.Fatal(err)
	}
	if _, err := parsed("--help"); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	t.Setenv("DRAWBRIDGE_BIG_PAYMENTS_REQUEST_BYTES_MAX", "many")
	_, err := parsed()
	if err == nil || !strings.Contains(err.Error(), "DRAWBRIDGE_BIG_PAYMENTS_REQUEST_BYTES_MAX") {
		t.Fatal(err)
	}
}

func TestAnUnsafeOrIncompleteConfigIsRefused(t *testing.T) {
	files := MTLSConfig{CertificateFile: "a", KeyFile: "b", TrustBundleFile: "c"}
	for expected, change := range map[string]func(*Config){
		"plaintext beyond loopback: set": func(c *Config) { c.Listen = "0.0.0.0:7450" },
		"cannot serve :7450":             func(c *Config) { c.Listen = ":7450" },
		"use https":                      func(c *Config) { c.AuthJWKSURL = "http://auth.example/jwks" },
		"invalid --auth-jwks-url":        func(c *Config) { c.AuthJWKSURL = "auth:7111" },
		"invalid --listen":               func(c *Config) { c.Listen = "7450" },
		"--auth-issuer":                  func(c *Config) { c.AuthIssuer = "" },
		"--request-bytes-max":            func(c *Config) { c.RequestBytesMax = 0 },
		"at least one allowed peer":      func(c *Config) { c.MTLS = files },
		"requires --mtls-certificate":    func(c *Config) { c.MTLS.KeyFile = "k" },
		"invalid SPIFFE id": func(c *Config) {
			c.MTLS = files
			c.MTLS.Allow = []string{"edge"}
		},
		"--mtls-allow requires": func(c *Config) { c.MTLS.Allow = []string{"spiffe://a/b"} },
	} {
		config := DefaultConfig()
		change(&config)
		if err := config.check(); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v", expected, err)
		}
	}
	config := DefaultConfig()
	config.Listen, config.MTLS.AllowPlaintext = "0.0.0.0:7450", true
	if err := config.check(); err != nil {
		t.Fatal(err)
	}
}

func TestLogLinesAreJSONAndATokenIsNotInThem(t *testing.T) {
	var out strings.Builder
	config := DefaultConfig()
	log, err := logger(&config, &out)
	if err != nil {
		t.Fatal(err)
	}
	caller := Caller{Subject: "alice", Token: Secret{"the-token"}}
	log.Info("serving", "address", "127.0.0.1:1", "caller", caller, slog.Any("token", caller.Token))
	line := out.String() + fmt.Sprintf("%v %+v %#v %s", caller, caller, caller, caller.Token)
	if strings.Contains(line, "the-token") ||
		!strings.Contains(line, `"level":"INFO","message":"serving","address":`) {
		t.Fatal(line)
	}
	config.LogLevel = "loud"
	if _, err := logger(&config, &out); err == nil {
		t.Fatal("an unknown level is accepted")
	}
}
