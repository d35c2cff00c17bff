package demo

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/trace"
	"github.com/purser-io/purser/examples"
)

func example(t *testing.T) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse("catalog.yaml", examples.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPayersAndModels(t *testing.T) {
	m := example(t)
	want := []Payer{{"acme-search", "enterprise", "acme"}, {"globex", "pro", ""}, {"acme-support", "enterprise", "acme"},
		{"initech", "pro", ""}, {"ada", "free", ""}, {"lin", "free", ""}}
	if got := Payers(m); !slices.Equal(got, want) {
		t.Errorf("payers = %v, want %v", got, want)
	}
	if got := Models(m); !slices.Equal(got, []string{"chat.gpt-large", "chat.gpt-small"}) {
		t.Errorf("models = %v", got)
	}
}

func TestAssign(t *testing.T) {
	m := example(t)
	rows := make([]trace.Row, 5000)
	for i := range rows {
		rows[i] = trace.Row{At: time.Duration(i), Context: int64(i), Generated: 7}
	}
	jobs := assign(t, rows, m, 1)
	if !reflect.DeepEqual(jobs, assign(t, rows, m, 1)) {
		t.Error("the same seed gives other jobs")
	}
	if reflect.DeepEqual(jobs, assign(t, rows, m, 2)) {
		t.Error("another seed gives the same jobs")
	}
	accounts, cancelled := map[string]int{}, 0
	for i, j := range jobs {
		if j.Row != rows[i] {
			t.Fatalf("job %d is of another row", i)
		}
		if j.Account == "acme-support" && j.Team != "support" {
			t.Fatalf("job %d: %s has team %s", i, j.Account, j.Team)
		}
		accounts[j.Account]++
		if j.Cancelled {
			cancelled++
		}
	}
	if len(accounts) != 6 || accounts["acme-search"] < 2*accounts["acme-support"] || accounts["lin"] < 200 {
		t.Errorf("requests = %v, want all accounts, the first busiest", accounts)
	}
	if cancelled < 50 || cancelled > 150 {
		t.Errorf("cancelled = %d of 5000, want about 100", cancelled)
	}
}

func assign(t *testing.T, rows []trace.Row, m *manifest.Manifest, seed uint64) []Job {
	t.Helper()
	jobs, err := Assign(rows, Payers(m), Models(m), seed)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func TestAssignNeedsAccountsAndModels(t *testing.T) {
	if _, err := Assign(nil, nil, []string{"a"}, 1); err == nil {
		t.Error("no accounts, and no error")
	}
	if _, err := Assign(nil, []Payer{{"a", "b", ""}}, nil, 1); err == nil {
		t.Error("no models, and no error")
	}
}

func TestAfter(t *testing.T) {
	for _, c := range []struct {
		speed float64
		want  time.Duration
	}{{0, 0}, {1, time.Minute}, {60, time.Second}, {0.5, 2 * time.Minute}} {
		if got := after(time.Minute, c.speed); got != c.want {
			t.Errorf("a minute at speed %v = %v, want %v", c.speed, got, c.want)
		}
	}
	if got := after(time.Hour, 1e-300); got <= 0 {
		t.Errorf("an hour at nearly no speed = %v, want something long", got)
	}
}
