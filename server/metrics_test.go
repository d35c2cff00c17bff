package server_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/server/auditor"
	"github.com/purser-io/purser/storage/relational"
	"github.com/purser-io/purser/storage/sqlite"
)

// count tells metrics of one of everything.
func count(m *server.Metrics, span trace.SpanContext) {
	m.Decided(quota.DeniedCredits, false, false)
	m.Extended(quota.DeniedCredits, true)
	m.Settled(authority.Settlement{Kind: quota.Committed, Late: true, Charged: 500, Uncovered: 20, Took: time.Millisecond}, span)
	m.Drew(authority.Drew{Pots: 3, Micros: 7000, Took: time.Millisecond, Failed: true}, span)
	m.Waited(time.Millisecond, span)
	m.Returned(300)
	m.Flushed(authority.Flushed{Guest: true, Rows: 64, Took: time.Millisecond}, span)
	m.Projected(2, 5)
	m.Renewed(true)
	m.Lost()
	m.Unpriced()
	m.Interim()
	m.BelowInterim()
}

func TestMetrics(t *testing.T) {
	m := server.NewMetrics()
	w := newWorld(t, func(d *server.Deps) { d.Metrics = m })
	m.Decided(0, true, true)
	count(m, trace.SpanContext{})
	m.Settled(authority.Settlement{Kind: quota.Committed, Charged: -1, Uncovered: -1, Took: -1}, trace.SpanContext{}) // must not panic
	_, err := w.accounts.GetAccount(w.admin, &purserv1.GetAccountRequest{Id: "nobody"})
	wantReason(t, "GetAccount", err, quota.ReasonAccountNotFound)

	w.server.GracefulStop(t.Context()) // gRPC counts a call after its answer has left

	page := get(t, w.server, "/metrics", 200)
	for _, want := range []string{
		`purser_decisions_total{decision="allowed",reason=""} 1`,
		`purser_decisions_total{decision="denied",reason="CREDITS"} 1`,
		`purser_decisions_total{decision="denied",reason="BUDGET"} 0`,
		`purser_reservations_partial_total 1`,
		`purser_reservations_replayed_total 1`,
		`purser_extensions_total{decision="denied",reason="CREDITS"} 1`,
		`purser_extensions_unchanged_total 1`,
		`purser_settlements_total{late="true",state="COMMITTED"} 1`,
		`purser_settle_seconds_count 2`,
		`purser_charged_micros_total 500`,
		`purser_late_micros_total 500`,
		`purser_uncovered_micros_total 20`,
		`purser_draws_total{failed="true"} 1`,
		`purser_draw_wait_seconds_count 1`,
		`purser_drawn_micros_total 7000`,
		`purser_returned_micros_total 300`,
		`purser_flush_records_sum{lane="guest"} 64`,
		`purser_usage_events_total 5`,
		`purser_projection_lag_seconds 0`,
		`purser_lease_renewals_total{failed="true"} 1`,
		`purser_leases_lost_total 1`,
		`purser_settlements_queued{lane="0"} 0`,
		`purser_settlements_queued{lane="guest"} 0`,
		`purser_settle_queue_limit 65536`,
		`purser_unpriced_usage_total 1`,
		`purser_interim_reports_total 1`,
		`purser_settlements_below_interim_total 1`,
		`purser_call_errors_total{code="NotFound",reason="ACCOUNT_NOT_FOUND"} 1`,
		`purser_ready 1`,
		`rpc_server_`,
	} {
		if !strings.Contains(page, want+"\n") && !strings.HasSuffix(want, "_") || !strings.Contains(page, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	if strings.Contains(page, "purser_lease_left_seconds 0\n") {
		t.Error("a node that issues has no lease")
	}
	get(t, w.server, "/healthz", 200)
	get(t, w.server, "/readyz", 200)
}

// TestExemplars: what took time names a trace that is sampled, to who asks for OpenMetrics.
func TestExemplars(t *testing.T) {
	m := server.NewMetrics()
	span := trace.SpanContextConfig{TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled}
	count(m, trace.NewSpanContext(span))
	span.TraceID, span.TraceFlags = trace.TraceID{0xcd}, 0
	count(m, trace.NewSpanContext(span))
	r, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	m.Handler().ServeHTTP(r, req)
	named := make(map[string]bool)
	for line := range strings.Lines(r.Body.String()) {
		if strings.Contains(line, `# {`) {
			named[line[:strings.IndexByte(line, '{')]] = strings.Contains(line, `trace_id="ab0000`)
		}
	}
	for _, want := range []string{"purser_settle_seconds_bucket", "purser_draw_seconds_bucket", "purser_draw_wait_seconds_bucket", "purser_flush_seconds_bucket"} {
		if !named[want] {
			t.Errorf("%s does not name the trace: %v", want, named)
		}
	}
	if strings.Contains(r.Body.String(), "cd0000") {
		t.Error("a trace that is not sampled is named")
	}
}

// TestMetricsAreDocumented: the table of docs/observability.md has what is exported, and nothing
// else.
func TestMetricsAreDocumented(t *testing.T) {
	m := server.NewMetrics()
	w := newSite(t, func(d *server.Deps) { d.Metrics = m })
	_, _ = w.accounts.GetAccount(w.admin, &purserv1.GetAccountRequest{Id: "nobody"})
	w.post(balancePath, "application/json", strings.NewReader("{}"))
	w.server.GracefulStop(t.Context()) // then gRPC has counted the call
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		documented[row[1]] = true
	}
	for _, f := range families {
		name := f.GetName()
		ours := strings.HasPrefix(name, "purser_") || strings.HasPrefix(name, "rpc_")
		if ours && !documented[name] {
			t.Errorf("%s has no row in docs/observability.md", name)
		}
		if !ours && !regexp.MustCompile(`^(go|process|promhttp)_`).MatchString(name) {
			t.Errorf("%s belongs to no family that docs/observability.md names", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/observability.md has a row for %s, which is not exported", name)
	}
}

func get(t *testing.T, s *server.Server, path string, want int) string {
	t.Helper()
	r := httptest.NewRecorder()
	s.MetricsHandler().ServeHTTP(r, httptest.NewRequest("GET", path, nil))
	if r.Code != want {
		t.Errorf("%s: %d: %s", path, r.Code, r.Body)
	}
	return r.Body.String()
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := server.NewMetrics()
	if allocs := testing.AllocsPerRun(100, func() { count(m, trace.SpanContext{}) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestAuditsAreShown: books that an audit finds wrong are seen at the next one, an interval later,
// and such as could not be audited leave what is known. In fake time, of real books.
func TestAuditsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := sqlite.Options{Path: filepath.Join(t.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }}
		store, err := sqlite.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		now := quota.Mutation{Principal: "test", Now: time.Now().UnixNano()}
		_, err = store.CreateAccount(t.Context(), now, quota.Account{ID: "acme"})
		if err == nil {
			_, err = store.CreateGrant(t.Context(), now, "acme", quota.Pot{ID: quota.GrantPotID("one"), Kind: quota.PotWallet, Granted: 1e6,
				Start: now.Now, End: quota.Never, GrantKind: quota.GrantPurchased})
		}
		if err != nil {
			t.Fatal(err)
		}
		m, every, away := server.NewMetrics(), 6*time.Hour, false
		a := &auditor.Auditor{Every: every, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Metrics: m,
			Open: func(ctx context.Context) (auditor.Store, error) {
				if away {
					return nil, quota.Errorf(quota.ReasonStoreUnavailable, "away")
				}
				readOnly := o
				readOnly.ReadOnly = true
				return sqlite.Open(ctx, readOnly)
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		shows := func(want ...string) {
			t.Helper()
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			for _, line := range want {
				if !strings.Contains(w.Body.String(), line+"\n") {
					t.Errorf("after %v no %s", time.Duration(time.Now().UnixNano()-now.Now), line)
				}
			}
		}
		time.Sleep(every) // the first comes at random within it
		shows(`purser_audits_total{result="balanced"} 1`, `purser_audit_findings 0`)
		err = store.Write(t.Context(), func(tx relational.Tx) error {
			_, err := tx.Exec(t.Context(), "UPDATE pots SET available = available + 1")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(every)
		shows(`purser_audits_total{result="balanced"} 1`, `purser_audits_total{result="findings"} 1`, `purser_audit_findings 1`)
		away = true
		time.Sleep(every)
		shows(`purser_audits_total{result="findings"} 1`, `purser_audits_total{result="failed"} 1`, `purser_audit_findings 1`)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
