package endtoend

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testprom"
)

// TestAlertFires lets an account use more than it has, and waits until a real Prometheus with
// the real rules says so.
func TestAlertFires(t *testing.T) {
	t.Parallel()
	metrics := freeAddress(t)
	store := sqliteStore(t)
	n := newNode(t, store, "--metrics-listen", metrics).serve()
	client := dial(t, n.apply(), nil, n.address)
	p := testprom.Start(t, metrics)
	uncovered := func() (value string) {
		for _, s := range p.Query(t, "purser_uncovered_micros_total") {
			value = s.Value
		}
		return value
	}
	p.Await(t, "the node's first scrape", func() bool { return uncovered() == "0" })
	h := reserve(t, client, "acme")
	// 6 000 credits; the account has 4 000.
	if _, err := h.Commit(t.Context(), purser.Used("input_tokens", 0), purser.Used("output_tokens", 2_000_000)); err != nil {
		t.Fatal(err)
	}
	var firing testprom.Alert
	p.Await(t, "PurserUncovered to fire", func() bool {
		for _, a := range p.Alerts(t) {
			if a.Labels["alertname"] == "PurserUncovered" && a.State == "firing" {
				firing = a
				return true
			}
		}
		return false
	})
	if firing.Labels["instance"] != metrics || !strings.Contains(firing.Annotations["runbook_url"], "#purseruncovered") {
		t.Errorf("the alert is %+v", firing)
	}
	n.terminate()
	audited(t, store, true)
}

// TestDashboardHasData asks a real Prometheus every query of the dashboard, and for every
// metric of the alerts, while the demo runs.
func TestDashboardHasData(t *testing.T) {
	t.Parallel()
	metrics := freeAddress(t)
	p := testprom.Start(t, metrics)
	demo := start(t, command("demo", "--speed=60", "--keep", "--metrics-listen", metrics))
	queries := dashboardQueries(t)
	queries = append(queries, alertMetrics(t)...)
	if len(queries) < 60 {
		t.Fatalf("only %d queries were found", len(queries))
	}
	for _, q := range queries {
		var last []testprom.Sample
		p.Await(t, "an answer to "+q, func() bool {
			select {
			case <-demo.done:
				t.Fatal("the demo has ended")
			default:
			}
			last = p.Query(t, q)
			for _, s := range last {
				if s.Value != "NaN" {
					return true
				}
			}
			return false
		})
	}
}

// dashboardQueries are the expressions of all panels, for all nodes and a minute.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(testprom.Deploy(t, "grafana", "purser.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	variables := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m")
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("the panel %s has no query", panel.Title)
		}
		for _, target := range panel.Targets {
			queries = append(queries, variables.Replace(target.Expr))
		}
	}
	return queries
}

// alertMetrics are the selectors in the alerts' expressions: an expression itself has an answer
// only when its alert is due.
func alertMetrics(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(testprom.Deploy(t, "prometheus", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			found := regexp.MustCompile(`\b(purser_[a-z_]+|up)\b(\{[^}]*\})?`).FindAllString(rule.Expr, -1)
			if len(found) == 0 {
				t.Errorf("no metric was found in the expression of %s", rule.Alert)
			}
			queries = append(queries, found...)
		}
	}
	return queries
}
