package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestWanted(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		want string // signals, in order
	}{
		{"nothing is set", nil, ""},
		{"one endpoint for all", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "TRACES METRICS LOGS"},
		{"one of its own", map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, "METRICS"},
		{"all but one", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_LOGS_EXPORTER": "none"}, "TRACES METRICS"},
		{"an exporter, at its default endpoint", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, "TRACES"},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			var got []string
			for _, signal := range []string{traces, metrics, logs} {
				if wanted(signal) {
					got = append(got, signal)
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("wanted %v, want %q", got, tt.want)
			}
		})
	}
}

// TestNothingIsSetUpUnlessAskedFor: no tracer, the very same logger, nothing to shut down.
func TestNothingIsSetUpUnlessAskedFor(t *testing.T) {
	logger := slog.New(slog.NewTextHandler(new(bytes.Buffer), nil))
	made, err := New(t.Context(), Config{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	for _, tel := range []*Telemetry{nil, made} {
		if tel.Tracer() != nil || tel.TracerProvider() != nil || tel.Logger(logger) != logger {
			t.Error("something is set up")
		}
		if err := tel.ExportMetrics(t.Context(), prometheus.NewRegistry()); err != nil || tel != nil && tel.metrics != nil {
			t.Errorf("metrics are exported: %v", err)
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestExemplarsHaveBinaryIDs: as the bridge makes them, and as it will when it does it right.
func TestExemplarsHaveBinaryIDs(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Buckets: []float64{1}})
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "events_total"})
	registry.MustRegister(h, c)
	ids := prometheus.Labels{"trace_id": strings.Repeat("0a", 16), "span_id": strings.Repeat("0b", 8)}
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(0.5, ids)
	c.(prometheus.ExemplarAdder).AddWithExemplar(1, ids)
	scopes, err := binaryIDs{bridge.NewMetricProducer(bridge.WithGatherer(registry))}.Produce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	check := func(exemplars []metricdata.Exemplar[float64]) {
		for _, e := range exemplars {
			found++
			if string(e.TraceID) != strings.Repeat("\x0a", 16) || string(e.SpanID) != strings.Repeat("\x0b", 8) {
				t.Errorf("ids %x and %x", e.TraceID, e.SpanID)
			}
		}
	}
	for _, scope := range scopes {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				check(data.DataPoints[0].Exemplars)
			case metricdata.Sum[float64]:
				check(data.DataPoints[0].Exemplars)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d exemplars, want 2", found)
	}
	if got := binary([]byte(strings.Repeat("\x0a", 16)), 16); len(got) != 16 {
		t.Errorf("16 bytes became %x", got)
	}
	if got := binary([]byte("no id"), 16); got != nil {
		t.Errorf("no id became %x", got)
	}
}

// TestLevelIsTheLocalOne: what standard error does not show is not exported either.
func TestLevelIsTheLocalOne(t *testing.T) {
	var sent, local bytes.Buffer
	h := leveled{slog.NewTextHandler(&sent, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.NewTextHandler(&local, &slog.HandlerOptions{Level: slog.LevelWarn})}
	l := slog.New(slog.NewMultiHandler(h)).With("a", 1).WithGroup("g")
	l.Info("quiet")
	l.Warn("loud", "b", 2)
	if strings.Contains(sent.String(), "quiet") || !strings.Contains(sent.String(), "loud") || !strings.Contains(sent.String(), "g.b=2") {
		t.Errorf("sent %q", sent.String())
	}
}
