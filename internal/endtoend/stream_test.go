package endtoend

import (
	"errors"
	"testing"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// streams is how many generations run at a time through each client.
const streams = 24

// TestStreamsOutliveTheirNodes has generations run through the Go client, by single calls and
// over sessions, while one node is killed and comes back, the other drains, and at last none is
// there for a while. Handles are extended as usage is reported, and go on elsewhere by
// themselves (R35); what each generation used is charged, once, whatever it was told meanwhile
// (I5, I10).
func TestStreamsOutliveTheirNodes(t *testing.T) {
	t.Parallel()
	store := testdb.PostgreSQL(t)
	a := newNode(t, store, "--lease=5s").serve()
	key := a.apply()
	b := awayFrom(t, store, key, a).serve()
	crowds := []*crowd{newCrowd(t, "singly", key, false, a.address, b.address), newCrowd(t, "session", key, true, a.address, b.address)}
	for _, c := range crowds {
		c.start(streams)
	}
	// whileBoth lets something happen, and waits until a count of each crowd has grown by n since.
	whileBoth := func(happens func(), what string, count func(*crowd) int, n int) {
		t.Helper()
		before := []int{count(crowds[0]), count(crowds[1])}
		happens()
		for i, c := range crowds {
			c.await(what, count, before[i]+n)
		}
	}
	comesBack := func() { a.serve() }
	whileBoth(func() {}, "generations that ended", (*crowd).ended, streams)
	whileBoth(a.kill, "reservations made elsewhere", (*crowd).moved, 1)
	whileBoth(comesBack, "generations that ended", (*crowd).ended, streams)
	whileBoth(b.terminate, "reservations made elsewhere", (*crowd).moved, 1)
	whileBoth(a.kill, "settlements with nobody to settle with", (*crowd).kept, 1)
	whileBoth(comesBack, "generations that ended", (*crowd).ended, streams/2)
	for _, c := range crowds {
		c.finish()
	}
	awaitBuried(t, store, 1)
	a.terminate()
	audited(t, store, true)
	books, cost := readBooks(t, store), map[string]int64{}
	for _, c := range crowds {
		c.check(books, cost)
	}
	for payer, want := range cost {
		if got := books.paid[payer]; got != want {
			t.Errorf("I1: generations cost %s %d micros, and it paid %d", payer, want, got)
		}
	}
}

// awayFrom prepares a second node at an address that makes it home to one of two accounts: then
// whichever node goes leaves streams behind.
func awayFrom(t *testing.T, store, key string, first *node) *node {
	t.Helper()
	for range 100 {
		n := newNode(t, store, "--lease=5s")
		c := dial(t, key, func(c *purser.Config) { c.NoWait = true }, first.address, n.address)
		apart := c.Conn("acme") != c.Conn("globex")
		closeClient(t, c)
		if apart {
			return n
		}
	}
	t.Fatal("both accounts have the same home among any two addresses")
	return nil
}

// books are what a store says of generations: the sum of the usage events of each, which
// generation a reservation was for, and what the payers' wallets are short of in the end.
type books struct {
	generations map[string]booked
	owners      map[string]string
	paid        map[string]int64 // micros
}

type booked struct{ output, requests, charged, events int64 }

func readBooks(t *testing.T, store string) (b books) {
	t.Helper()
	r := openReader(t, store)
	defer r.Close()
	err := r.Audit(t.Context(), func(a quota.AuditReader) error {
		b = books{map[string]booked{}, map[string]string{}, map[string]int64{}}
		return errors.Join(a.UsageEvents(b.event), a.Pots(b.pot), a.Debts(func(payer string, debt int64) error {
			b.paid[payer] += debt
			return nil
		}))
	})
	if err != nil {
		t.Fatalf("read the books: %v", err)
	}
	return b
}

func (b *books) event(e quota.UsageEvent) error {
	id := e.Labels["stream"]
	g := b.generations[id]
	for _, q := range e.Usage {
		switch q.Meter {
		case "output_tokens":
			g.output += q.Quantity
		case "requests":
			g.requests += q.Quantity
		}
	}
	g.charged += e.Charged
	g.events++
	b.generations[id] = g
	b.owners[token.ReservationID(int64(e.Key.Lane), e.Key.Sequence, e.Nonce)] = id
	return nil
}

func (b *books) pot(p quota.Pot) error {
	if p.Kind == quota.PotWallet {
		b.paid[p.Payer] += p.Granted - p.Available
	}
	return nil
}
