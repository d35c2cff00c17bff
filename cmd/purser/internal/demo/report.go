package demo

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/purser-io/purser/quota/amount"
)

// Report is what a replay came to.
type Report struct {
	Trace      string             `json:"trace"`
	Seed       uint64             `json:"seed"`
	Run        string             `json:"run"`
	Took       time.Duration      `json:"took_ns"`
	Rows       int                `json:"rows"`
	PerSecond  int                `json:"requests_per_second"`
	Total      Counts             `json:"total"`
	Plans      map[string]*Counts `json:"plans"`
	Credits    []Credits          `json:"credits"`
	Reserve    Latency            `json:"reserve"`
	Commit     Latency            `json:"commit"`
	FirstError []string           `json:"first_errors,omitempty"`
}

// Credits is what one plan was charged for one model.
type Credits struct {
	Plan    string `json:"plan"`
	Model   string `json:"model"`
	Commits int    `json:"commits"`
	Charged int64  `json:"charged_micros"`
	Overage int64  `json:"overage_micros"`
}

// Latency of one call, as the client saw it.
type Latency struct {
	Count int64         `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

// Report sums up a replay that has ended.
func (r *Replayer) Report(took time.Duration) *Report {
	out := &Report{Run: r.Run, Took: took, Total: r.Tally.Total(), Credits: r.Ledger.credits()}
	r.Tally.mu.Lock()
	defer r.Tally.mu.Unlock()
	out.Plans, out.FirstError = r.Tally.plans, r.Tally.errors
	out.Reserve, out.Commit = latency(r.Tally.reserve), latency(r.Tally.commit)
	if took > 0 {
		out.PerSecond = int(int64(out.Total.Requests) * int64(time.Second) / int64(took))
	}
	return out
}

func latency(h *hdrhistogram.Histogram) Latency {
	return Latency{Count: h.TotalCount(), P50: time.Duration(h.ValueAtPercentile(50)),
		P99: time.Duration(h.ValueAtPercentile(99)), Max: time.Duration(h.Max())}
}

func (l *Ledger) credits() []Credits {
	sums := map[[2]string]*Credits{}
	l.each(func(_ string, e Entry) {
		if !e.committed() {
			return
		}
		key := [2]string{e.Plan, e.Feature}
		if sums[key] == nil {
			sums[key] = &Credits{Plan: e.Plan, Model: e.Feature}
		}
		sums[key].Commits++
		sums[key].Charged += e.Charged
		sums[key].Overage += e.Overage
	})
	var out []Credits
	for _, key := range slices.SortedFunc(maps.Keys(sums), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		out = append(out, *sums[key])
	}
	return out
}

// Print writes the report as tables.
func (r *Report) Print(w io.Writer) {
	r.printRequests(w)
	r.printCredits(w)
	r.printLatencies(w)
	for _, text := range r.FirstError {
		fmt.Fprintln(w, "error:", text)
	}
}

func newTable(w io.Writer, title string, numbersFrom, columns int) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetTitle(title)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header, t.Style().Format.Footer = text.FormatDefault, text.FormatDefault
	var configs []table.ColumnConfig
	for n := numbersFrom; n <= columns; n++ {
		configs = append(configs, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	return t
}

func (r *Report) printRequests(w io.Writer) {
	plans := slices.Sorted(maps.Keys(r.Plans))
	t := newTable(w, "Requests", 2, len(plans)+2)
	header := table.Row{""}
	for _, plan := range plans {
		header = append(header, plan)
	}
	t.AppendHeader(append(header, "all"))
	row := func(name string, value func(*Counts) int) {
		cells := table.Row{name}
		for _, plan := range plans {
			cells = append(cells, value(r.Plans[plan]))
		}
		t.AppendRow(append(cells, value(&r.Total)))
	}
	row("requests", func(c *Counts) int { return c.Requests })
	row("allowed", func(c *Counts) int { return c.Allowed })
	row("  degraded to the smaller model", func(c *Counts) int { return c.Degraded })
	row("  partial: fewer output tokens", func(c *Counts) int { return c.Partial })
	row("    answer cut there", func(c *Counts) int { return c.Cut })
	row("  longer than the hold", func(c *Counts) int { return c.Overrun })
	row("  cancelled and released", func(c *Counts) int { return c.Cancelled })
	row("denied", func(c *Counts) int { return c.Denials() })
	for _, reason := range slices.Sorted(maps.Keys(r.Total.Denied)) {
		row("  "+reason, func(c *Counts) int { return c.Denied[reason] })
	}
	row("  of these TRANSIENT", func(c *Counts) int { return c.Transient })
	if r.Total.Kept > 0 {
		row("settlements sent again", func(c *Counts) int { return c.Kept })
	}
	if r.Total.Errors > 0 {
		row("errors", func(c *Counts) int { return c.Errors })
	}
	t.Render()
}

func (r *Report) printCredits(w io.Writer) {
	t := newTable(w, "Credits by plan and model", 3, 5)
	t.AppendHeader(table.Row{"plan", "model", "commits", "credits", "beyond the hold"})
	var commits int
	var charged, overage int64
	for _, c := range r.Credits {
		t.AppendRow(table.Row{c.Plan, c.Model, c.Commits, amount.FormatCredits(c.Charged), amount.FormatCredits(c.Overage)})
		commits, charged, overage = commits+c.Commits, charged+c.Charged, overage+c.Overage
	}
	t.AppendFooter(table.Row{"all", "", commits, amount.FormatCredits(charged), amount.FormatCredits(overage)})
	t.Render()
}

func (r *Report) printLatencies(w io.Writer) {
	t := newTable(w, fmt.Sprintf("%d requests in %s: %d a second", r.Total.Requests, r.Took.Round(time.Millisecond), r.PerSecond), 2, 5)
	t.AppendHeader(table.Row{"call", "count", "p50", "p99", "max"})
	for _, l := range []struct {
		name string
		Latency
	}{{"reserve", r.Reserve}, {"commit, durable", r.Commit}} {
		t.AppendRow(table.Row{l.name, l.Count, round(l.P50), round(l.P99), round(l.Max)})
	}
	t.Render()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
