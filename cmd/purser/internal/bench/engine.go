package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/quota/window"
)

// engine is the engine alone: shards as a node has them, with accounts that have drawn more than
// they will ever need. One goroutine asks; nothing is stored, and there are no locks.
type engine struct {
	shards  []*escrow.Shard
	names   []string // of accounts, each of which pays for itself
	request escrow.Request
	result  escrow.Result
	codec   *token.Codec
	encoded []byte
	random  *rand.Rand
	now     int64
	held    []held
}

// held is a reservation to be ended.
type held struct {
	shard           *escrow.Shard
	sequence, nonce uint64
}

const (
	plenty   = int64(1) << 50
	holding  = 1000 // reservations at a time
	tokenKey = 1
	unstored = "00000000000000000000000000000001" // an incarnation that no store knows
)

func newEngine(accounts, budgets int) (*engine, error) {
	settings := authority.DefaultConfig()
	work := FillRequest(ttl)
	e := &engine{names: make([]string, accounts), random: rand.New(rand.NewPCG(1, 2)), now: time.Now().UnixNano(), encoded: make([]byte, 0, token.MaxSize)}
	var err error
	if e.codec, err = token.NewCodec([]token.Key{{ID: tokenKey, Secret: [32]byte{1}}}, tokenKey); err != nil {
		return nil, err
	}
	config := escrow.Config{Grace: int64(settings.Grace), MaxTTL: int64(settings.MaxHold), DryFor: int64(settings.Poll) / 2, Poll: int64(settings.Poll),
		IdleReturn: int64(benchmarkLasts), Room: escrow.NewRoom(settings.MaxReservations), MaxLimiters: settings.MaxLimiters}
	for i := range settings.Shards {
		e.shards = append(e.shards, escrow.NewShard(config, 1, i, [32]byte{byte(i)}, e.now))
	}
	candidate := escrow.Candidate{Feature: feature, PriceVersion: 1}
	for _, x := range work.Estimates {
		candidate.Meters, candidate.Rates = append(candidate.Meters, x.Meter), append(candidate.Rates, Rates()[x.Meter])
		candidate.Want, candidate.Min = append(candidate.Want, x.Quantity), append(candidate.Min, x.Quantity)
	}
	candidate.Meters, candidate.Rates = append(candidate.Meters, "requests"), append(candidate.Rates, pricing.Rate{Per: 1})
	candidate.Want, candidate.Min = append(candidate.Want, 1), append(candidate.Min, 1)
	candidate.Flexible = make([]bool, len(candidate.Meters))
	for i := range budgets {
		candidate.Claims = append(candidate.Claims, escrow.Claim{Kind: quota.PotBudget, Meter: -1, Limit: plenty, Window: quota.WindowPot{Kind: quota.PotBudget,
			Limit: fmt.Sprintf("budget-%02d", i), Unit: quota.UnitCredits, Window: window.Lifetime, End: quota.Never, Cap: plenty}})
	}
	candidate.Claims = append(candidate.Claims, escrow.Claim{Kind: quota.PotWallet, Meter: -1})
	e.request = escrow.Request{Principal: "bench", Epochs: make([]quota.AccountEpoch, 1), TTL: int64(ttl), Labels: work.Labels, Asked: len(work.Estimates), Candidates: []escrow.Candidate{candidate}}
	for i := range e.names {
		e.names[i] = host.Name("account-", i)
		if err := e.reserve(i); err != nil {
			return nil, err
		}
		if len(e.held) == holding {
			e.end()
		}
	}
	e.end()
	return e, nil
}

// benchmarkLasts is longer than a benchmark: what is drawn stays.
const benchmarkLasts = time.Hour

// reserve decides, holds and signs for an account.
func (e *engine) reserve(account int) error {
	name, shard := e.names[account], e.shards[account%len(e.shards)]
	e.request.Account, e.request.Payer, e.request.Epochs[0].Account = name, name, name
	claims := e.request.Candidates[0].Claims
	for i := range claims[:len(claims)-1] {
		claims[i].Window.Account = name
	}
	status := shard.Reserve(e.now, &e.request, &e.result)
	if status == escrow.Short {
		e.draw(shard)
		status = shard.Reserve(e.now, &e.request, &e.result)
	}
	if status != escrow.Granted {
		return fmt.Errorf("the engine answers %d: %s", status, e.result.Denial.Reason)
	}
	t := &e.result.Token
	var err error
	e.encoded, err = e.codec.Append(e.encoded[:0], t)
	e.held = append(e.held, held{shard, t.Sequence, t.Nonce})
	return err
}

// draw brings what is lacking, and much more.
func (e *engine) draw(shard *escrow.Shard) {
	d := shard.BeginDraw(e.now, unstored, &e.result)
	drawn := make([]quota.Drawn, len(d.Wants))
	for i := range d.Wants {
		w := &d.Wants[i]
		pot := quota.GrantPotID("bench")
		if w.Kind != quota.PotWallet {
			pot = w.Window.ID()
		}
		drawn[i] = quota.Drawn{Available: plenty, Escrowed: plenty, Taken: plenty,
			Allotments: []quota.Allotment{{Lane: shard.Lane(), Number: w.First, Pot: pot, Amount: plenty, NotAfter: quota.Never}}}
	}
	shard.EndDraw(e.now, d, drawn)
}

// end releases what is held, as if it were durable, and lets a little time pass.
func (e *engine) end() {
	for _, h := range e.held {
		status, p := h.shard.Settle(e.now, quota.Record{EntryKey: quota.EntryKey{Lane: h.shard.Lane(), Sequence: h.sequence}, Nonce: h.nonce,
			Kind: quota.Released}, nil)
		if status == escrow.Enqueue {
			p.Fate = quota.Settlement{Verdict: quota.VerdictApplied, Entry: p.Record.Entry(h.shard.Lane(), 1)}
			h.shard.Settled(p)
		}
	}
	e.held = e.held[:0]
	e.now += int64(time.Millisecond)
	for _, s := range e.shards {
		s.Tick(e.now)
	}
}

// pace is how a reservation went, on average.
type pace struct{ nanos, allocations float64 }

// measure reserves for accounts at random for as long as span. Only reserving is timed.
func (e *engine) measure(span time.Duration) (p pace, err error) {
	var before, after runtime.MemStats
	var took time.Duration
	var done, allocations uint64
	accounts := make([]int, holding)
	for took < span {
		for i := range accounts {
			accounts[i] = e.random.IntN(len(e.names))
		}
		runtime.ReadMemStats(&before)
		start := time.Now()
		for _, account := range accounts {
			err = errors.Join(err, e.reserve(account))
		}
		took += time.Since(start)
		runtime.ReadMemStats(&after)
		if err != nil {
			return p, err
		}
		done, allocations = done+holding, allocations+after.Mallocs-before.Mallocs
		e.end()
	}
	return pace{nanos: float64(took.Nanoseconds()) / float64(done), allocations: float64(allocations) / float64(done)}, nil
}
