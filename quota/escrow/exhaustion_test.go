package escrow

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// TestExhaustion spends accounts to their end at several nodes, in simulated time, and looks at
// every denial while free credit would have paid, wherever that was. There is none while more
// than a hundredth is left, and below that all are TRANSIENT.
func TestExhaustion(t *testing.T) {
	for _, c := range []struct {
		name string
		exhaustion
		wrong float64 // of all requests, denied in the last hundredth though free credit would have paid
	}{
		{"3 nodes", exhaustion{nodes: 3, credits: 2_000_000, rate: 400}, 0.1},
		{"10 nodes", exhaustion{nodes: 10, credits: 2_000_000, rate: 400}, 0.25},
		{"the first node falls silent", exhaustion{nodes: 3, credits: 2_000_000, rate: 400, silent: 40 * second}, 0.1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(3) {
				got := c.run(t, seed+1)
				t.Log(got)
				if got.early > 0 || got.final > 0 || got.share(got.late) > c.wrong {
					t.Errorf("seed %d: %d wrong denials with more than 1 %% free, %d with less (at most %.0f %% of all), %d of them final", seed+1, got.early, got.late, 100*c.wrong, got.final)
				}
				if got.used < 999*c.credits/1000 {
					t.Errorf("seed %d: %d of %d micros were used", seed+1, got.used, c.credits)
				}
			}
		})
	}
}

// TestExhaustionSees leaves out what keeps the denials away, and expects them.
func TestExhaustionSees(t *testing.T) {
	for _, c := range []struct {
		name string
		exhaustion
	}{
		{"nothing is ever scarce", exhaustion{nodes: 10, credits: 2_000_000, rate: 400, plenty: true}},
		{"wishes are not heard", exhaustion{nodes: 3, credits: 2_000_000, rate: 400, silent: 40 * second, deaf: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.run(t, 1)
			t.Log(got)
			if got.early == 0 {
				t.Error("nobody was denied while others had more than 1 % free")
			}
		})
	}
}

// exhaustion is an account at nodes that share its requests evenly. Requests cost 70 micros in
// the median, some 700 at the 99th percentile; they end after 4 s on average, and use 30 to 100 %
// of what was held (protocol §3.4). The database answers within 6 ms.
type exhaustion struct {
	nodes   int
	credits int64
	rate    float64 // requests a second
	silent  int64   // from when the first node is not asked any more, ns; 0 = never
	plenty  bool    // flaw: no pot is ever found scarce
	deaf    bool    // flaw: wishes are not heard
}

// outcome is what became of the requests.
type outcome struct {
	exhaustion
	requests, granted int
	early, late       int     // wrong denials, with more than a hundredth free, and with less
	final             int     // of them, final ones
	first             float64 // share of the credits that was free at the first wrong denial
	used              int64
	draws, returns    int
}

func (o *outcome) share(n int) float64 { return float64(n) / float64(o.requests) }

func (o *outcome) String() string {
	return fmt.Sprintf("%d requests, %d granted; first wrong denial with %.3f %% free, %d before and %d after 1 %%; %.1f draws and %.1f returns for 1000 granted",
		o.requests, o.granted, 100*o.first, o.early, o.late, 1000*float64(o.draws)/float64(o.granted), 1000*float64(o.returns)/float64(o.granted))
}

const (
	hop       = int64(3e6) // to the database or back, ns
	pollEvery = second / 2
	spending  = 120 * second // for how long requests come: twice what the account lasts
)

// run plays it through.
func (x exhaustion) run(t *testing.T, seed uint64) *outcome {
	s := spender{t: t, db: quotatest.New(epoch), random: rand.New(rand.NewPCG(seed, 0)), outcome: outcome{exhaustion: x}}
	s.db.CreateAccount("org", "")
	s.db.CreateGrant(quota.Pot{Payer: "org", ID: "g/1", Granted: x.credits, Start: epoch, End: quota.Never})
	for i := range x.nodes {
		s.start(i)
	}
	s.after(0, s.arrive)
	for s.db.Now < epoch+spending {
		e := heap.Pop(&s.events).(event)
		s.db.Now = e.at
		e.do()
	}
	return &s.outcome
}

// spender is the account's nodes, its requests, and what happens when.
type spender struct {
	t      *testing.T
	db     *quotatest.DB
	random *rand.Rand
	nodes  []*spendNode
	events events
	number int
	outcome
}

// spendNode is one node.
type spendNode struct {
	*Shard
	id      string
	out     Result
	waiting []func()
	wishes  []quota.PotRef // as the database has them
	batch   int64
}

func (s *spender) start(i int) {
	n := &spendNode{id: fmt.Sprintf("%032d", i+1)}
	lane := quota.LaneID(2*i + 1)
	_, err := s.db.Register(context.Background(), quota.Registration{Incarnation: n.id, Lanes: []quota.LaneID{lane}, Guest: lane + 1,
		Lease: time.Hour, Hold: time.Minute})
	if err != nil {
		s.t.Fatal(err)
	}
	n.Shard = NewShard(Config{Grace: 10 * second, MaxTTL: 60 * second, DryFor: pollEvery / 2, Poll: pollEvery, IdleReturn: 30 * second,
		Room: NewRoom(1 << 20), MaxLimiters: 1}, lane, 0, [32]byte{byte(i)}, epoch)
	n.SetLiveNodes(s.exhaustion.nodes)
	s.nodes = append(s.nodes, n)
	s.every(pollEvery/4, func() { n.Tick(s.db.Now) })
	s.every(pollEvery, func() { s.poll(n) })
}

// every repeats something, beginning at any time within the first period.
func (s *spender) every(period int64, do func()) {
	var again func()
	again = func() {
		do()
		s.after(period, again)
	}
	s.after(s.random.Int64N(period), again)
}

func (s *spender) after(d int64, do func()) {
	s.number++
	heap.Push(&s.events, event{s.db.Now + d, s.number, do})
}

// poll tells and hears wishes, and gives back.
func (s *spender) poll(n *spendNode) {
	n.wishes = n.Wishes(s.db.Now, n.wishes[:0], 1)
	for _, other := range s.nodes {
		for _, pot := range other.wishes {
			if other != n && !s.deaf {
				n.Wished(s.db.Now, pot)
			}
		}
	}
	shrinks := n.BeginReturn(s.db.Now, false, 100)
	if len(shrinks) == 0 {
		return
	}
	s.returns++
	s.after(hop, func() {
		if err := s.db.Return(context.Background(), n.Lane(), shrinks); err != nil {
			s.t.Fatal(err)
		}
		s.after(hop, func() { n.EndReturn(shrinks) })
	})
}

// arrive is the next request, and plans the one after it.
func (s *spender) arrive() {
	s.requests++
	first := 0
	if s.silent > 0 && s.db.Now >= epoch+s.silent {
		first = 1
	}
	cost := 1 + int64(70*math.Exp(s.random.NormFloat64()))
	s.ask(s.nodes[first+s.random.IntN(len(s.nodes)-first)], cost)
	s.after(int64(s.random.ExpFloat64()*float64(second)/s.rate), s.arrive)
}

func (s *spender) ask(n *spendNode, cost int64) {
	r := &Request{Account: "org", Payer: "org", Principal: "p", Epochs: s.db.Profile("org").Epochs(), TTL: 30 * second,
		Candidates: []Candidate{candidate("chat", 1, cost, cost, wallet())}}
	switch status := n.Reserve(s.db.Now, r, &n.out); status {
	case Granted:
		s.granted++
		if d := n.BeginAhead(s.db.Now, n.id); d != nil {
			s.draw(n, d)
		}
		sequence, nonce := n.out.Token.Sequence, n.out.Token.Nonce
		used := int64(float64(cost) * (0.3 + 0.7*s.random.Float64()))
		s.after(int64(s.random.ExpFloat64()*4e9), func() { s.settle(n, sequence, nonce, used) })
	case Short:
		if n.Drawing("org") {
			n.Join(&n.out)
		} else {
			s.draw(n, n.BeginDraw(s.db.Now, n.id, &n.out))
		}
		n.waiting = append(n.waiting, func() { s.ask(n, cost) })
	case Denied:
		s.denied(n, cost)
	default:
		s.t.Fatalf("status %d", status)
	}
}

// denied looks whether the denial was wrong.
func (s *spender) denied(n *spendNode, cost int64) {
	free := s.db.Wallet("org", s.db.Now)
	for _, other := range s.nodes {
		free += other.Wallet("org").Free
	}
	if free < cost {
		return
	}
	if s.early+s.late == 0 {
		s.first = float64(free) / float64(s.credits)
	}
	if free > s.credits/100 {
		s.early++
	} else {
		s.late++
	}
	if !n.out.Denial.Transient {
		s.final++
	}
}

func (s *spender) draw(n *spendNode, d *Draw) {
	s.draws++
	s.after(hop, func() {
		results, err := s.db.Draw(context.Background(), []quota.Draw{d.Draw})
		if err != nil || results[0].Err != nil {
			s.t.Fatalf("draw: %v, %v", results, err)
		}
		s.after(hop, func() {
			n.EndDraw(s.db.Now, d, results[0].Drawn)
			if s.plenty {
				for _, p := range n.order {
					p.scarceUntil, p.wishUntil = 0, 0
				}
			}
			waiting := n.waiting
			n.waiting = nil
			for _, again := range waiting {
				again()
			}
		})
	})
}

func (s *spender) settle(n *spendNode, sequence, nonce uint64, used int64) {
	rec := quota.Record{EntryKey: quota.EntryKey{Lane: n.Lane(), Sequence: sequence}, Nonce: nonce, Kind: quota.Committed, Lines: []int64{used}}
	status, p := n.Settle(s.db.Now, rec, nil)
	if status != Enqueue {
		return // it took so long that it expired
	}
	s.used += used
	s.after(2*hop, func() {
		n.batch++
		p.Fate = quota.Settlement{Verdict: quota.VerdictApplied, Entry: p.Record.Entry(1, n.batch)}
		n.Settled(p)
	})
}

type event struct {
	at     int64
	number int // of two at once, that which was planned first
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
