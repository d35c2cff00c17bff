package authority_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
// the accounts have less, and the books balance. Then the nodes drain, and nothing stays away (I15)
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
		w.patience = 12 * time.Second // what was lost is asked for in vain
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

// wire is two nodes behind a proxy, and two accounts of their own.
type wire struct {
	t              *testing.T
	proxy          *faultproxy.Proxy
	nodes          [2]*node
	plenty, scarce *wireAccount
	seed           uint64
	patience       time.Duration // for an answer, through all faults

	mu     sync.Mutex
	denied map[bool]int // the scarce account's reservations, transiently or not
	told   []audit.Acknowledged
	wrong  []string
	lates  atomic.Int64 // commits behind an expiry
}

// wireAccount is an account with what it was charged, in micros: as acknowledged, and what may
// have been besides.
type wireAccount struct {
	id                       string
	credits, charged, unsure int64
}

// wireHold is what a reservation holds, in micros: 1000 input and 1000 output tokens.
var wireHold = costOf(1000)

func onWire(t *testing.T, url string, seed uint64, wrap func(quota.Store) quota.Store) *wire {
	w := &wire{t: t, proxy: faultproxy.New(t, url), seed: seed, patience: time.Minute, denied: make(map[bool]int),
		plenty: &wireAccount{id: fmt.Sprintf("wire-%d", seed), credits: 1e12}, scarce: &wireAccount{id: fmt.Sprintf("scarce-%d", seed), credits: 5 * wireHold}}
	for i := range w.nodes {
		w.nodes[i] = join(t, w.proxy.URL(), shared(), wrap)
	}
	if seed == 1 {
		w.nodes[0].catalogue()
	}
	for _, a := range []*wireAccount{w.plenty, w.scarce} {
		w.nodes[0].account(a.id, "", a.credits)
	}
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
	if w.lates.Load() == 0 || w.denied[true]+w.denied[false] == 0 {
		w.fail("%d commits were late, %d reservations denied", w.lates.Load(), w.denied[true]+w.denied[false])
	}
	if met < 10 || w.proxy.Met(faultproxy.Duplicate) == 0 {
		w.fail("only %d statements met a fault, %d of them Duplicate", met, w.proxy.Met(faultproxy.Duplicate))
	}
	for _, n := range w.nodes {
		eventually(w.t, func() bool { return n.Status().Reservations == 0 }) // what nobody settles has expired
		if err := n.Quiesce(w.t.Context()); err != nil {
			w.fail("quiesce: %v", err)
		}
	}
	for _, op := range []faultproxy.Op{faultproxy.Append, faultproxy.Settle, faultproxy.Interim, faultproxy.Draw, faultproxy.Return, faultproxy.Project,
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
	for _, a := range []*wireAccount{w.plenty, w.scarce} {
		w.count(a)
	}
	w.t.Logf("seed %d: %d statements met a fault; charged were %d micros, and of %d scarce ones %d, with %d denials that said to come again and %d that did not",
		w.seed, met, w.plenty.charged, w.scarce.credits, w.scarce.charged, w.denied[true], w.denied[false])
	return w.wrong
}

// count compares what an account has left with what it was charged.
func (w *wire) count(a *wireAccount) {
	b, err := w.nodes[0].Balance(w.t.Context(), a.id)
	if err != nil {
		w.fail("no balance of %s: %v", a.id, err)
		return
	}
	left := b.Total - b.Debt
	if most := a.credits - a.charged; left > most || left < most-a.unsure {
		w.fail("%s: %d of %d micros are left; charged, as acknowledged, were %d, and perhaps %d more", a.id, left, a.credits, a.charged, a.unsure)
	}
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

// client works at either node, and sends each request again until it has an answer.
func (w *wire) client(number int) {
	random := rand.New(rand.NewPCG(w.seed, uint64(number)))
	for i := range 15 {
		j := job{wire: w, random: random, at: w.nodes[random.IntN(2)], elsewhere: w.nodes[random.IntN(2)], account: w.plenty, late: i%7 == 3}
		if random.IntN(3) == 0 {
			j.account = w.scarce
		}
		if !j.reserve(fmt.Sprintf("%d-%d-%d", w.seed, number, i)) || j.d.Allowed && !j.use() {
			return
		}
	}
}

// job is a reservation of a client. Its methods are false if there was no answer in good time.
type job struct {
	*wire
	random        *rand.Rand
	at, elsewhere *node // who is asked for it, and who settles
	account       *wireAccount
	late          bool // it commits when the reservation has expired
	d             quota.Decision
}

// reserve asks for a reservation. An account with plenty gets it in the end; a scarce one may be
// told no. Whoever was told that it is no use to come again was told the truth: nobody who asks
// afterwards gets one.
func (j *job) reserve(key string) bool {
	r := chat(j.account.id, 1000, 1000)
	r.Key, r.Candidates = key, []string{"small"} // nothing cheaper stands behind it
	forGood := j.account == j.scarce && j.deniedForGood() > 0
	defer func() {
		if forGood && j.d.Allowed {
			j.fail("%s was denied for good, and then %s was granted", j.account.id, key)
		}
	}()
	return j.insist("reserve", func(ctx context.Context) error {
		err := j.at.Reserve(ctx, gate(), r, &j.d)
		switch {
		case err != nil || j.d.Allowed:
			return err
		case j.account == j.scarce && j.d.Denial.Reason == quota.DeniedCredits:
			j.mu.Lock()
			defer j.mu.Unlock()
			j.denied[j.d.Denial.Transient]++
			return nil
		}
		return errors.New("denied: " + j.d.Denial.Reason.String()) // no draw came through
	})
}

func (w *wire) deniedForGood() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denied[false]
}

// use extends a reservation perhaps, says perhaps what it has used so far, and settles it, or
// does not.
func (j *job) use() bool {
	token := j.d.Token
	if j.random.IntN(3) == 0 {
		var more quota.Decision
		if !j.insist("extend", func(ctx context.Context) error {
			return over(j.at.Extend(ctx, gate(), totals(j.d.Token, 2000, 2000), &more))
		}) {
			return false
		}
		if more.Allowed && j.random.IntN(2) == 0 {
			token = more.Token // either is good
		}
	}
	if j.random.IntN(6) == 0 {
		_, answered := j.settle("release", func(ctx context.Context) (quota.Receipt, error) {
			r, err := j.elsewhere.Release(ctx, gate(), &quota.Settle{Token: token})
			return r, over(err) // it took too long: released all the same
		})
		return answered
	}
	var sofar int64
	reported, noted := j.random.IntN(3) == 0, false
	if reported {
		sofar = j.random.Int64N(700)
		if !j.insist("interim", func(ctx context.Context) error {
			err := j.at.Interim(ctx, gate(), &quota.Settle{Token: token, Usage: usage(1000, sofar)})
			noted = err == nil
			return over(err)
		}) {
			return false
		}
	}
	if j.random.IntN(8) == 0 { // nobody settles it: it expires, and what was reported is charged
		switch {
		case noted:
			j.charge(costOf(sofar))
		case reported:
			j.mayCharge(costOf(sofar)) // an attempt of which nothing was heard
		}
		return true
	}
	if j.late {
		time.Sleep(expired)
	}
	out := sofar + j.random.Int64N(1200)
	commit := func(ctx context.Context, at *node) (quota.Receipt, error) {
		return at.Commit(ctx, gate(), &quota.Settle{Token: token, Usage: usage(1000, out)})
	}
	var other quota.Receipt
	var both sync.WaitGroup
	if j.random.IntN(4) == 0 { // the same at both nodes at once
		both.Go(func() {
			j.insist("commit at once", func(ctx context.Context) (err error) {
				other, err = commit(ctx, j.at)
				return err
			})
		})
	}
	receipt, answered := j.settle("commit", func(ctx context.Context) (quota.Receipt, error) { return commit(ctx, j.elsewhere) })
	both.Wait()
	if !answered {
		return false
	}
	if other.State != 0 && other.Charged != receipt.Charged {
		j.fail("one commit was charged %+v and %+v", receipt, other)
	}
	if want := costOf(out); receipt.Charged != want && !(receipt.Late && reported && receipt.Charged == want-costOf(sofar)) {
		j.fail("a commit of %d micros behind a report of %d was charged %+v", want, costOf(sofar), receipt)
	}
	if receipt.Late {
		j.lates.Add(1)
	}
	j.charge(costOf(out)) // a late one says only what it charged beyond the report
	return j.random.IntN(4) > 0 || j.insist("commit with other usage", func(ctx context.Context) error {
		r, err := j.at.Commit(ctx, gate(), &quota.Settle{Token: j.d.Token, Usage: usage(1, 1)})
		if errors.Is(err, quota.ReasonReservationCommitted) {
			return nil
		}
		return fmt.Errorf("got %+v, %w, want that it is committed", r, err)
	})
}

// over is nil for an error that says that the reservation is over, or in other hands.
func over(err error) error {
	if errors.Is(err, quota.ReasonReservationExpired) || errors.Is(err, quota.ReasonExtendElsewhere) {
		return nil
	}
	return err
}

// settle settles and keeps what it was told.
func (j *job) settle(what string, do func(context.Context) (quota.Receipt, error)) (receipt quota.Receipt, answered bool) {
	answered = j.insist(what, func(ctx context.Context) (err error) {
		receipt, err = do(ctx)
		return err
	})
	if answered && (receipt.State == quota.Committed || receipt.State == quota.Released) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.told = append(j.told, audit.Acknowledged{Lane: j.d.Lane, Sequence: j.d.Sequence, Nonce: j.d.Nonce, Kind: receipt.State, Charged: receipt.Charged})
	}
	return receipt, answered
}

// expired is when a reservation that was just made or extended has certainly ended.
const expired = 3 * time.Second

// costOf is what 1000 input tokens and so many of output cost in micros.
func costOf(out int64) int64 { return 1e5 + 300*out }

func (j *job) charge(micros int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.account.charged += micros
}

func (j *job) mayCharge(micros int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.account.unsure += micros
}

// insist does something until it succeeds; false if it does not in good time.
func (w *wire) insist(what string, do func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), w.patience)
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
