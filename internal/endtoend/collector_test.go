package endtoend

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	logs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logrecord "go.opentelemetry.io/proto/otlp/logs/v1"
	metric "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	span "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// collector takes OTLP as an OpenTelemetry collector does, and keeps it.
type collector struct {
	mu        sync.Mutex
	spans     []*span.Span
	metrics   map[string][]*metric.Metric // by name, as they came
	logs      []*logrecord.LogRecord
	resources []*resource.Resource
}

// collect serves a collector on loopback, over gRPC or HTTP, until the test ends.
func collect(t *testing.T, protocol string) (c *collector, endpoint string) {
	t.Helper()
	c = &collector{metrics: make(map[string][]*metric.Metric)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve, stop := c.overHTTP()
	if protocol == "grpc" {
		serve, stop = c.overGRPC()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = serve(l) // it ends by stop
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return c, "http://" + l.Addr().String()
}

func (c *collector) overGRPC() (serve func(net.Listener) error, stop func()) {
	s := grpc.NewServer()
	traces.RegisterTraceServiceServer(s, traceService{c: c})
	metrics.RegisterMetricsServiceServer(s, metricsService{c: c})
	logs.RegisterLogsServiceServer(s, logsService{c: c})
	return s.Serve, s.Stop
}

func (c *collector) overHTTP() (serve func(net.Listener) error, stop func()) {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/traces", taken(c.takeTraces))
	mux.Handle("POST /v1/metrics", taken(c.takeMetrics))
	mux.Handle("POST /v1/logs", taken(c.takeLogs))
	s := &http.Server{Handler: mux}
	return s.Serve, func() { _ = s.Close() }
}

// taken reads one message of OTLP over HTTP. An empty body is an empty answer in protobuf.
func taken[M any, P interface {
	*M
	proto.Message
}](take func(P)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := P(new(M))
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, m)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
			http.Error(w, "want protobuf", http.StatusBadRequest)
			return
		}
		take(m)
	})
}

type traceService struct {
	traces.UnimplementedTraceServiceServer
	c *collector
}

func (s traceService) Export(_ context.Context, r *traces.ExportTraceServiceRequest) (*traces.ExportTraceServiceResponse, error) {
	s.c.takeTraces(r)
	return &traces.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	metrics.UnimplementedMetricsServiceServer
	c *collector
}

func (s metricsService) Export(_ context.Context, r *metrics.ExportMetricsServiceRequest) (*metrics.ExportMetricsServiceResponse, error) {
	s.c.takeMetrics(r)
	return &metrics.ExportMetricsServiceResponse{}, nil
}

type logsService struct {
	logs.UnimplementedLogsServiceServer
	c *collector
}

func (s logsService) Export(_ context.Context, r *logs.ExportLogsServiceRequest) (*logs.ExportLogsServiceResponse, error) {
	s.c.takeLogs(r)
	return &logs.ExportLogsServiceResponse{}, nil
}

func (c *collector) takeTraces(r *traces.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceSpans() {
		c.resources = append(c.resources, of.GetResource())
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

func (c *collector) takeMetrics(r *metrics.ExportMetricsServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceMetrics() {
		c.resources = append(c.resources, of.GetResource())
		for _, scope := range of.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				c.metrics[m.GetName()] = append(c.metrics[m.GetName()], m)
			}
		}
	}
}

func (c *collector) takeLogs(r *logs.ExportLogsServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceLogs() {
		c.resources = append(c.resources, of.GetResource())
		for _, scope := range of.GetScopeLogs() {
			c.logs = append(c.logs, scope.GetLogRecords()...)
		}
	}
}

// below is the span of a name under a parent, given as hexadecimal ids.
func (c *collector) below(t *testing.T, trace, parent, name string) *span.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name && hex.EncodeToString(s.GetTraceId()) == trace && hex.EncodeToString(s.GetParentSpanId()) == parent {
			return s
		}
	}
	t.Fatalf("there is no span %s under %s in trace %s; there are %v", name, parent, trace, c.spans)
	return nil
}

func text(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
