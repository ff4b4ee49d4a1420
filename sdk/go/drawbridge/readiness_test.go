package drawbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// admin is the status and the body of a document on the admin port.
func admin(t *testing.T, running *drawbridgetest.Running, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + running.Admin.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// waitReadyz waits until /readyz has this body.
func waitReadyz(t *testing.T, running *drawbridgetest.Running, expected string) {
	t.Helper()
	body := ""
	for range 1500 {
		if _, body = admin(t, running, "/readyz"); body == expected+"\n" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("expected %s, found %s", expected, body)
}

func waitReady(t *testing.T, running *drawbridgetest.Running) {
	t.Helper()
	waitReadyz(t, running, `{"ready":true}`)
}

func checkHealth(
	t *testing.T, running *drawbridgetest.Running, expected healthv1.HealthCheckResponse_ServingStatus,
) {
	t.Helper()
	checked, err := healthv1.NewHealthClient(running.Conn).
		Check(t.Context(), &healthv1.HealthCheckRequest{Service: testService})
	if err != nil || checked.GetStatus() != expected {
		t.Fatal(checked, err)
	}
}

func TestAServiceIsNotReadyUntilItHasAuthsKeys(t *testing.T) {
	described, _ := service(t)
	running := drawbridgetest.StartWith(t, described, func(config *drawbridge.Config) {
		config.AuthJWKSURL = "http://127.0.0.1:1"
	})
	const without = `{"ready":false,"reason":"auth_keys: have not been fetched, or are too old"}`
	waitReadyz(t, running, without)
	if status, _ := admin(t, running, "/readyz"); status != http.StatusServiceUnavailable {
		t.Fatal(status)
	}
	checkHealth(t, running, healthv1.HealthCheckResponse_NOT_SERVING)
	with := drawbridgetest.Start(t, described)
	waitReady(t, with)
	checkHealth(t, with, healthv1.HealthCheckResponse_SERVING)
	if requests := with.Auth.Requests(); requests != 1 {
		t.Fatal("before any call", requests)
	}
}

// dependency is one whose state a test sets; its check panics at "panic".
func dependency(name string, problem *atomic.Value) drawbridge.Dependency {
	return drawbridge.Dependency{Name: name, Check: func(context.Context) error {
		switch text := problem.Load().(string); text {
		case "":
			return nil
		case "panic":
			panic("planned")
		default:
			return errors.New(text)
		}
	}}
}

func TestARequiredDependencyTakesTheServiceOutAndItsReturnBringsItBack(t *testing.T) {
	described, _ := service(t)
	var problem atomic.Value
	problem.Store("")
	described.Dependencies = []drawbridge.Dependency{dependency("database", &problem)}
	running := drawbridgetest.Start(t, described)
	waitReady(t, running)
	problem.Store("does not answer")
	waitReadyz(t, running, `{"ready":false,"reason":"database: does not answer"}`)
	checkHealth(t, running, healthv1.HealthCheckResponse_NOT_SERVING)
	problem.Store("panic")
	waitReadyz(t, running, `{"ready":false,"reason":"database: its check failed"}`)
	problem.Store("")
	waitReady(t, running)
	checkHealth(t, running, healthv1.HealthCheckResponse_SERVING)
}

func TestADegradingDependencyMakesANoteAndConditionsAreListedAndMeasured(t *testing.T) {
	described, _ := service(t)
	var problem atomic.Value
	problem.Store("refuses logins")
	mail := dependency("mail", &problem)
	mail.Degrading = true
	described.Dependencies = []drawbridge.Dependency{mail}
	running := drawbridgetest.Start(t, described)
	waitReadyz(t, running, `{"notes":{"mail":"refuses logins"},"ready":true}`)
	status, body := admin(t, running, "/readyz?verbose")
	var verbose struct {
		Conditions []struct {
			Name, Effect, Reason string
			IsUp                 bool `json:"is_up"`
			Since                int64
		}
	}
	if err := json.Unmarshal([]byte(body), &verbose); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	names := []string{}
	for _, condition := range verbose.Conditions {
		names = append(names, condition.Name)
	}
	noted := verbose.Conditions[1]
	if strings.Join(names, " ") != "auth_keys mail serving" || noted.IsUp ||
		noted.Effect != "degrading" || noted.Reason != "refuses logins" || noted.Since == 0 {
		t.Fatal(body)
	}
	_, metrics := admin(t, running, "/metrics")
	for _, line := range []string{
		`drawbridge_dependency_up{dependency="mail",effect="degrading"} 0`,
		`drawbridge_dependency_up{dependency="auth_keys",effect="required"} 1`,
		`drawbridge_ready 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Fatal(line)
		}
	}
}

func TestAServiceThatDrainsIsNotReadyWhileItStillServes(t *testing.T) {
	described, _ := service(t)
	running := drawbridgetest.Start(t, described)
	waitReady(t, running)
	drained := make(chan struct{})
	go func() {
		running.Drain(time.Second, time.Second)
		close(drained)
	}()
	waitReadyz(t, running, `{"ready":false,"reason":"stopping"}`)
	checkHealth(t, running, healthv1.HealthCheckResponse_NOT_SERVING)
	<-drained
}

func TestTwoDependenciesOfOneNameDoNotStart(t *testing.T) {
	described, _ := service(t)
	var problem atomic.Value
	described.Dependencies = []drawbridge.Dependency{dependency("auth_keys", &problem)}
	config := drawbridge.DefaultConfig()
	config.Listen, config.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	_, err := drawbridge.Start(described, config)
	if err == nil || !strings.Contains(err.Error(), `"auth_keys" is empty or taken`) {
		t.Fatal(err)
	}
}
