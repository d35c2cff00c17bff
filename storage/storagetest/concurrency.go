package storagetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/projection"
)

func concurrencyTests() []Test {
	return []Test{
		{"DrawsStayWithinTheCap", concurrentDraws},
		{"OneSettlementEach", concurrentSettlements},
		{"CloseAgainstSettle", concurrentClose},
		{"InterimAgainstClosing", concurrentInterims},
		{"ProjectedOnce", concurrentProjection},
		{"RequestOnce", concurrentRequests},
		{"EverythingComesHome", concurrentAll},
	}
}

// workers is how many goroutines a test sets on one account.
const workers = 6

// together runs fn for each worker at once; the first error fails the test.
func (e *Env) together(fn func(worker int) error) {
	e.Helper()
	start := make(chan struct{})
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	calm := func() {}
	if e.Disturb != nil {
		calm = e.Disturb()
	}
	close(start)
	all.Wait()
	calm()
	e.must(errors.Join(errs...))
}

// stubborn repeats a call while the store says that others were in the way, that it is away,
// or that the outcome is unknown: all calls of the data plane may be sent again.
func stubborn(call func() error) error {
	var err error
	for range 50 {
		err = call()
		if !errors.Is(err, quota.ReasonContention) && !errors.Is(err, quota.ReasonOutcomeUnknown) && !errors.Is(err, quota.ReasonStoreUnavailable) {
			return err
		}
	}
	return fmt.Errorf("50 times: %w", err)
}

// insist is stubborn for a call that answers something.
func insist[T any](call func() (T, error)) (out T, err error) {
	err = stubborn(func() error {
		out, err = call()
		return err
	})
	return out, err
}

// drawAll draws until nothing is to be had, and says how much that was.
func (n *Node) drawAll(d quota.Draw, most int) (all []quota.Allotment, sums [2]int64, err error) {
	for range most {
		for i := range d.Wants {
			d.Wants[i].First = n.reserve(d.Wants[i].Numbers())
		}
		var out []quota.Drawn
		err = stubborn(func() (err error) {
			if out, err = n.sendDraw(d); !errors.Is(err, quota.ReasonPolicyChanged) {
				return err
			}
			// Debt was made: decide anew (R12).
			p, err := insist(func() (*quota.Profile, error) { return n.Store.Profile(n.ctx, d.Payer) })
			if err != nil {
				return err
			}
			d.Epochs = p.Epochs()
			return quota.ReasonContention
		})
		if err != nil {
			return nil, sums, fmt.Errorf("draw: %w", err)
		}
		for i := range out {
			for _, a := range out[i].Allotments {
				sums[i] += a.Amount
				all = append(all, a)
			}
		}
	}
	return all, sums, nil
}

// concurrentDraws is I12 and I1 under contention: nobody draws what another has.
func concurrentDraws(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 3000)
	e.grant("acme", "two", 2000)
	w := e.day("acme", "daily", 1000)
	nodes, draws := make([]*Node, workers), make([]quota.Draw, workers)
	for i := range nodes {
		nodes[i] = e.node()
		draws[i] = nodes[i].draw("acme", nodes[i].want(170, 170), nodes[i].windowWant(w, 70, 70))
	}
	taken := make([][2]int64, workers)
	e.together(func(i int) (err error) {
		_, taken[i], err = nodes[i].drawAll(draws[i], 8)
		return err
	})
	var walletSum, windowSum int64
	for _, t := range taken {
		walletSum, windowSum = walletSum+t[0], windowSum+t[1]
	}
	e.same("drawn from the wallet", walletSum, int64(5000))
	e.same("drawn from the window", windowSum, int64(1000))
	e.taken("acme", w, 1000, 0, 0)
	e.finish(nodes...)
}

// concurrentSettlements is I5: the owner and everybody else settle the same reservations with
// different charges at once; each of them gets the one winner.
func concurrentSettlements(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100000)
	owner := e.node()
	a := owner.take("acme", 50000)
	var records []quota.Record
	for range 40 {
		records = append(records, owner.commit("acme", wallet(10, part(a, 10))))
	}
	nodes := []*Node{owner}
	for range workers - 1 {
		nodes = append(nodes, e.node())
	}
	told := make([]map[quota.EntryKey]quota.Entry, workers)
	e.together(func(i int) error {
		told[i] = map[quota.EntryKey]quota.Entry{}
		for k := range records {
			r := records[(k*7+i)%len(records)]
			var got quota.Entry
			var err error
			if i == 0 {
				got, err = nodes[0].settleOwn(r)
			} else {
				r.Slots = []quota.Slot{wallet(int64(i), part(a, int64(i)))}
				r.Lines, r.Usage = []int64{int64(i)}, []quota.Quantity{{Meter: "output_tokens", Quantity: int64(i)}}
				got, err = nodes[i].settleForeign(r)
			}
			if err != nil {
				return err
			}
			told[i][r.EntryKey] = got
		}
		return nil
	})
	entries := e.entries()
	e.check(len(entries) == len(records), "%d entries of %d reservations", len(entries), len(records))
	for _, n := range entries {
		for i := range told {
			e.same(fmt.Sprintf("what worker %d was told", i), told[i][n.EntryKey], n)
		}
	}
	e.finish(nodes...)
}

// settleOwn appends one record; the entry is the record's or the winner's.
func (n *Node) settleOwn(r quota.Record) (quota.Entry, error) {
	res, err := insist(func() (quota.AppendResult, error) {
		return n.Store.Append(n.ctx, n.Lane, n.batch+1, []quota.Record{r})
	})
	switch {
	case err != nil:
		return quota.Entry{}, fmt.Errorf("append: %w", err)
	case res.Applied:
		n.batch++
		return r.Entry(n.Lane, n.batch), nil
	case res.Fenced:
		return quota.Entry{}, quota.ReasonFenced
	case len(res.Winners) != 1:
		return quota.Entry{}, fmt.Errorf("append: %+v", res)
	}
	return res.Winners[0], nil
}

// settleForeign settles one record in the guest lane, again while it is not decided.
func (n *Node) settleForeign(r quota.Record) (quota.Entry, error) {
	for range 50 {
		var fates []quota.Settlement
		var used bool
		err := stubborn(func() (err error) {
			fates, used, err = n.Store.Settle(n.ctx, n.Guest, n.guestBatch+1, []quota.Record{r})
			return err
		})
		if err != nil {
			return quota.Entry{}, fmt.Errorf("settle: %w", err)
		}
		if used {
			n.guestBatch++
		}
		switch fates[0].Verdict {
		case quota.VerdictApplied, quota.VerdictSettled:
			return fates[0].Entry, nil
		case quota.VerdictRetry:
		default:
			return quota.Entry{}, fmt.Errorf("settle: verdict %d", fates[0].Verdict)
		}
	}
	return quota.Entry{}, errors.New("settle: it is never decided")
}

// concurrentClose is R3 and R22: commits race the fence and the closing of their lane, by the
// owner and by others; what comes too late is LATE, and nothing is counted twice.
func concurrentClose(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100000)
	owner := e.node()
	var records []quota.Record
	for range 30 {
		a := owner.take("acme", 100)
		records = append(records, owner.commit("acme", wallet(60, part(a, 60))))
	}
	owner.die()
	nodes := []*Node{owner}
	for range workers - 1 {
		nodes = append(nodes, e.node())
	}
	now := e.Now()
	e.together(func(i int) error {
		switch i {
		case 0:
			for _, r := range records[:15] {
				if _, err := owner.settleOwn(r); errors.Is(err, quota.ReasonFenced) {
					return nil // What is left goes LATE, by way of the others.
				} else if err != nil {
					return err
				}
			}
			return nil
		case 1, 2:
			if err := stubborn(func() error { return e.Store.Fence(e.ctx, owner.Lane) }); err != nil {
				return err
			}
			for done := false; !done; {
				var err error
				done, err = insist(func() (bool, error) { return e.Store.CloseLane(e.ctx, owner.Lane, now, 3) })
				if err != nil {
					return fmt.Errorf("close: %w", err)
				}
			}
			return nil
		}
		for _, r := range records {
			if _, err := nodes[i].settleForeign(r); err != nil {
				return err
			}
		}
		return nil
	})
	e.finish(nodes[1:]...)
	p := e.pot("acme", "g/one")
	e.check(p.Spent+p.Direct == 30*60, "%d spent and %d LATE of 30 commits of 60", p.Spent, p.Direct)
}

func concurrentProjection(e *Env) {
	e.account("acme", "")
	n := e.node()
	for range 10 {
		n.append(n.commit("acme", wallet(3)))
	}
	e.together(func(int) error {
		for {
			c, err := cursorOf(n)
			if err != nil || c.No == 10 {
				return err
			}
			batches, err := insist(func() ([]quota.Batch, error) { return n.Store.Batches(n.ctx, c, 2) })
			if err != nil {
				return err
			}
			p := projection.Build(c, e.Now(), batches, nil)
			if _, err := insist(func() (bool, error) { return n.Store.Project(n.ctx, p) }); err != nil {
				return fmt.Errorf("project: %w", err)
			}
		}
	})
	e.same("debt", e.debt("acme"), int64(30))
}

// concurrentRequests: of many first uses of a request id at once, one is done.
func concurrentRequests(e *Env) {
	e.account("acme", "")
	m := e.request("r", 1)
	g := e.newGrant("one", 500)
	got := make([]quota.Pot, workers)
	e.together(func(i int) error {
		var err error
		got[i], err = insist(func() (quota.Pot, error) { return e.Store.CreateGrant(e.ctx, m, "acme", g) })
		return err
	})
	for _, p := range got {
		e.same("grant", p, got[0])
	}
	e.figures("acme", "one", 500, 0, 0, 0, 0, 0)
}

// concurrentAll lets nodes draw, commit, return and crash on one payer, while grants come in
// and debt is made and paid; in the end everything is home and accounted for (I15).
func concurrentAll(e *Env) {
	e.account("acme", "")
	e.grant("acme", "g0", 2000)
	nodes, draws, records := make([]*Node, workers), make([]quota.Draw, workers), make([]quota.Record, workers)
	for i := range nodes {
		nodes[i] = e.node()
		draws[i] = nodes[i].draw("acme", nodes[i].want(60, 60))
		records[i] = nodes[i].commit("acme")
	}
	mutation := e.mutation()
	e.together(func(i int) error { return nodes[i].work(draws[i], records[i], mutation) })
	report := e.finish(nodes...)
	p := e.pots()
	var spent, granted int64
	for _, g := range p {
		spent, granted = spent+g.Spent+g.Direct, granted+g.Granted
	}
	e.check(report.Charged == spent+report.Debt, "charged %d, but %d spent and %d owed", report.Charged, spent, report.Debt)
	e.check(granted == 2000+workers*4*25, "granted %d", granted)
}

// work is a node's life in concurrentAll.
func (n *Node) work(d quota.Draw, r quota.Record, m quota.Mutation) error {
	for round := range int64(4) {
		drawn, _, err := n.drawAll(d, 2)
		if err != nil {
			return err
		}
		for i, a := range drawn {
			charge := a.Amount/2 + round*15 // sometimes more than there is
			covered := min(charge, a.Amount)
			c := r
			c.Sequence, c.Nonce = uint64(round*100)+uint64(i)+1, uint64(round)
			c.Slots, c.Lines, c.Usage = []quota.Slot{wallet(charge, part(a, covered))}, []int64{charge}, []quota.Quantity{{Meter: "output_tokens", Quantity: charge}}
			if _, err := n.settleOwn(c); err != nil {
				return err
			}
			if rest := a.Amount - covered; i%2 == 0 {
				shrink := []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: rest, Close: true}}
				if err := stubborn(func() error { return n.Store.Return(n.ctx, n.Lane, shrink) }); err != nil {
					return fmt.Errorf("return: %w", err)
				}
			}
		}
		if err := n.projectOwn(); err != nil {
			return err
		}
		g := quota.Pot{ID: quota.GrantPotID(fmt.Sprintf("%s-%d", n.ID, round)), Kind: quota.PotWallet, Granted: 25, Start: 1,
			End: quota.Never, GrantKind: quota.GrantPurchased}
		m.RequestID = fmt.Sprintf("%s-%d", n.ID, round)
		if _, err := insist(func() (quota.Pot, error) { return n.Store.CreateGrant(n.ctx, m, "acme", g) }); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
	}
	return nil
}

func (n *Node) projectOwn() error {
	for {
		c, err := cursorOf(n)
		if err != nil {
			return err
		}
		batches, err := insist(func() ([]quota.Batch, error) { return n.Store.Batches(n.ctx, c, 10) })
		if err != nil || len(batches) == 0 {
			return err
		}
		pots, err := insist(func() (map[quota.AllotmentRef]quota.PotRef, error) {
			return n.Store.PotsOf(n.ctx, projection.Refs(batches))
		})
		if err != nil {
			return err
		}
		p := projection.Build(c, n.Now(), batches, pots)
		if _, err := insist(func() (bool, error) { return n.Store.Project(n.ctx, p) }); err != nil {
			return fmt.Errorf("project: %w", err)
		}
	}
}
