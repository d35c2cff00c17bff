package endtoend

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/purser-io/purser/internal/testdb"
)

// benchReport is what a program that reads `purser bench --output json` relies on.
type benchReport struct {
	Settings struct {
		Store     string   `json:"store"`
		Scenarios []string `json:"scenarios"`
		Rounds    int      `json:"rounds"`
		Request   int      `json:"request_bytes"`
		Reply     int      `json:"response_bytes"`
	} `json:"settings"`
	Throughput []struct {
		Name         string    `json:"name"`
		PerSecond    []float64 `json:"per_second"`
		Server       []float64 `json:"server_cpus"`
		Client       []float64 `json:"client_cpus"`
		Transactions []float64 `json:"transactions_per_1000"`
	} `json:"throughput"`
	Latency []struct {
		Name string    `json:"name"`
		P50  []float64 `json:"p50_us"`
		P99  []float64 `json:"p99_us"`
	} `json:"latency"`
	Ratios []struct {
		Name    string  `json:"name"`
		Meaning string  `json:"meaning"`
		Median  float64 `json:"median"`
		Least   float64 `json:"least"`
		Most    float64 `json:"most"`
		Floor   float64 `json:"floor"`
		Upper   bool    `json:"upper"`
		Met     *bool   `json:"met"`
	} `json:"ratios"`
}

// runBench runs a quick benchmark. How fast it was is not looked at.
func runBench(t *testing.T, args ...string) benchReport {
	t.Helper()
	cmd := command(append([]string{"bench", "--quick", "--output", "json"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("purser bench: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var r benchReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	return r
}

// check holds the report to itself.
func (r *benchReport) check(t *testing.T) {
	t.Helper()
	if r.Settings.Rounds != 1 || r.Settings.Request == 0 || r.Settings.Reply == 0 || r.Settings.Store == "" {
		t.Errorf("settings %+v", r.Settings)
	}
	for _, x := range r.Throughput {
		if len(x.PerSecond) != 1 || x.PerSecond[0] <= 0 || len(x.Server) != 1 || x.Server[0] <= 0 || len(x.Client) != 1 || x.Client[0] <= 0 {
			t.Errorf("throughput %+v", x)
		}
	}
	for _, x := range r.Latency {
		if len(x.P50) != 1 || x.P50[0] <= 0 || x.P99[0] < x.P50[0] {
			t.Errorf("latency %+v", x)
		}
	}
	for _, x := range r.Ratios {
		if x.Meaning == "" || x.Median <= 0 || x.Least > x.Median || x.Most < x.Median {
			t.Errorf("ratio %+v", x)
		}
		reached := x.Median >= x.Floor
		if x.Upper {
			reached = x.Median <= x.Floor
		}
		if (x.Met == nil) != (x.Floor == 0) || x.Met != nil && *x.Met != reached {
			t.Errorf("verdict of %+v", x)
		}
	}
}

func (r *benchReport) rate(name string) float64 {
	for _, x := range r.Throughput {
		if x.Name == name {
			return x.PerSecond[0]
		}
	}
	return 0
}

func TestBenchOnSQLite(t *testing.T) {
	dir := t.TempDir()
	picture, store := filepath.Join(dir, "ratios.svg"), filepath.Join(dir, "scratch.db")
	r := runBench(t, "--store", "sqlite:"+store, "--svg", picture)
	r.check(t)
	if len(r.Throughput) != 14 || len(r.Latency) != 4 || len(r.Ratios) != 12 {
		t.Errorf("%d throughputs, %d latencies, %d ratios", len(r.Throughput), len(r.Latency), len(r.Ratios))
	}
	for _, x := range r.Ratios {
		if want := r.rate("pairs, hot") / r.rate("naive, hot"); x.Name == "pairs / naive, hot" && x.Median != want {
			t.Errorf("%s = %v, and the figures say %v", x.Name, x.Median, want)
		}
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(svg, new(struct{})); err != nil {
		t.Errorf("the picture: %v", err)
	}
	if left, err := filepath.Glob(store + "*"); err != nil || left != nil {
		t.Errorf("it left %v behind, %v", left, err)
	}
	if err := os.WriteFile(store, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, []string{"exists", "its own"}, "bench", "--quick", "--store", "sqlite:"+store)
}

func TestBenchOnPostgreSQL(t *testing.T) {
	url := testdb.PostgreSQL(t)
	r := runBench(t, "--store", url, "--only", "pairs,commit", "--pots", "3")
	r.check(t)
	if len(r.Throughput) != 5 || len(r.Latency) != 2 || len(r.Ratios) != 4 {
		t.Errorf("%d throughputs, %d latencies, %d ratios", len(r.Throughput), len(r.Latency), len(r.Ratios))
	}
	for _, x := range r.Throughput {
		if purser := x.Name[0] == 'p'; purser != (len(x.Transactions) == 1) {
			t.Errorf("%s: transactions %v", x.Name, x.Transactions)
		}
	}
	wantNothingLeft(t, url)
}

// wantNothingLeft fails if a benchmark left a database on the server, or a table in url's.
func wantNothingLeft(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var left int
	err = conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE 'purser_bench%') +
		(SELECT count(*) FROM pg_tables WHERE schemaname = 'public')`).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d databases and tables are left, %v", left, err)
	}
}

// TestBenchMemory fills a node with little, and looks at whether it was filled.
func TestBenchMemory(t *testing.T) {
	out, err := command("bench", "memory", "--accounts", "20", "--reservations", "3000", "--keys", "--pots", "2", "--output", "json").Output()
	if err != nil {
		t.Fatalf("purser bench memory: %v\n%s", err, out)
	}
	var r struct {
		Accounts, Reservations struct {
			Count int   `json:"count"`
			Each  int64 `json:"heap_bytes_each"`
			Met   *bool `json:"met"`
		}
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if r.Accounts.Count != 20 || r.Reservations.Count != 3000 || r.Reservations.Each < 100 {
		t.Errorf("%+v", r)
	}
	if r.Accounts.Met != nil || r.Reservations.Met != nil {
		t.Error("a verdict about a million was drawn from three thousand")
	}
}

// TestBenchCurves measures few points for a short time; how they lie is not looked at, but that the
// engine allocates nothing is.
func TestBenchCurves(t *testing.T) {
	url := testdb.PostgreSQL(t)
	picture := filepath.Join(t.TempDir(), "curves.svg")
	out, err := command("bench", "curves", "--accounts", "1,500", "--budgets", "1,63", "--nodes", "1,2", "--rounds", "2", "--round", "100ms",
		"--store", url, "--svg", picture, "--output", "json").Output()
	if err != nil {
		t.Fatalf("purser bench curves: %v\n%s", err, out)
	}
	var r struct {
		Store  string `json:"store"`
		Curves []struct {
			Name     string `json:"name"`
			At       []int  `json:"at"`
			Measures []struct {
				Name string      `json:"name"`
				At   [][]float64 `json:"at"`
			} `json:"measures"`
		} `json:"curves"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if len(r.Curves) != 3 || r.Store == "" {
		t.Fatalf("%d curves on %q", len(r.Curves), r.Store)
	}
	for _, c := range r.Curves {
		if len(c.At) != 2 || c.At[0] != 1 || len(c.Measures) < 2 {
			t.Errorf("curve %+v", c)
		}
		for _, m := range c.Measures {
			allocations := m.Name == "allocations in a reservation"
			for i, v := range m.At {
				if len(v) != 2 || (v[0] <= 0 || v[1] <= 0) && !allocations || allocations && v[1] >= 1 {
					t.Errorf("%s, %s at %d: %v", c.Name, m.Name, c.At[i], v)
				}
			}
		}
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(svg, new(struct{})); err != nil {
		t.Errorf("the picture: %v", err)
	}
	wantNothingLeft(t, url)
	refused(t, 2, []string{"one node only", "--help"}, "bench", "curves", "--store", "sqlite:x")
	refused(t, 2, []string{"--budgets is 64", "1 to 63"}, "bench", "curves", "--budgets", "64")
}
