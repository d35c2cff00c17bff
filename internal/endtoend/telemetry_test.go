package endtoend

import (
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	metric "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// TestTelemetry follows one sampled request from the client into the node's draw and flush, as
// a collector gets it by the standard variables. Everything is sent when the node ends: the
// usual intervals are longer than this test.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			c, endpoint := collect(t, protocol)
			web := freeAddress(t)
			n := newNode(t, sqliteStore(t), "--http-listen", web)
			n.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
				"OTEL_TRACES_SAMPLER=parentbased_always_off", "OTEL_SERVICE_NAME=till", "OTEL_RESOURCE_ATTRIBUTES=region=here"}
			key := n.serve().apply()
			g := newTracedGateway()
			client := dial(t, key, func(p *purser.Config) { p.DialOptions = g.options() }, n.address)
			pay(t, dial(t, key, nil, n.address), "globex") // not sampled

			ctx, root := g.provider.Tracer("gateway").Start(t.Context(), "generate")
			h, err := client.Gate(ctx, hundred("acme"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Commit(ctx, purser.Used("input_tokens", 100), purser.Used("output_tokens", 100)); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Authority("acme").Commit(ctx, &purserv1.CommitRequest{Token: []byte("no token")}); err == nil {
				t.Error("no token was committed")
			}
			postTraced(t, web, key, root.SpanContext())
			root.End()
			n.terminate()

			trace := root.SpanContext().TraceID().String()
			c.checkTrace(t, trace, g)
			server := c.below(t, trace, root.SpanContext().SpanID().String(), "purser.v1.AuthorityService/CheckAndReserve") // over HTTP
			c.below(t, trace, hex.EncodeToString(server.GetSpanId()), "reserve")
			c.checkLogs(t, trace, n.proc.out.String())
			c.checkMetrics(t, trace)
			c.checkResource(t)
		})
	}
}

// postTraced reserves for nobody, as JSON over HTTP, within a span.
func postTraced(t *testing.T, address, key string, span trace.SpanContext) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/purser.v1.AuthorityService/CheckAndReserve",
		strings.NewReader(`{"account": "nobody", "candidates": ["chat"]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Traceparent", "00-"+span.TraceID().String()+"-"+span.SpanID().String()+"-01")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "ACCOUNT_UNKNOWN") {
		t.Errorf("reserve over HTTP: %s: %s", resp.Status, body)
	}
}

// checkTrace: client -> server -> reserve -> draw, and client -> server -> settle -> flush.
func (c *collector) checkTrace(t *testing.T, trace string, g *tracedGateway) {
	t.Helper()
	const service = "purser.v1.AuthorityService/"
	id := func(s interface{ GetSpanId() []byte }) string { return hex.EncodeToString(s.GetSpanId()) }
	server := c.below(t, trace, g.span(t, service+"CheckAndReserve"), service+"CheckAndReserve")
	reserve := c.below(t, trace, id(server), "reserve")
	draw := c.below(t, trace, id(reserve), "draw")
	if text(reserve.GetAttributes(), "purser.decision") != "allowed" {
		t.Errorf("the reserve was %v", reserve.GetAttributes())
	}
	server = c.below(t, trace, g.span(t, service+"Commit"), service+"Commit")
	settle := c.below(t, trace, id(server), "settle")
	flush := c.below(t, trace, id(settle), "flush")
	if text(settle.GetAttributes(), "purser.settlement.state") != "COMMITTED" {
		t.Errorf("the settlement was %v", settle.GetAttributes())
	}
	if len(draw.GetLinks()) != 1 || id(draw.GetLinks()[0]) != id(reserve) || len(flush.GetLinks()) != 1 || id(flush.GetLinks()[0]) != id(settle) {
		t.Errorf("the draw links to %v, the flush to %v", draw.GetLinks(), flush.GetLinks())
	}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) != trace {
			t.Errorf("a span %s of a request that is not sampled was sent", s.GetName())
		}
	}
}

// checkLogs: the line of the call that failed is on standard error and here, with its trace.
func (c *collector) checkLogs(t *testing.T, trace, stderr string) {
	t.Helper()
	found := false
	for _, r := range c.logs {
		found = found || r.GetBody().GetStringValue() == "call failed" && hex.EncodeToString(r.GetTraceId()) == trace &&
			text(r.GetAttributes(), "reason") == "TOKEN_INVALID"
	}
	if !found {
		t.Errorf("the line of the failed call was not sent with its trace; there are %v", c.logs)
	}
	if !strings.Contains(stderr, "trace_id="+trace) {
		t.Errorf("the line does not name its trace on standard error:\n%s", stderr)
	}
}

// checkMetrics: what was charged was counted once, and a flush names the trace.
func (c *collector) checkMetrics(t *testing.T, trace string) {
	t.Helper()
	last := func(name string) *metric.Metric {
		all := c.metrics[name]
		if len(all) == 0 {
			t.Fatalf("there is no metric %s among %d", name, len(c.metrics))
		}
		return all[len(all)-1]
	}
	if points := last("purser_charged_micros_total").GetSum().GetDataPoints(); len(points) != 1 || points[0].GetAsDouble() != 800_000 {
		t.Errorf("charged %v, want 800000", points)
	}
	named := false
	for _, p := range last("purser_flush_seconds").GetHistogram().GetDataPoints() {
		for _, e := range p.GetExemplars() {
			named = named || hex.EncodeToString(e.GetTraceId()) == trace
		}
	}
	if !named {
		t.Errorf("no flush names the trace: %v", last("purser_flush_seconds"))
	}
	last("rpc_server_call_duration_seconds")
}

func (c *collector) checkResource(t *testing.T) {
	t.Helper()
	for _, r := range c.resources {
		if text(r.GetAttributes(), "service.name") != "till" || text(r.GetAttributes(), "region") != "here" || text(r.GetAttributes(), "service.version") == "" {
			t.Errorf("sent by %v", r.GetAttributes())
		}
	}
}

// tracedGateway is an application that traces what it does.
type tracedGateway struct {
	ended    *tracetest.SpanRecorder
	provider *sdktrace.TracerProvider
}

func newTracedGateway() *tracedGateway {
	g := &tracedGateway{ended: tracetest.NewSpanRecorder()}
	g.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(g.ended), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return g
}

func (g *tracedGateway) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
		otelgrpc.WithTracerProvider(g.provider), otelgrpc.WithPropagators(propagation.TraceContext{})))}
}

// span is the id of the client's first span of a name.
func (g *tracedGateway) span(t *testing.T, name string) string {
	t.Helper()
	for _, s := range g.ended.Ended() {
		if s.Name() == name {
			return s.SpanContext().SpanID().String()
		}
	}
	t.Fatalf("the client has no span %s", name)
	return ""
}

// TestCollectorIsAway: a node serves and ends as if nothing was, and says what it could not send.
func TestCollectorIsAway(t *testing.T) {
	t.Parallel()
	store := sqliteStore(t)
	n := newNode(t, store)
	n.env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + freeAddress(t), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}
	key := n.serve().apply()
	pay(t, dial(t, key, nil, n.address), "acme")
	n.terminate()
	if !strings.Contains(n.proc.out.String(), "telemetry not exported") {
		t.Errorf("nothing is said of the collector:\n%s", n.proc.out)
	}
	audited(t, store, true)
}

// TestTelemetrySettingsAreWrong: the variable is named.
func TestTelemetrySettingsAreWrong(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"OTEL_TRACES_EXPORTER=pigeon":  "OTEL_TRACES_EXPORTER",
		"OTEL_LOGS_EXPORTER=pigeon":    "OTEL_LOGS_EXPORTER",
		"OTEL_METRICS_EXPORTER=pigeon": "OTEL_METRICS_EXPORTER",
	} {
		n := newNode(t, sqliteStore(t))
		cmd := command(n.args...)
		cmd.Env = append(cmd.Env, setting)
		p := start(t, cmd)
		if code := p.wait(t); code != 1 || !strings.Contains(p.out.String(), want) {
			t.Errorf("%s: exit %d, want 1 and %s named:\n%s", setting, code, want, p.out)
		}
	}
}
