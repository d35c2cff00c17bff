package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

func TestRatioIsTheMedianOfRounds(t *testing.T) {
	r := report.NewRatio("a / b", "", []float64{10, 30, 100}, []float64{10, 10, 20}, 4, false)
	if r.Median != 3 || r.Least != 1 || r.Most != 5 || r.Met == nil || *r.Met {
		t.Errorf("ratio %+v", r)
	}
	if r = report.NewRatio("", "", []float64{3}, []float64{2}, 1.5, true); !*r.Met {
		t.Error("a floor that may not be passed was missed at its value")
	}
	if r = report.NewRatio("", "", []float64{1, 2}, []float64{1, 0}, 0, false); r.Met != nil || r.Median != .5 {
		t.Errorf("without a floor, and with a round that did nothing: %+v", r)
	}
	if m := report.Median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median %v", m)
	}
}

func sample() *report.Report {
	return &report.Report{Settings: report.Settings{Store: "sqlite <here>", Rounds: 3},
		Throughput: []report.Throughput{{Name: "echo", What: "no-op", PerSecond: []float64{12_345, 13_000, 11_000}}},
		Latency:    []report.Latency{{Name: "reserve", Rate: 500, P50: []float64{80}, P99: []float64{900}, P999: []float64{2000}, Busy: []float64{1.25}}},
		Ratios: []report.Ratio{
			report.Figure("reserve / echo & co", "what it means", []float64{.7, .9, .8}, .8, false),
			report.Figure("p99", "the less the better", []float64{30}, 2, true),
			report.Figure("nothing", "", nil, 0, false)}}
}

// wantPicture fails unless what draw writes is well-formed and says all this.
func wantPicture(t *testing.T, draw func(io.Writer) error, all ...string) {
	t.Helper()
	var b strings.Builder
	if err := draw(&b); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
	}
	for _, want := range all {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the picture lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Error("the picture has places that are no numbers")
	}
}

func TestSVGIsWellFormedAndSaysEverything(t *testing.T) {
	wantPicture(t, sample().SVG, "sqlite &lt;here&gt;", "reserve / echo &amp; co", "0.80 (at least 0.80)", "30.0 (at most 2.00)")
}

func TestCurves(t *testing.T) {
	c := report.Curve{Name: "growth <here>", Along: "things", Measures: []report.Measure{{Name: "a thing", Unit: "ns"}, {Name: "rest"}}}
	add := c.Add(1)
	add(100, 0)
	add(300, 0)
	c.Add(1000)(400, 0)
	curves := &report.Curves{Rounds: 2, RoundMillis: 50, Curves: []report.Curve{c, {Name: "nothing"}}}
	// The highest point is 20 below the panel's top, which has 150 for 400: the median 200 is at half of it.
	wantPicture(t, curves.SVG, "growth &lt;here&gt;", "along: things", "a thing, ns", `cy="239.0" r="3.5" fill="#0969da"/><text x="87.0" y="230.0" text-anchor="middle" fill="#1f2328">200<`,
		`cy="164.0"`, ">1 000</text>", "rounds of 50ms")
	var b strings.Builder
	if err := curves.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| things | a thing, ns | rest |", "| 1 | 200 (100 to 300) | 0.00 (0.00 to 0.00) |", "| 1 000 | 400 | 0.00 |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, b.String())
		}
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := sample().Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| echo | no-op | 12 345 (11 000 to 13 000) |", "| p99 | 30.0 (30.0 to 30.0) | at most 2.00 | not met |", "- reserve / echo & co: what it means"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, b.String())
		}
	}
}

func TestWeight(t *testing.T) {
	before, after := report.Memories{RSS: 10 << 20, Heap: 5 << 20}, report.Memories{RSS: 310 << 20, Heap: 105 << 20}
	w := report.NewWeight("things", 100, before, after, 300, 100)
	if w.Each != 1<<20 || w.Met == nil || !*w.Met {
		t.Errorf("%+v", w)
	}
	if w = report.NewWeight("things", 100, before, after, 299, 100); w.Met == nil || *w.Met {
		t.Errorf("over the floor: %+v", w)
	}
	if w = report.NewWeight("things", 99, before, after, 300, 100); w.Met != nil {
		t.Errorf("a verdict about a hundred from 99: %+v", w)
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	sample().Print(&b)
	for _, want := range []string{"12 345 (11 000 to 13 000)", "not met", "at most 2.00", "0.80 (0.70 to 0.90)", "what it means", "900"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, b.String())
		}
	}
}
