package drawbridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// checkInterval is how often a dependency is checked. The first checks follow one another
	// faster, so that a service starts quickly.
	checkInterval      = 500 * time.Millisecond
	firstCheckInterval = 20 * time.Millisecond
	// checkTimeout is how long a check may take; one that takes longer has failed.
	checkTimeout = time.Second
	// failuresMax failed checks in a row take a dependency down, and successesMin successful ones
	// bring it back.
	failuresMax  = 4
	successesMin = 2

	// serving is the condition that the service has started and does not stop.
	serving = "serving"
	// A service is not ready without its required conditions, and has a note without others.
	required  = "required"
	degrading = "degrading"
)

// Dependency is what the handlers of a service need, such as a database. While it is down, the
// service is not ready and gets no calls.
type Dependency struct {
	// Name is its name in /readyz.
	Name string
	// Check returns why it cannot be used. It is called twice a second, so it is cheap, and has
	// failed after a second. The admin port shows the error, so it names no secret.
	Check func(context.Context) error
	// Degrading: while it is down the service stays ready, and /readyz has a note.
	Degrading bool
}

func (d *Dependency) effect() string {
	if d.Degrading {
		return degrading
	}
	return required
}

// readiness is the conditions under which a service can do its work.
type readiness struct {
	mutex      sync.Mutex
	conditions map[string]condition
	ready      prometheus.Gauge
	up         *prometheus.GaugeVec
	// changed is called with the mutex held, so that its last call is for the last change.
	changed func(ready bool)
}

type condition struct {
	Name   string `json:"name"`
	Effect string `json:"effect"`
	IsUp   bool   `json:"is_up"`
	Reason string `json:"reason,omitempty"`
	// Since is in seconds since 1970.
	Since int64 `json:"since"`
}

func newReadiness(registry prometheus.Registerer) *readiness {
	ready := &readiness{
		conditions: map[string]condition{},
		ready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "drawbridge_ready", Help: "1 while the service is ready, 0 while it is not.",
		}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "drawbridge_dependency_up",
			Help: "1 while a condition of readiness is met, 0 while it is not.",
		}, []string{"dependency", "effect"}),
		changed: func(bool) {},
	}
	registry.MustRegister(ready.ready, ready.up)
	ready.set(serving, required, "starting")
	return ready
}

// set sets why a condition is not met; empty: it is met.
func (r *readiness) set(name, effect, reason string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	now := condition{
		Name: name, Effect: effect, IsUp: reason == "", Reason: reason, Since: time.Now().Unix(),
	}
	if before, known := r.conditions[name]; known && before.IsUp == now.IsUp {
		now.Since = before.Since
	} else if known && name != serving {
		slog.Warn("a condition of readiness changed", "condition", name, "reason", reason)
	}
	r.conditions[name] = now
	isReady := r.reason() == ""
	r.up.WithLabelValues(name, effect).Set(number(now.IsUp))
	r.ready.Set(number(isReady))
	r.changed(isReady)
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// note sets a note, or clears it if there is no error.
func (r *readiness) note(topic string, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	r.set(topic, degrading, reason)
}

// expect adds the condition of a dependency. A required one is not met until it is checked.
func (r *readiness) expect(dependency *Dependency) error {
	if _, taken := r.conditions[dependency.Name]; taken || dependency.Name == "" {
		return fmt.Errorf("the name of the dependency %q is empty or taken", dependency.Name)
	}
	reason := ""
	if !dependency.Degrading {
		reason = "not checked yet"
	}
	r.set(dependency.Name, dependency.effect(), reason)
	return nil
}

// follow calls changed at each change, and now.
func (r *readiness) follow(changed func(ready bool)) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.changed = changed
	changed(r.reason() == "")
}

// reason is why the service is not ready; empty: it is. The caller holds the mutex.
func (r *readiness) reason() string {
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(r.conditions)) {
		switch is := r.conditions[name]; {
		case is.IsUp || is.Effect != required:
		case name == serving:
			reasons = append(reasons, is.Reason)
		default:
			reasons = append(reasons, name+": "+is.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func (r *readiness) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	reason := r.reason()
	body := map[string]any{"ready": reason == ""}
	notes, conditions := map[string]string{}, []condition{}
	for _, name := range slices.Sorted(maps.Keys(r.conditions)) {
		is := r.conditions[name]
		conditions = append(conditions, is)
		if !is.IsUp && is.Effect == degrading {
			notes[name] = is.Reason
		}
	}
	if len(notes) > 0 {
		body["notes"] = notes
	}
	if strings.HasPrefix(request.URL.RawQuery, "verbose") {
		body["conditions"] = conditions
	}
	response.Header().Set("Content-Type", "application/json")
	if reason != "" {
		body["reason"] = reason
		response.WriteHeader(http.StatusServiceUnavailable)
	}
	// The client may have gone.
	_ = json.NewEncoder(response).Encode(body)
}

// monitor checks a dependency until the context ends. It does not flap: it is down after two
// seconds, or six if checks do not answer, and up again after one. At the start the first success
// counts.
func (r *readiness) monitor(ctx context.Context, dependency Dependency) {
	var state damper
	delay := firstCheckInterval
	for {
		reason := check(ctx, &dependency)
		if ctx.Err() != nil {
			return
		}
		if state.record(reason == "") {
			r.set(dependency.Name, dependency.effect(), reason)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		if delay = min(2*delay, checkInterval); state.hasSucceeded {
			delay = checkInterval
		}
	}
}

// check is why the dependency cannot be used; empty: it can.
func check(ctx context.Context, dependency *Dependency) string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	checked := make(chan error, 1)
	go func() {
		defer func() {
			if panicked := recover(); panicked != nil {
				checked <- errors.New("its check failed")
			}
		}()
		checked <- dependency.Check(ctx)
	}()
	select {
	case err := <-checked:
		if err != nil {
			return err.Error()
		}
		return ""
	case <-ctx.Done():
		return "does not answer in time"
	}
}

// damper turns the results of checks into a state that does not flap.
type damper struct {
	hasSucceeded, isUp bool
	contradictions     int
}

// record takes the result of a check, and reports whether the state is settled.
func (d *damper) record(isUp bool) bool {
	switch {
	case !d.hasSucceeded:
		// It may still be starting.
		d.contradictions++
		if isUp {
			*d = damper{hasSucceeded: true, isUp: true}
		}
		return isUp || d.contradictions >= 2*failuresMax
	case d.isUp == isUp:
		d.contradictions = 0
		return !isUp
	}
	d.contradictions++
	needed := successesMin
	if d.isUp {
		needed = failuresMax
	}
	if d.contradictions < needed {
		return false
	}
	d.isUp, d.contradictions = isUp, 0
	return true
}
