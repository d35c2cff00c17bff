package telemetry

import (
	"context"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// metricReader reads g at OTEL_METRIC_EXPORT_INTERVAL. It does for metrics what autoexport
// does for the other signals: that one takes a registry only if it is the process's.
func metricReader(ctx context.Context, g prometheus.Gatherer) (sdkmetric.Reader, error) {
	exporter, err := metricExporter(ctx)
	if err != nil || exporter == nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(binaryIDs{bridge.NewMetricProducer(bridge.WithGatherer(g))})), nil
}

func metricExporter(ctx context.Context) (sdkmetric.Exporter, error) {
	switch name := os.Getenv("OTEL_METRICS_EXPORTER"); name {
	case "", "otlp":
	case "console":
		return stdoutmetric.New()
	case "prometheus":
		return nil, nil // served at /metrics anyway
	default:
		return nil, fmt.Errorf("OTEL_METRICS_EXPORTER is %q; it may be otlp, console, prometheus or none", name)
	}
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	case "", "http/protobuf":
		return otlpmetrichttp.New(ctx)
	}
	return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q; it may be grpc or http/protobuf", protocol)
}
