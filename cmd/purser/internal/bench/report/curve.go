package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Curves say how something grows. It is what `purser bench curves --output json` prints.
type Curves struct {
	Machine     Machine `json:"machine"`
	Store       string  `json:"store,omitempty"` // of the curve that needs one
	Rounds      int     `json:"rounds"`
	RoundMillis int64   `json:"round_ms"`
	Curves      []Curve `json:"curves"`
}

// Curve is one or several measures along a number of things.
type Curve struct {
	Name     string    `json:"name"`
	Along    string    `json:"along"` // what there are more and more of
	At       []int     `json:"at"`
	Measures []Measure `json:"measures"`
}

// Measure is what was measured at each point of a curve, in each round.
type Measure struct {
	Name string      `json:"name"`
	Unit string      `json:"unit,omitempty"`
	At   [][]float64 `json:"at"`
}

// Add begins the next point; what it returns takes in a round, one figure for each measure.
func (c *Curve) Add(at int) func(figures ...float64) {
	c.At = append(c.At, at)
	for i := range c.Measures {
		c.Measures[i].At = append(c.Measures[i].At, nil)
	}
	point := len(c.At) - 1
	return func(figures ...float64) {
		for i, v := range figures {
			to := &c.Measures[i].At[point]
			*to = append(*to, v)
		}
	}
}

// Print writes tables.
func (c *Curves) Print(w io.Writer) { c.write(w, table.Writer.Render) }

// Markdown writes the same in Markdown.
func (c *Curves) Markdown(w io.Writer) error {
	var b strings.Builder
	c.write(&b, table.Writer.RenderMarkdown)
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Curves) caption() string {
	text := fmt.Sprintf("%d CPUs (%s), %s, %s; medians of %d rounds of %v", c.Machine.CPUs, c.Machine.CPU, c.Machine.System, c.Machine.Go,
		c.Rounds, time.Duration(c.RoundMillis)*time.Millisecond)
	if c.Store != "" {
		text += "; database " + c.Store
	}
	return text
}

func (c *Curves) write(w io.Writer, render func(table.Writer) string) {
	fmt.Fprintln(w, c.caption()+".")
	for i := range c.Curves {
		fmt.Fprintln(w)
		render(c.Curves[i].table(w))
	}
}

func (c *Curve) table(w io.Writer) table.Writer {
	t := newTable(w, c.Name+": medians (spread)", 1+len(c.Measures))
	head := table.Row{c.Along}
	for _, m := range c.Measures {
		head = append(head, m.label())
	}
	t.AppendHeader(head)
	for i, at := range c.At {
		row := table.Row{count(at)}
		for _, m := range c.Measures {
			row = append(row, spread(m.At[i]))
		}
		t.AppendRow(row)
	}
	return t
}

func (m *Measure) label() string { return strings.TrimSuffix(m.Name+", "+m.Unit, ", ") }

// count is a number with its thousands grouped.
func count(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return short(float64(n))
}

// A curve's picture: a panel for each measure, side by side. Measures in pixels.
const (
	panelWidth  = 300
	panelHeight = 170
	panelTop    = 34 // title of the measure
	panelLeft   = 16
	panelFoot   = 24 // numbers along
	curveTitle  = 46
	curveRow    = curveTitle + panelTop + panelHeight + panelFoot
)

// SVG draws the curves: points at equal distances, heights from nothing to one at least, so that
// what does not grow looks level.
func (c *Curves) SVG(w io.Writer) error {
	var b strings.Builder
	widest := 1
	for i := range c.Curves {
		widest = max(widest, len(c.Curves[i].Measures))
	}
	width, height := max(2*panelLeft+widest*panelWidth, svgWidth), svgTop+len(c.Curves)*curveRow+panelLeft
	svgBegin(&b, width, height, "purser bench curves", c.caption())
	for i := range c.Curves {
		c.Curves[i].draw(&b, svgTop+i*curveRow)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Curve) draw(b *strings.Builder, top int) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="600" fill="#1f2328">%s</text><text x="%d" y="%d" fill="#59636e">along: %s</text>`+"\n",
		panelLeft, top+14, escape(c.Name), panelLeft, top+32, escape(c.Along))
	for i := range c.Measures {
		c.Measures[i].draw(b, c.At, panelLeft+i*panelWidth, top+curveTitle)
	}
}

func (m *Measure) draw(b *strings.Builder, at []int, left, top int) {
	highest := 1.0
	for _, v := range m.At {
		highest = max(highest, slices.Max(append(v, 0)))
	}
	bottom := top + panelTop + panelHeight
	x := func(i int) float64 { return float64(left) + (float64(i)+.5)*(panelWidth-panelLeft)/float64(len(at)) }
	y := func(v float64) float64 { return float64(bottom) - v/highest*(panelHeight-20) }
	fmt.Fprintf(b, `<text x="%d" y="%d" fill="#1f2328">%s</text><line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#d1d9e0"/>`+"\n",
		left, top+18, escape(m.label()), left, left+panelWidth-panelLeft, bottom, bottom)
	var line strings.Builder
	for i, v := range m.At {
		middle := Median(v)
		fmt.Fprintf(&line, "%.1f,%.1f ", x(i), y(middle))
		if len(v) > 0 {
			fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#8c959f"/>`, x(i), x(i), y(slices.Min(v)), y(slices.Max(v)))
		}
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#0969da"/><text x="%.1f" y="%.1f" text-anchor="middle" fill="#1f2328">%s</text>`,
			x(i), y(middle), x(i), y(middle)-9, escape(short(middle)))
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#59636e">%s</text>`+"\n", x(i), bottom+16, escape(count(at[i])))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="#54aeff" stroke-width="1.5"/>`+"\n", strings.TrimSpace(line.String()))
}
