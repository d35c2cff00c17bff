package demo

import (
	"sync"

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Ledger is the client's own record of every settlement it saw acknowledged, kept apart from
// all that the authority keeps.
type Ledger struct {
	mu      sync.Mutex
	entries map[string]Entry // by reservation id
	refused []error          // kept settlements that were refused in the end
}

// Entry is one acknowledged settlement.
type Entry struct {
	Request string // number of the row, as sent in the label `request`
	Account string
	Plan    string
	Feature string
	State   purserv1.ReservationState
	Charged int64 // micros
	Overage int64 // micros
	Late    bool
}

func (e *Entry) committed() bool {
	return e.State == purserv1.ReservationState_RESERVATION_STATE_COMMITTED
}

// NewLedger is an empty record.
func NewLedger() *Ledger { return &Ledger{entries: map[string]Entry{}} }

// open notes a reservation before it is settled: a settlement that is acknowledged later, in
// the background, finds its account there.
func (l *Ledger) open(id string, e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id] = e
}

func (l *Ledger) settled(id string, r purser.Receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	e.State, e.Charged, e.Overage, e.Late = r.State, r.Charged, r.Overage, r.Late
	l.entries[id] = e
}

// Settled takes in what became of a settlement whose outcome was unknown at first; it is for
// [purser.Config.OnSettled].
func (l *Ledger) Settled(s purser.Settled) {
	if s.Err == nil {
		l.settled(s.ReservationID, s.Receipt)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, s.Err)
}

// Charged is the sum of all charges in micros, and how many there are.
func (l *Ledger) Charged() (micros int64, count int) {
	l.each(func(_ string, e Entry) {
		if e.committed() {
			micros, count = micros+e.Charged, count+1
		}
	})
	return micros, count
}

func (l *Ledger) each(fn func(id string, e Entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.entries {
		fn(id, e)
	}
}

// unsettled counts reservations without an acknowledged settlement.
func (l *Ledger) unsettled() (n int) {
	l.each(func(_ string, e Entry) {
		if e.State == purserv1.ReservationState_RESERVATION_STATE_UNSPECIFIED {
			n++
		}
	})
	return n
}
