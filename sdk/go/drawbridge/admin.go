package drawbridge

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
)

// callMetrics are the metrics of calls, by OpenTelemetry's conventions.
type callMetrics struct {
	registry *prometheus.Registry
	duration *prometheus.HistogramVec
}

func newCallMetrics() *callMetrics {
	metrics := &callMetrics{
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rpc_server_call_duration_seconds",
			Help: "How long calls took, to the end of their streams.",
			Buckets: []float64{
				0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30,
			},
		}, []string{"rpc_method", "rpc_response_status_code"}),
	}
	metrics.registry.MustRegister(metrics.duration, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return metrics
}

// observe measures a call. The names of RPCs are those that are registered.
func (m *callMetrics) observe(rpc string, code codes.Code, took time.Duration) {
	m.duration.WithLabelValues(rpc, statusName(code)).Observe(took.Seconds())
}

// statusName is a code as gRPC's specification and OpenTelemetry's conventions write it, such as
// INVALID_ARGUMENT. Go spells them otherwise.
func statusName(code codes.Code) string {
	switch code {
	case codes.OK:
		return "OK"
	case codes.Canceled:
		return "CANCELLED"
	}
	var name strings.Builder
	for at, letter := range code.String() {
		if at > 0 && unicode.IsUpper(letter) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToUpper(letter))
	}
	return name.String()
}

// admin is the admin port, for operators only. It accepts requests whose host is an IP address,
// localhost or allowed: DNS rebinding needs a name that the attacker controls, so a page in an
// operator's browser cannot read the port.
func admin(ready *readiness, metrics *callMetrics, allowedHosts []string) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", func(response http.ResponseWriter, _ *http.Request) {
		_, _ = response.Write([]byte("ok\n"))
	})
	routes.Handle("GET /readyz", ready)
	routes.Handle("GET /metrics", promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{}))
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if !isHostAllowed(request.Host, allowedHosts) {
			http.Error(response, "the Host header names another server; "+
				"allow the name with --admin-allowed-host", http.StatusForbidden)
			return
		}
		routes.ServeHTTP(response, request)
	})
}

func isHostAllowed(host string, allowed []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	isAllowed := func(name string) bool { return strings.EqualFold(name, host) }
	return err == nil || isAllowed("localhost") || slices.ContainsFunc(allowed, isAllowed)
}
