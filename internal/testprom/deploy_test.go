package testprom_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/purser-io/purser/internal/testprom"
)

// promtool runs Debian's promtool on files of deploy/prometheus.
func promtool(t *testing.T, file string, args ...string) {
	t.Helper()
	args = append(args, testprom.Deploy(t, "prometheus", file))
	if out, err := exec.Command(testprom.Find(t, "promtool"), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestConfigAndRulesAreValid(t *testing.T) {
	promtool(t, "prometheus.yml", "check", "config")
	promtool(t, "alerts.yaml", "check", "rules", "--lint-fatal")
}

func TestAlertsFireWhenTheyShould(t *testing.T) { promtool(t, "alerts_test.yaml", "test", "rules") }

// rules is what alerts.yaml has in it, as far as the tests look.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

// cases is what alerts_test.yaml has in it.
type cases struct {
	Tests []struct {
		Cases []struct {
			Alert    string `yaml:"alertname"`
			Expected []any  `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func read(t *testing.T, into any, path ...string) {
	t.Helper()
	b, err := os.ReadFile(testprom.Deploy(t, path...))
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEveryAlertIsTestedAndExplained: one case in which it fires and one in which it does not,
// a severity, and a paragraph behind its runbook's address.
func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	var r rules
	var c cases
	read(t, &r, "prometheus", "alerts.yaml")
	read(t, &c, "prometheus", "alerts_test.yaml")
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, test := range c.Tests {
		for _, one := range test.Cases {
			if len(one.Expected) > 0 {
				fires[one.Alert] = true
			} else {
				silent[one.Alert] = true
			}
		}
	}
	doc, err := os.ReadFile(testprom.Deploy(t, "..", "docs", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := 0
	for _, group := range r.Groups {
		for _, a := range group.Rules {
			explained++
			if !fires[a.Alert] || !silent[a.Alert] {
				t.Errorf("%s: tested firing %t, silent %t", a.Alert, fires[a.Alert], silent[a.Alert])
			}
			if s := a.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", a.Alert, s)
			}
			if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
				t.Errorf("%s lacks a summary or a description", a.Alert)
			}
			const page = "https://github.com/purser-io/purser/blob/main/docs/observability.md#"
			if want := page + strings.ToLower(a.Alert); a.Annotations["runbook_url"] != want {
				t.Errorf("%s: runbook %q, want %q", a.Alert, a.Annotations["runbook_url"], want)
			}
			if !strings.Contains(string(doc), "\n### "+a.Alert+"\n") {
				t.Errorf("docs/observability.md has no paragraph on %s", a.Alert)
			}
		}
	}
	if explained < 10 || strings.Count(string(doc), "\n### Purser") != explained {
		t.Errorf("there are %d alerts, and docs/observability.md explains %d", explained, strings.Count(string(doc), "\n### Purser"))
	}
}
