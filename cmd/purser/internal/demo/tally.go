package demo

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/purser-io/purser/clients/go"
)

// maxErrors bounds the messages kept; all errors are counted.
const maxErrors = 5

// Tally counts what became of the requests. It is safe for concurrent use.
type Tally struct {
	mu       sync.Mutex
	plans    map[string]*Counts
	errors   []string
	reserve  *hdrhistogram.Histogram
	commit   *hdrhistogram.Histogram
	inFlight int
}

// Counts is what became of the requests of one plan.
type Counts struct {
	Requests  int            `json:"requests"`
	Allowed   int            `json:"allowed"`
	Degraded  int            `json:"degraded"`  // of allowed: not the model asked for first
	Partial   int            `json:"partial"`   // of allowed: less output than asked for
	Cut       int            `json:"cut"`       // of partial: the answer ended at what was granted
	Overrun   int            `json:"overrun"`   // of allowed: the answer was longer than the hold
	Cancelled int            `json:"cancelled"` // of allowed: released without usage
	Late      int            `json:"late"`
	Kept      int            `json:"kept"`      // of allowed: outcome of the settlement unknown at first
	Transient int            `json:"transient"` // of denied: waiting might have helped
	Denied    map[string]int `json:"denied"`    // by reason
	Errors    int            `json:"errors"`
}

// NewTally is a tally of nothing.
func NewTally() *Tally {
	const longest = int64(10 * time.Minute)
	return &Tally{plans: map[string]*Counts{},
		reserve: hdrhistogram.New(int64(time.Microsecond), longest, 3),
		commit:  hdrhistogram.New(int64(time.Microsecond), longest, 3)}
}

func (t *Tally) plan(name string) *Counts {
	c := t.plans[name]
	if c == nil {
		c = &Counts{Denied: map[string]int{}}
		t.plans[name] = c
	}
	return c
}

func (t *Tally) count(plan string, fn func(*Counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(t.plan(plan))
}

func (t *Tally) failed(plan string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plan(plan).Errors++
	if len(t.errors) < maxErrors {
		t.errors = append(t.errors, err.Error())
	}
}

func (t *Tally) denied(plan string, d *purser.Denied) {
	t.count(plan, func(c *Counts) {
		c.Denied[reasonName(d)]++
		if d.Transient() {
			c.Transient++
		}
	})
}

// took records a latency. Out of range, it counts as the longest.
func (t *Tally) took(h *hdrhistogram.Histogram, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = h.RecordValue(min(int64(d), h.HighestTrackableValue()))
}

// Total is the counts of all plans together.
func (t *Tally) Total() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := Counts{Denied: map[string]int{}}
	for _, c := range t.plans {
		sum.add(c)
	}
	return sum
}

func (c *Counts) add(o *Counts) {
	c.Requests += o.Requests
	c.Allowed += o.Allowed
	c.Degraded += o.Degraded
	c.Partial += o.Partial
	c.Cut += o.Cut
	c.Overrun += o.Overrun
	c.Cancelled += o.Cancelled
	c.Late += o.Late
	c.Kept += o.Kept
	c.Transient += o.Transient
	c.Errors += o.Errors
	for reason, n := range o.Denied {
		c.Denied[reason] += n
	}
}

// Denials is how many were denied, for whatever reason.
func (c *Counts) Denials() (n int) {
	for _, d := range c.Denied {
		n += d
	}
	return n
}
