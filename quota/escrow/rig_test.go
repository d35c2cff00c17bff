package escrow

import (
	"context"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/quotatest"
)

// rig is one shard over a database without faults.
type rig struct {
	t   testing.TB
	db  *quotatest.DB
	s   *Shard
	out Result
	no  int64 // of the next batch
}

const rigID = "00000000000000000000000000000001"

func newRig(t testing.TB, credits int64) *rig {
	r := &rig{t: t, db: quotatest.New(epoch), no: 1}
	r.db.CreateAccount("org", "")
	r.db.CreateAccount("team", "org")
	if credits > 0 {
		r.db.CreateGrant(quota.Pot{Payer: "org", ID: "g/1", Granted: credits, Start: epoch, End: quota.Never})
	}
	_, err := r.db.Register(context.Background(), quota.Registration{Incarnation: rigID, Lanes: []quota.LaneID{1}, Guest: 2,
		Lease: time.Hour * 1000, Hold: time.Duration(maxHold + grace)})
	if err != nil {
		t.Fatalf("register: %v", err)
	}
	cfg := Config{Grace: grace, MaxTTL: maxHold, DryFor: second / 4, IdleReturn: 5 * second, Room: NewRoom(1 << 20), MaxLimiters: 1 << 20}
	r.s = NewShard(cfg, 1, 3, [32]byte{1}, epoch)
	return r
}

// budget makes a claim on a window of 20 s and declares its cap.
func (r *rig) budget(account, id string, meter int, limit int64) Claim {
	b := quota.Budget{Account: account, ID: id, Cap: limit}
	if meter == 0 {
		b.Unit = "tokens"
	} else if meter == 1 {
		b.Unit = "requests"
	}
	r.db.PutBudget(b)
	return claimOf(r.db.Now, &b)
}

func wallet() Claim { return Claim{Kind: quota.PotWallet, Meter: -1} }

// candidate wants tokens at a price in micros each, and one request for nothing.
func candidate(feature string, price, want, low int64, claims ...Claim) Candidate {
	return Candidate{Feature: feature, PriceVersion: 1, Meters: []string{"tokens", "requests"},
		Rates: []pricing.Rate{{PriceMicros: price, Per: 1}, {Per: 1}}, Want: []int64{want, 1}, Min: []int64{low, 1},
		Flexible: []bool{low < want, false}, Claims: claims}
}

// ask is a request of team.
func (r *rig) ask(candidates ...Candidate) *Request {
	return &Request{Account: "team", Payer: "org", Principal: "p", Epochs: r.db.Profile("team").Epochs(), TTL: 4 * second,
		Candidates: candidates}
}

// reserve decides, drawing as often as it takes.
func (r *rig) reserve(q *Request) Status {
	r.t.Helper()
	for range 5 {
		st := r.s.Reserve(r.db.Now, q, &r.out)
		if st != Short {
			return st
		}
		r.draw(r.s.BeginDraw(r.db.Now, rigID, &r.out))
	}
	r.t.Fatalf("short for ever")
	return 0
}

// grant is reserve that has to succeed; it returns the sequence.
func (r *rig) grant(q *Request) uint64 {
	r.t.Helper()
	if st := r.reserve(q); st != Granted {
		r.t.Fatalf("status %d with denial %+v, want granted", st, r.out.Denial)
	}
	return r.out.Token.Sequence
}

func (r *rig) draw(d *Draw) {
	r.t.Helper()
	results, err := r.db.Draw(context.Background(), []quota.Draw{d.Draw})
	if err != nil || results[0].Err != nil {
		r.t.Fatalf("draw: %v, %v", results, err)
	}
	r.s.EndDraw(r.db.Now, d, results[0].Drawn)
}

// settle begins a settlement; charge is what the usage costs of each slot's unit, nil for a
// release.
func (r *rig) settle(sequence uint64, charge ...int64) *Pending {
	r.t.Helper()
	h := r.s.holds[sequence]
	if h == nil {
		r.t.Fatalf("%d is not held", sequence)
	}
	rec := quota.Record{EntryKey: quota.EntryKey{Lane: 1, Sequence: sequence}, Nonce: h.nonce, Kind: quota.Committed}
	if charge == nil {
		rec.Kind = quota.Released
	}
	for i, x := range charge {
		if unit := h.slots[i].unit; unit == quota.UnitCredits {
			rec.Lines = []int64{x}
		} else {
			rec.Usage = append(rec.Usage, quota.Quantity{Meter: unit, Quantity: x})
		}
	}
	st, p := r.s.Settle(r.db.Now, rec, nil)
	if st != Enqueue {
		r.t.Fatalf("settle: status %d", st)
	}
	return p
}

// durable makes a settlement durable and tells the shard.
func (r *rig) durable(p *Pending) {
	p.Fate = quota.Settlement{Verdict: quota.VerdictApplied, Entry: p.Record.Entry(1, r.no)}
	r.no++
	r.s.Settled(p)
}

// giveBack sends one return batch and returns it.
func (r *rig) giveBack(all bool) []quota.Shrink {
	r.t.Helper()
	shrinks := r.s.BeginReturn(r.db.Now, all, 100)
	if err := r.db.Return(context.Background(), 1, shrinks); err != nil {
		r.t.Fatalf("return: %v", err)
	}
	r.s.EndReturn(shrinks)
	return shrinks
}

func expectViolation(t *testing.T, want string, do func()) {
	t.Helper()
	defer func() {
		v, ok := recover().(Violation)
		if !ok || len(v) < len(want) || string(v[:len(want)]) != want {
			t.Fatalf("got %v, want a violation of %s", v, want)
		}
	}()
	do()
}
