package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Print writes the report as tables.
func (r *Report) Print(w io.Writer) { r.write(w, table.Writer.Render) }

// Markdown writes the same in Markdown.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	r.write(&b, table.Writer.RenderMarkdown)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) write(w io.Writer, render func(table.Writer) string) {
	m, s := &r.Machine, &r.Settings
	fmt.Fprintf(w, "%d CPUs (%s), %s, %s; store %s.\n", m.CPUs, m.CPU, m.System, m.Go, s.Store)
	fmt.Fprintf(w, "%d in flight over %d connections, %d rounds of %v, %d accounts, %d pots each; a reserve sends %d bytes and gets %d.\n",
		s.Concurrency, s.Connections, s.Rounds, time.Duration(s.RoundMillis)*time.Millisecond, s.Accounts, s.Pots, s.Request, s.Reply)
	for _, t := range []table.Writer{r.throughputs(w), r.latencies(w), r.ratios(w)} {
		if t.Length() > 0 {
			fmt.Fprintln(w)
			render(t)
		}
	}
	fmt.Fprintln(w)
	for _, x := range r.Ratios {
		fmt.Fprintf(w, "- %s: %s\n", x.Name, x.Meaning)
	}
}

func newTable(w io.Writer, title string, columns int, words ...int) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetTitle(title)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	var configs []table.ColumnConfig
	for n := 1; n <= columns; n++ {
		if !slices.Contains(words, n) {
			configs = append(configs, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.SetColumnConfigs(configs)
	return t
}

func (r *Report) throughputs(w io.Writer) table.Writer {
	t := newTable(w, "As fast as it goes: medians (spread)", 6, 1, 2)
	t.AppendHeader(table.Row{"scenario", "", "per second", "server CPU each", "CPUs server, client", "transactions per 1 000"})
	for _, x := range r.Throughput {
		transactions := ""
		if len(x.Transactions) > 0 {
			transactions = short(Median(x.Transactions))
		}
		t.AppendRow(table.Row{x.Name, x.What, spread(x.PerSecond), short(Median(x.ServerMicros)) + " us",
			fmt.Sprintf("%.2f, %.2f", Median(x.ServerShare), Median(x.ClientShare)), transactions})
	}
	return t
}

func (r *Report) latencies(w io.Writer) table.Writer {
	t := newTable(w, "How long it takes, in microseconds", 7, 1, 2)
	t.AppendHeader(table.Row{"scenario", "", "at", "p50", "p99", "p99.9", "CPUs busy"})
	for _, x := range r.Latency {
		at := fmt.Sprintf("%.0f/s", x.Rate)
		if x.Rate == 0 {
			at = fmt.Sprintf("%d in flight", x.InFlight)
		}
		busy := ""
		if len(x.Busy) > 0 {
			busy = short(Median(x.Busy))
		}
		t.AppendRow(table.Row{x.Name, x.What, at, spread(x.P50), spread(x.P99), spread(x.P999), busy})
	}
	return t
}

func (r *Report) ratios(w io.Writer) table.Writer {
	t := newTable(w, "Ratios of figures of the same round: median (spread)", 3, 1, 4)
	t.AppendHeader(table.Row{"", "ratio", "floor", ""})
	for _, x := range r.Ratios {
		t.AppendRow(table.Row{x.Name, fmt.Sprintf("%s (%s to %s)", short(x.Median), short(x.Least), short(x.Most)), x.floor(), x.verdict()})
	}
	return t
}

func (x *Ratio) floor() string {
	switch {
	case x.Floor == 0:
		return ""
	case x.Upper:
		return "at most " + short(x.Floor)
	}
	return "at least " + short(x.Floor)
}

func (x *Ratio) verdict() string {
	switch {
	case x.Met == nil:
		return ""
	case *x.Met:
		return "met"
	}
	return "not met"
}

// spread is a median with the least and the most.
func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	if len(v) == 1 {
		return short(v[0])
	}
	return fmt.Sprintf("%s (%s to %s)", short(Median(v)), short(slices.Min(v)), short(slices.Max(v)))
}

// short is a figure with three or so significant digits, thousands grouped.
func short(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	groups = append(groups, digits)
	slices.Reverse(groups)
	return strings.Join(groups, " ")
}
