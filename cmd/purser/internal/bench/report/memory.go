package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Memory is what a node keeps in memory.
type Memory struct {
	Machine      Machine  `json:"machine"`
	Store        string   `json:"store"`
	Pots         int      `json:"pots"`
	Keys         bool     `json:"idempotency_keys"`
	Empty        Memories `json:"empty"` // the node before anything was asked of it
	Accounts     Weight   `json:"accounts"`
	Reservations Weight   `json:"reservations"`
}

// Memories are two ways to see the memory of a process.
type Memories struct {
	RSS  int64 `json:"rss_bytes"`  // as it runs, garbage and what the runtime keeps ready included
	Heap int64 `json:"heap_bytes"` // objects left by a garbage collection
}

// Weight is what a number of things takes.
type Weight struct {
	What  string   `json:"what"`
	Count int      `json:"count"`
	Added Memories `json:"added"` // by them
	Total Memories `json:"total"`
	Each  int64    `json:"heap_bytes_each"`
	// Floor in MiB for Of things: what they may add to the process as it runs. Met says whether
	// they add no more; left out if there were fewer than Of.
	Floor int64 `json:"floor_mib"`
	Of    int   `json:"floor_of"`
	Met   *bool `json:"met,omitempty"`
}

const mib = 1 << 20

// NewWeight takes the difference between before and after.
func NewWeight(what string, count int, before, after Memories, floor int64, of int) Weight {
	w := Weight{What: what, Count: count, Total: after, Floor: floor, Of: of,
		Added: Memories{RSS: after.RSS - before.RSS, Heap: after.Heap - before.Heap}}
	w.Each = w.Added.Heap / int64(max(count, 1))
	if count >= of && after.RSS > 0 {
		met := w.Added.RSS <= floor*mib
		w.Met = &met
	}
	return w
}

// Print writes a table.
func (m *Memory) Print(w io.Writer) { m.write(w, table.Writer.Render) }

// Markdown writes the same in Markdown.
func (m *Memory) Markdown(w io.Writer) error {
	var b strings.Builder
	m.write(&b, table.Writer.RenderMarkdown)
	_, err := io.WriteString(w, b.String())
	return err
}

func (m *Memory) write(w io.Writer, render func(table.Writer) string) {
	fmt.Fprintf(w, "%s, %s; store %s; %d pots each, idempotency keys: %t.\n\n", m.Machine.System, m.Machine.Go, m.Store, m.Pots, m.Keys)
	t := newTable(w, "Memory of the server process", 6, 1)
	t.AppendHeader(table.Row{"", "heap each", "heap added, MiB", "RSS added, MiB", "RSS in all, MiB", "floor"})
	t.AppendRow(table.Row{"empty node", "", "", "", m.Empty.RSS / mib, ""})
	for _, x := range []*Weight{&m.Accounts, &m.Reservations} {
		r := Ratio{Met: x.Met}
		t.AppendRow(table.Row{fmt.Sprintf("%s %s", short(float64(x.Count)), x.What), fmt.Sprintf("%d bytes", x.Each), x.Added.Heap / mib,
			x.Added.RSS / mib, x.Total.RSS / mib, strings.TrimSuffix(fmt.Sprintf("%d MiB for %s: %s", x.Floor, short(float64(x.Of)), r.verdict()), ": ")})
	}
	render(t)
}
