package testprom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Server is a Prometheus on loopback that reads what it is told to four times a second, and
// has the alerts of deploy/prometheus.
type Server struct {
	url string
	log *bytes.Buffer // to be read once the process has ended
}

// config has intervals that tests can wait for. Everything else is as in prometheus.yml.
const config = `global: {scrape_interval: 250ms, evaluation_interval: 250ms}
rule_files: [%q]
scrape_configs:
  - job_name: purser
    static_configs:
      - targets: [%s]
`

// Start starts a server that scrapes targets, HOST:PORT each, until the test ends.
func Start(t testing.TB, targets ...string) *Server {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(config, Deploy(t, "prometheus", "alerts.yaml"), "'"+strings.Join(targets, "', '")+"'")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	s := &Server{url: "http://" + address, log: new(bytes.Buffer)}
	cmd := exec.Command(Find(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature=exemplar-storage", "--log.level=warn")
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Prometheus: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or its log says why it ended
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // by its own pid; it may have ended
		<-ended
		if t.Failed() {
			t.Logf("Prometheus wrote:\n%s", s.log)
		}
	})
	s.Await(t, "Prometheus to be ready", func() bool {
		select {
		case <-ended:
			t.Fatal("Prometheus did not start")
		default:
		}
		r, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return s
}

// freeAddress is a port of loopback that nobody listened on a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// patience bounds everything that is waited for. It is no expectation.
const patience = 90 * time.Second

// Await asks again and again until done says so; the test fails when it takes too long.
func (s *Server) Await(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// Sample is one series of an instant query's answer.
type Sample struct {
	Metric map[string]string
	Value  string // as Prometheus writes it; NaN is one
}

// Query evaluates an expression now.
func (s *Server) Query(t testing.TB, expression string) []Sample {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	}
	s.get(t, "/api/v1/query?query="+url.QueryEscape(expression), &data)
	samples := make([]Sample, len(data.Result))
	for i, r := range data.Result {
		samples[i] = Sample{Metric: r.Metric, Value: fmt.Sprint(r.Value[1])}
	}
	return samples
}

// Alert is one that is pending or firing.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"`
}

// Alerts lists what is pending or firing.
func (s *Server) Alerts(t testing.TB) []Alert {
	t.Helper()
	var data struct {
		Alerts []Alert `json:"alerts"`
	}
	s.get(t, "/api/v1/alerts", &data)
	return data.Alerts
}

func (s *Server) get(t testing.TB, path string, data any) {
	t.Helper()
	r, err := http.Get(s.url + path)
	if err != nil {
		t.Fatalf("ask Prometheus: %v", err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	answer := struct {
		Status string `json:"status"`
		Data   any    `json:"data"`
	}{Data: data}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil || answer.Status != "success" {
		t.Fatalf("Prometheus answers %s with %v: %s", path, err, body)
	}
}
