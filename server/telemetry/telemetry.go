package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Scope names this program's instrumentation in what is exported.
const Scope = "github.com/purser-io/purser"

// Config says who exports.
type Config struct {
	Version  string       // of the program
	Instance string       // of this node; "" = none
	Logger   *slog.Logger // as it is without telemetry: told when an export fails
}

// Telemetry is what is exported. Its zero value, and nil, export nothing.
type Telemetry struct {
	resource *resource.Resource
	tracer   *sdktrace.TracerProvider // nil = no traces
	logs     *sdklog.LoggerProvider   // nil = no logs
	metrics  *sdkmetric.MeterProvider // nil = no metrics, or not yet
}

// New sets up traces and logs; ExportMetrics adds metrics. It connects to nobody yet. An error
// names the variable that is wrong. End what it returns with Shutdown.
func New(ctx context.Context, c Config) (_ *Telemetry, err error) {
	t := &Telemetry{}
	if !wanted(traces) && !wanted(metrics) && !wanted(logs) {
		return t, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Shutdown(ctx))
		}
	}()
	// OpenTelemetry has one place for errors in a process. They are not sent where they come from.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { c.Logger.Warn("telemetry not exported", "error", err) }))
	if t.resource, err = describe(ctx, c); err != nil {
		return t, err
	}
	if err := t.startTraces(ctx); err != nil {
		return t, err
	}
	return t, t.startLogs(ctx)
}

// describe says who exports; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
func describe(ctx context.Context, c Config) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{attribute.String("service.name", "purser"), attribute.String("service.version", c.Version)}
	if c.Instance != "" {
		attrs = append(attrs, attribute.String("service.instance.id", c.Instance))
	}
	r, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(attrs...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return r, nil
}

func (t *Telemetry) startTraces(ctx context.Context) error {
	if !wanted(traces) {
		return nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return fmt.Errorf("export traces as OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_* say: %w", err)
	}
	t.tracer = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(t.resource))
	return nil
}

func (t *Telemetry) startLogs(ctx context.Context) error {
	if !wanted(logs) {
		return nil
	}
	exporter, err := autoexport.NewLogExporter(ctx)
	if err != nil {
		return fmt.Errorf("export logs as OTEL_LOGS_EXPORTER and OTEL_EXPORTER_OTLP_* say: %w", err)
	}
	t.logs = sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)), sdklog.WithResource(t.resource))
	return nil
}

// ExportMetrics exports what g gathers, which is also what /metrics shows: there is one set
// of counters. Call it at most once.
func (t *Telemetry) ExportMetrics(ctx context.Context, g prometheus.Gatherer) error {
	if t == nil || t.resource == nil || !wanted(metrics) {
		return nil
	}
	reader, err := metricReader(ctx, g)
	if err != nil {
		return fmt.Errorf("export metrics as OTEL_METRICS_EXPORTER and OTEL_EXPORTER_OTLP_* say: %w", err)
	}
	if reader != nil {
		t.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(t.resource))
	}
	return nil
}

// TracerProvider makes spans; nil if none are exported.
func (t *Telemetry) TracerProvider() trace.TracerProvider {
	if t == nil || t.tracer == nil {
		return nil // not a nil pointer in an interface
	}
	return t.tracer
}

// Tracer makes the spans of the engine; nil if none are exported.
func (t *Telemetry) Tracer() trace.Tracer {
	if t == nil || t.tracer == nil {
		return nil
	}
	return t.tracer.Tracer(Scope)
}

// Logger is l whose lines name the trace that they belong to, and are exported besides.
func (t *Telemetry) Logger(l *slog.Logger) *slog.Logger {
	if t == nil || t.tracer == nil && t.logs == nil {
		return l
	}
	h := l.Handler()
	var all slog.Handler = traced{h}
	if t.logs != nil {
		all = slog.NewMultiHandler(all, leveled{otelslog.NewHandler(Scope, otelslog.WithLoggerProvider(t.logs)), h})
	}
	return slog.New(all)
}

// shutdownTimeout bounds Shutdown: a collector that is away must not hold up a node's end.
const shutdownTimeout = 5 * time.Second

// Shutdown sends what is still waiting, for at most 5 s, and ends all exports.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	var errs []error
	if t.tracer != nil {
		errs = append(errs, t.tracer.Shutdown(ctx))
	}
	if t.metrics != nil {
		errs = append(errs, t.metrics.Shutdown(ctx))
	}
	if t.logs != nil { // last: the others may have something to say
		errs = append(errs, t.logs.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// Signals, as environment variables name them.
const (
	traces  = "TRACES"
	metrics = "METRICS"
	logs    = "LOGS"
)

// wanted reports whether the environment asks for a signal. OpenTelemetry's own default is to
// send everything to localhost; a program that few people trace must not.
func wanted(signal string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	if exporter := os.Getenv("OTEL_" + signal + "_EXPORTER"); exporter != "" {
		return exporter != "none"
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}
