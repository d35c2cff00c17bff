package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// The picture: one bar for each ratio on a logarithmic axis, its spread as a thin line, its
// floor as a mark. Measures in pixels.
const (
	svgWidth  = 860
	svgLabel  = 330 // where the bars begin
	svgPlot   = 390
	svgRow    = 30
	svgTop    = 64
	svgBottom = 34
)

// SVG draws the ratios. A chart library would bring fonts and rasterizers for the sake of a
// few rectangles.
func (r *Report) SVG(w io.Writer) error {
	var b strings.Builder
	low, high := r.axis()
	x := func(v float64) float64 {
		v = min(max(v, low), high)
		return svgLabel + svgPlot*(math.Log10(v)-math.Log10(low))/(math.Log10(high)-math.Log10(low))
	}
	height := svgTop + svgRow*len(r.Ratios) + svgBottom
	svgBegin(&b, svgWidth, height, "purser bench, "+r.Settings.Store, r.caption())
	for tick := low; tick <= high*1.0001; tick *= 10 {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#d1d9e0"/><text x="%.1f" y="%d" text-anchor="middle" fill="#59636e">%g</text>`+"\n",
			x(tick), x(tick), svgTop, height-svgBottom, x(tick), height-svgBottom+18, tick)
	}
	for i := range r.Ratios {
		r.Ratios[i].draw(&b, svgTop+svgRow*i, x, x(low))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// svgBegin opens a picture and writes its head.
func svgBegin(b *strings.Builder, width, height int, title, caption string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="13" role="img">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
<text x="16" y="26" font-size="16" font-weight="600" fill="#1f2328">%s</text>
<text x="16" y="46" fill="#59636e">%s</text>
`, width, height, width, height, escape(title), escape(title), escape(caption))
}

// axis is a range of whole decades with everything in it.
func (r *Report) axis() (low, high float64) {
	low, high = 1, 1
	for _, x := range r.Ratios {
		for _, v := range []float64{x.Median, x.Least, x.Most, x.Floor} {
			if v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	return math.Pow(10, math.Floor(math.Log10(low)-1e-9)), math.Pow(10, math.Ceil(math.Log10(high)+1e-9))
}

func (r *Report) caption() string {
	s := &r.Settings
	return fmt.Sprintf("%d CPUs for load generator, server and database; %d in flight; medians of %d rounds, thin line: their spread; mark: floor",
		r.Machine.CPUs, s.Concurrency, s.Rounds)
}

func (x *Ratio) draw(b *strings.Builder, top int, at func(float64) float64, zero float64) {
	colour := "#54aeff"
	if x.Met != nil {
		colour = map[bool]string{true: "#2da44e", false: "#cf222e"}[*x.Met]
	}
	middle := top + svgRow/2
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>`, svgLabel-10, middle+4, escape(x.Name))
	fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="14" rx="2" fill="%s"/>`, zero, middle-7, max(at(x.Median)-zero, 1), colour)
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#1f2328"/>`, at(x.Least), at(x.Most), middle, middle)
	end := max(at(x.Median), at(x.Most))
	if x.Floor > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#1f2328" stroke-width="2"/>`, at(x.Floor), at(x.Floor), middle-10, middle+10)
		end = max(end, at(x.Floor))
	}
	label := short(x.Median)
	if x.Floor > 0 {
		label += " (" + x.floor() + ")"
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d" fill="#1f2328">%s</text>`+"\n", end+8, middle+4, escape(label))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
