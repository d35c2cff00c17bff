package purser

import (
	"sync/atomic"
	"time"
)

// pulse is whether a node answers. A process that is stopped, or a machine that went without a
// word, leaves its connections as they are, and calls to it take all the time they have. So that
// not every call finds that out for itself, a node from which nothing came while a reservation
// waited in vain is left alone for a while; then one call tries it again (a circuit breaker,
// half open).
type pulse struct {
	answers atomic.Uint64 // of any kind
	state   atomic.Int32
}

// States of a pulse.
const (
	awake  int32 = iota
	asleep       // left alone
	due          // one call may try
)

// silentFor is for how many times [Config.AttemptTimeout] a silent node is left alone.
const silentFor = 2

// answered notes that the node said something.
func (p *pulse) answered() {
	p.answers.Add(1)
	if p.state.Load() != awake {
		p.state.Store(awake)
	}
}

// missed notes that a call waited for all of AttemptTimeout; seen is how many answers there were
// when it began. If nobody was answered meanwhile, the node is silent.
func (p *pulse) missed(seen uint64, rest time.Duration) {
	if p.answers.Load() == seen && p.state.CompareAndSwap(awake, asleep) {
		p.wakeAfter(rest)
	}
}

func (p *pulse) wakeAfter(rest time.Duration) {
	time.AfterFunc(rest, func() { p.state.CompareAndSwap(asleep, due) })
}

// silent reports whether to leave the node alone. Who is told no when it is due tries for all.
func (p *pulse) silent(rest time.Duration) bool {
	if p.state.Load() == awake {
		return false
	}
	if !p.state.CompareAndSwap(due, asleep) {
		return true
	}
	p.wakeAfter(rest) // to the next one, if this one is not answered
	return false
}

// rest is for how long a silent node is left alone.
func (c *Client) rest() time.Duration { return silentFor * c.cfg.AttemptTimeout }

// awake puts silent nodes behind the others. What can only be done at one node is tried there.
func (c *Client) awake(order []int) []int {
	silent := 0
	for silent < len(order) && c.nodes[order[silent]].pulse.silent(c.rest()) {
		silent++
	}
	if silent == 0 || silent == len(order) {
		return order
	}
	return append(append(make([]int, 0, len(order)), order[silent:]...), order[:silent]...)
}
