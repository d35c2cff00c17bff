package authority_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/purser-io/purser/internal/faultproxy"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/storage/cockroach"
)

// Of a thousand statements of the data plane, so many go wrong in each way. Those that hang
// take a time limit each.
var onTheWire = faultproxy.Rates{faultproxy.Cut: 15, faultproxy.CutAfter: 20, faultproxy.Unknown: 20, faultproxy.UnknownAfter: 20,
	faultproxy.Restart: 30, faultproxy.Shutdown: 10, faultproxy.ShutdownAfter: 10, faultproxy.Zombie: 20, faultproxy.Delay: 20,
	faultproxy.Hang: 1, faultproxy.HangAfter: 1, faultproxy.Twice: 15, faultproxy.Truncate: 10,
	faultproxy.Duplicate: 10}

// TestWire runs two nodes on one database whose connections fail in every way there is, by a
// seed, under clients that ask until they are answered. What they were told was charged is what
// the account has less, and the books balance. Then the nodes drain, and nothing stays away (I15)
// or is missing (I10). TEST_WIRE says how many seeds to try, from 1.
func TestWire(t *testing.T) {
	seeds(t, "TEST_WIRE", 1, func(t *testing.T, url string, seed uint64) {
		w := onWire(t, url, seed, func(s quota.Store) quota.Store { return s })
		w.run()
		w.rest(url)
		for _, wrong := range w.wrong {
			t.Error(wrong)
		}
	})
}

// TestWireSees has a store that takes an unknown outcome for a success. The audit has to miss the
// batch, and the account's sum what was charged in it.
func TestWireSees(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		must(t, 0, cockroach.Migrate(t.Context(), url))
		w := onWire(t, url, 1, func(s quota.Store) quota.Store { return credulous{s} })
		wrong := w.run()
		for _, want := range []string{"found R20 ", "as acknowledged"} {
			if !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("settlements were acknowledged and never written; nothing says %q of it:\n%s", want, strings.Join(wrong, "\n"))
			}
		}
	})
}

type credulous struct{ quota.Store }

func (c credulous) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	r, err := c.Store.Append(ctx, lane, no, records)
	if errors.Is(err, quota.ReasonOutcomeUnknown) {
		return quota.AppendResult{Applied: true}, nil
	}
	return r, err
}

// wire is two nodes behind a proxy, and an account of their own.
type wire struct {
	t       *testing.T
	proxy   *faultproxy.Proxy
	nodes   [2]*node
	account string
	seed    uint64

	mu      sync.Mutex
	charged int64 // micros, as acknowledged
	told    []audit.Acknowledged
	wrong   []string
}

const wireCredits = int64(1e12)

func onWire(t *testing.T, url string, seed uint64, wrap func(quota.Store) quota.Store) *wire {
	w := &wire{t: t, proxy: faultproxy.New(t, url), account: fmt.Sprintf("wire-%d", seed), seed: seed}
	for i := range w.nodes {
		w.nodes[i] = join(t, w.proxy.URL(), shared(), wrap)
	}
	if seed == 1 {
		w.nodes[0].catalogue()
	}
	w.nodes[0].account(w.account, "", wireCredits)
	return w
}

// run is clients at work among the faults, and then a look at the books. It says what is wrong.
func (w *wire) run() []string {
	w.proxy.Randomise(w.seed, onTheWire)
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() { w.client(i) })
	}
	w.outage()
	clients.Wait()
	w.proxy.Heal()
	met := 0
	for kind := range onTheWire {
		met += w.proxy.Met(faultproxy.Kind(kind))
	}
	if met < 10 || w.proxy.Met(faultproxy.Duplicate) == 0 {
		w.fail("only %d statements met a fault, %d of them Duplicate", met, w.proxy.Met(faultproxy.Duplicate))
	}
	for _, n := range w.nodes {
		if err := n.Quiesce(w.t.Context()); err != nil {
			w.fail("quiesce: %v", err)
		}
	}
	for _, op := range []faultproxy.Op{faultproxy.Append, faultproxy.Settle, faultproxy.Draw, faultproxy.Return, faultproxy.Project,
		faultproxy.Renew, faultproxy.Poll, faultproxy.Close, faultproxy.Admin} {
		if w.proxy.Seen(op) == 0 {
			w.fail("no statement of %s was seen", op)
		}
	}
	for _, n := range w.nodes {
		report, err := audit.Run(w.t.Context(), n.store, audit.Options{})
		if err != nil {
			w.fail("no audit: %v", err)
			continue
		}
		for _, f := range report.Findings {
			w.fail("found %s", f)
		}
	}
	b, err := w.nodes[0].Balance(w.t.Context(), w.account)
	switch left := b.Total - b.Debt; {
	case err != nil:
		w.fail("no balance: %v", err)
	case left != wireCredits-w.charged:
		w.fail("%d of %d micros are left; charged, as acknowledged, were %d", left, wireCredits, w.charged)
	}
	w.t.Logf("seed %d: %d statements met a fault, %d micros charged", w.seed, met, w.charged)
	return w.wrong
}

// rest drains both nodes, has another one on a sound connection close what they left, and
// compares the books with everything that clients were told.
func (w *wire) rest(url string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for _, n := range w.nodes {
		if err := n.Drain(ctx); err != nil {
			w.fail("drain: %v", err)
		}
	}
	survivor := join(w.t, url, shared(), func(s quota.Store) quota.Store { return s })
	told := func(yield func(audit.Acknowledged, error) bool) {
		for _, a := range w.told {
			if !yield(a, nil) {
				return
			}
		}
	}
	for {
		report, err := audit.Run(ctx, survivor.store, audit.Options{Quiescent: true, Acknowledged: told})
		switch {
		case err == nil && len(report.Findings) == 0 && report.Acknowledged == int64(len(w.told)):
			return
		case sleep(ctx, 50*time.Millisecond):
			continue
		case err != nil:
			w.fail("no audit at rest: %v", err)
			return
		}
		w.fail("at rest: %d of %d acknowledgements compared, found %v", report.Acknowledged, len(w.told), report.Findings)
		return
	}
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// outage takes the database away from both nodes in the middle of the work, for less than a lease.
func (w *wire) outage() {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for before := w.proxy.Seen(faultproxy.Append); w.proxy.Seen(faultproxy.Append) < before+20; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			w.fail("no work was seen that an outage could meet")
			return
		}
	}
	w.proxy.SetDown(true)
	time.Sleep(shared().Lease / 4)
	w.proxy.SetDown(false)
}

func (w *wire) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf("seed %d: ", w.seed)+fmt.Sprintf(format, args...))
}

// client reserves and settles, at either node, and sends each request again until it has an
// answer.
func (w *wire) client(number int) {
	random := rand.New(rand.NewPCG(w.seed, uint64(number)))
	for i := range 15 {
		r := chat(w.account, 1000, 1000)
		r.Key = fmt.Sprintf("%d-%d-%d", w.seed, number, i)
		at, elsewhere := w.nodes[random.IntN(2)], w.nodes[random.IntN(2)]
		used, commit := usage(1000, random.Int64N(1500)), random.IntN(4) > 0
		var d quota.Decision
		if !w.insist("reserve", func(ctx context.Context) error {
			err := at.Reserve(ctx, gate(), r, &d)
			if err == nil && !d.Allowed {
				err = errors.New("denied: " + d.Denial.Reason.String()) // no draw came through
			}
			return err
		}) {
			return
		}
		if random.IntN(8) == 0 {
			continue // nobody settles it: it expires
		}
		var receipt quota.Receipt
		if !w.insist("settle", func(ctx context.Context) (err error) {
			if commit {
				receipt, err = elsewhere.Commit(ctx, gate(), &quota.Settle{Token: d.Token, Usage: used})
				return err
			}
			receipt, err = elsewhere.Release(ctx, gate(), &quota.Settle{Token: d.Token})
			if errors.Is(err, quota.ReasonReservationExpired) {
				receipt, err = quota.Receipt{}, nil // it took too long: released all the same
			}
			return err
		}) {
			return
		}
		w.mu.Lock()
		w.charged += receipt.Charged
		if receipt.State == quota.Committed || receipt.State == quota.Released {
			w.told = append(w.told, audit.Acknowledged{Lane: d.Lane, Sequence: d.Sequence, Nonce: d.Nonce, Kind: receipt.State, Charged: receipt.Charged})
		}
		w.mu.Unlock()
		if commit && random.IntN(4) == 0 && !w.insist("commit with other usage", func(ctx context.Context) error {
			r, err := at.Commit(ctx, gate(), &quota.Settle{Token: d.Token, Usage: usage(1, 1)})
			if errors.Is(err, quota.ReasonReservationCommitted) {
				return nil
			}
			return fmt.Errorf("got %+v, %w, want that it is committed", r, err)
		}) {
			return
		}
	}
}

// insist does something until it succeeds; false if it does not in good time.
func (w *wire) insist(what string, do func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 10*time.Second)
		err := do(attempt)
		stop()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			w.fail("%s: %v", what, err)
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}
