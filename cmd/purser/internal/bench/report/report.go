// Package report is what a benchmark found: figures, the ratios between them, and the floors
// that the ratios are held against. It prints them as tables and draws them.
package report

import (
	"runtime"
	"slices"
)

// Report is a whole run. It is what --output json prints.
type Report struct {
	Machine    Machine      `json:"machine"`
	Settings   Settings     `json:"settings"`
	Throughput []Throughput `json:"throughput"`
	Latency    []Latency    `json:"latency,omitempty"`
	Ratios     []Ratio      `json:"ratios"`
}

// Machine is what it ran on.
type Machine struct {
	System string `json:"system"`
	CPU    string `json:"cpu,omitempty"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

// Settings are how it was run.
type Settings struct {
	Store       string   `json:"store"` // sqlite, postgresql or cockroachdb, with the version
	Families    []string `json:"scenarios"`
	Concurrency int      `json:"concurrency"`
	Connections int      `json:"connections"`
	Rounds      int      `json:"rounds"`
	RoundMillis int64    `json:"round_ms"`
	Accounts    int      `json:"accounts"`
	Pots        int      `json:"pots"`           // that each reservation holds on
	Request     int      `json:"request_bytes"`  // of a reserve
	Reply       int      `json:"response_bytes"` // to it
}

// Throughput is one scenario of a closed loop. All its slices have an entry for each round.
type Throughput struct {
	Name      string    `json:"name"`
	What      string    `json:"what"`
	Unit      string    `json:"unit"`
	PerSecond []float64 `json:"per_second"`
	// ServerShare and ClientShare are processor time used, in processors: 1 is one of them.
	ServerShare []float64 `json:"server_cpus"`
	ClientShare []float64 `json:"client_cpus"`
	// ServerMicros is processor time of the server for one operation.
	ServerMicros []float64 `json:"server_cpu_us"`
	// Transactions is how many transactions the Purser node made on its store for 1 000
	// operations, all of them: draws, flushes, projections, polls, lease renewals. Counted where
	// the node calls its store. Empty for servers other than Purser.
	Transactions []float64 `json:"transactions_per_1000,omitempty"`
}

// Latency is one scenario at a rate, timed from when each call was due.
type Latency struct {
	Name       string    `json:"name"`
	What       string    `json:"what"`
	Rate       float64   `json:"rate"` // calls per second that were asked for; 0 = a closed loop
	P50        []float64 `json:"p50_us"`
	P99        []float64 `json:"p99_us"`
	P999       []float64 `json:"p999_us"`
	InFlight   int       `json:"in_flight,omitempty"`
	CallsTotal int64     `json:"calls"`
	Busy       []float64 `json:"cpus_busy,omitempty"` // CPUs that server and client used together
}

// Ratio compares two figures of each round.
type Ratio struct {
	Name    string  `json:"name"`
	Meaning string  `json:"meaning"`
	Median  float64 `json:"median"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
	// Floor is what the design asks for at least, or at most if Upper. 0 = it asks nothing.
	Floor float64 `json:"floor,omitempty"`
	Upper bool    `json:"upper,omitempty"`
	Met   *bool   `json:"met,omitempty"` // if there is a floor
}

// NewRatio divides round by round and takes the median.
func NewRatio(name, meaning string, of, to []float64, floor float64, upper bool) Ratio {
	each := make([]float64, min(len(of), len(to)))
	for i := range each {
		if to[i] > 0 {
			each[i] = of[i] / to[i]
		}
	}
	return Figure(name, meaning, each, floor, upper)
}

// Figure is a ratio of which the quotients are known.
func Figure(name, meaning string, each []float64, floor float64, upper bool) Ratio {
	r := Ratio{Name: name, Meaning: meaning, Median: Median(each), Floor: floor, Upper: upper}
	if len(each) > 0 {
		r.Least, r.Most = slices.Min(each), slices.Max(each)
	}
	if floor > 0 {
		met := r.Median >= floor
		if upper {
			met = r.Median <= floor
		}
		r.Met = &met
	}
	return r
}

// Median is the middle one; of an even number, the mean of the two in the middle.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// ThisMachine describes where the program runs.
func ThisMachine() Machine {
	return Machine{System: runtime.GOOS + "/" + runtime.GOARCH, CPU: processor(), CPUs: runtime.NumCPU(), Go: runtime.Version()}
}
