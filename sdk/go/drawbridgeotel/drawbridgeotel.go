// Package drawbridgeotel makes each call of a tool service a span of OpenTelemetry, in the trace of
// its caller:
//
//	drawbridge.Main(drawbridgeotel.Traced(service))
//
// Spans are exported by OTLP (gRPC) where OTEL_EXPORTER_OTLP_ENDPOINT says. It is a module of its
// own, so that a service without traces does not depend on OpenTelemetry.
package drawbridgeotel

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// exportTimeout is how long the last spans may take to be exported.
const exportTimeout = 5 * time.Second

// Traced is the service with a span for each call of its RPCs. A span that a handler starts from its
// context is below it.
//
// If OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, unless
// OTEL_SDK_DISABLED is true, it sets the global tracer provider to one that exports there, as the
// service Name or OTEL_SERVICE_NAME. Otherwise the spans are those of the global provider.
func Traced(service drawbridge.Service) drawbridge.Service {
	if provider := provider(service.Name); provider != nil {
		otel.SetTracerProvider(provider)
		service.OnDrained = exportAfter(service.OnDrained, provider)
	}
	handler := otelgrpc.NewServerHandler(
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(isCallOfATool),
	)
	service.Options = append(slices.Clone(service.Options), grpc.StatsHandler(handler))
	return service
}

// isCallOfATool reports whether a call is neither a health check nor reflection.
func isCallOfATool(call *stats.RPCTagInfo) bool {
	return !strings.HasPrefix(call.FullMethodName, "/grpc.health.") &&
		!strings.HasPrefix(call.FullMethodName, "/grpc.reflection.")
}

// provider exports spans where the environment says; nil if it does not.
func provider(name string) *trace.TracerProvider {
	isSet := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !isSet || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil
	}
	// It connects when there are spans to export.
	exporter, err := otlptracegrpc.New(context.Background())
	if err != nil {
		slog.Warn("spans cannot be exported", "error", err.Error())
		return nil
	}
	if own := os.Getenv("OTEL_SERVICE_NAME"); own != "" {
		name = own
	}
	described := resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName(name))
	return trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(described))
}

// exportAfter exports the last spans once the service has released what it used.
func exportAfter(before func(), provider *trace.TracerProvider) func() {
	return func() {
		if before != nil {
			before()
		}
		ctx, cancel := context.WithTimeout(context.Background(), exportTimeout)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			slog.Warn("the last spans were not exported", "error", err.Error())
		}
	}
}
