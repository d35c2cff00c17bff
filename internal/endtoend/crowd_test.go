package endtoend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/clients/go"
)

// crowd are generations that run through one client, in this process. Each is labelled, so that the
// store can be asked about it.
type crowd struct {
	t       *testing.T
	name    string
	client  *purser.Client
	stop    context.CancelFunc
	workers sync.WaitGroup
	settled receipts // of settlements that the client kept

	mu          sync.Mutex
	generations map[string]*generation // that have ended
	moves       int                    // from one reservation to another
	extensions  int                    // generations that were granted more than they asked for at first
	keeps       int                    // settlements that the client had to keep
}

// generation is a stream as the one who runs it knows it.
type generation struct {
	account       string
	input, output int64
	released      bool
	told          int64 // micros, by receipts
	closed        bool  // nobody was told
}

func newCrowd(t *testing.T, name, key string, session bool, addresses ...string) *crowd {
	t.Helper()
	c := &crowd{t: t, name: name, generations: map[string]*generation{}}
	c.client = dial(t, key, func(config *purser.Config) {
		config.Session, config.OnSettled = session, c.settled.add
	}, addresses...)
	return c
}

// start has n generations, at least 2, run at a time until finish, or the end of the test.
func (c *crowd) start(n int) {
	ctx, stop := context.WithCancel(c.t.Context())
	c.stop = stop
	c.t.Cleanup(func() {
		stop()
		c.workers.Wait()
	})
	seed := uint64(time.Now().UnixNano())
	c.t.Logf("%s: seed %d", c.name, seed)
	for worker := range n {
		c.workers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			for i := 0; ctx.Err() == nil; i++ {
				c.generate(ctx, worker, fmt.Sprintf("%s-%d-%d", c.name, worker, i), random)
			}
		})
	}
}

// generate runs one generation. That of the first workers for each payer ends with ctx only: there is
// always a stream to lose its node.
func (c *crowd) generate(ctx context.Context, worker int, id string, random *rand.Rand) {
	accounts := []string{"acme", "globex", "acme-search"}
	g := &generation{account: accounts[random.IntN(len(accounts))], released: random.IntN(15) == 0}
	input, most := random.Int64N(200), 100+random.Int64N(400)
	if worker < 2 {
		g.account, g.released, most = accounts[worker], false, 1_000_000
	}
	h, err := c.client.Gate(ctx, purser.Request{Account: g.account, Features: []string{"chat"}, TTL: 2 * time.Second,
		Labels:    map[string]string{"user": fmt.Sprintf("u%d", random.IntN(5)), "stream": id},
		Estimates: []purser.Estimate{purser.Need("input_tokens", input), purser.Want("output_tokens", 60, 1).UpTo(most)}})
	if err != nil {
		c.refused(ctx, err)
		return
	}
	var receipt purser.Receipt
	if g.released {
		receipt, err = h.Release(ctx)
	} else {
		g.input = input
		c.produce(ctx, h, g, most, random)
		if g.closed = random.IntN(10) == 0; g.closed {
			h.Report(purser.Used("input_tokens", input))
			err = h.Close()
		} else {
			receipt, err = h.Commit(ctx, purser.Used("input_tokens", input))
		}
	}
	failure, ok := errors.AsType[*purser.Error](err)
	kept := ok && failure.Kept
	if err != nil && !kept {
		c.t.Errorf("%s: settle: %v", id, err)
	}
	g.told = receipt.Charged
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generations[id] = g
	if kept {
		c.keeps++
	}
	if h.Granted("output_tokens") > 60 {
		c.extensions++
	}
}

// produce makes output until there is enough of it or ctx ends.
func (c *crowd) produce(ctx context.Context, h *purser.Handle, g *generation, most int64, random *rand.Rand) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for at := h.Reservation().GetReservationId(); g.output < most; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n := min(1+random.Int64N(5), most-g.output)
		g.output += n
		if !h.Add("output_tokens", n) && g.output < most {
			c.t.Errorf("told to stop at %d of %d tokens, though there are credits", g.output, most)
			return
		}
		if now := h.Reservation().GetReservationId(); now != at {
			at = now
			c.mu.Lock()
			c.moves++
			c.mu.Unlock()
		}
	}
}

// refused judges a reservation that was not made: only nodes that are away may be the reason.
func (c *crowd) refused(ctx context.Context, err error) {
	failure, ok := errors.AsType[*purser.Error](err)
	if ctx.Err() == nil && (!ok || failure.Code != codes.Unavailable && failure.Code != codes.DeadlineExceeded) {
		c.t.Errorf("reserve: %v", err)
	}
}

func (c *crowd) ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.generations)
}

func (c *crowd) moved() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moves
}

func (c *crowd) kept() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keeps
}

// await waits until a count has come to want.
func (c *crowd) await(what string, count func(*crowd) int, want int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%s: %d %s", c.name, want, what), func() (bool, any) { return count(c) >= want, count(c) })
}

// finish ends all generations, and the client once it knows what became of each.
func (c *crowd) finish() {
	c.t.Helper()
	c.stop()
	c.workers.Wait()
	closeClient(c.t, c.client)
	c.t.Logf("%s: %d generations, %d of them extended, %d moves to another reservation, %d settlements kept",
		c.name, len(c.generations), c.extensions, c.moves, len(c.settled.all()))
	if c.extensions < streams {
		c.t.Errorf("%s: %d generations were extended, want most of them", c.name, c.extensions)
	}
}

// price is what a generation costs, in micros: the catalogue's prices leave no remainder.
func (g *generation) price() int64 { return g.input*1000 + g.output*3000 }

// check compares what the store has with what was used and with what the client said, and adds to
// cost what each payer has to pay.
func (c *crowd) check(b books, cost map[string]int64) {
	c.t.Helper()
	for _, s := range c.settled.all() {
		id := b.owners[s.ReservationID]
		switch g := c.generations[id]; {
		case s.Err != nil:
			c.t.Errorf("%s: a settlement that was kept was refused: %v", id, s.Err)
		case g != nil:
			g.told += s.Receipt.Charged
		case s.Commit != nil:
			c.t.Errorf("I10: the store has nothing of reservation %s, though its commit was acknowledged", s.ReservationID)
		}
	}
	for id, g := range c.generations {
		cost[payers[g.account]] += g.price()
		got, requests := b.generations[id], int64(1)
		if g.released {
			requests = 0
		}
		if got.charged != g.price() || got.output != g.output || got.requests != requests {
			c.t.Errorf("I5: %s used %d output tokens for %d micros: in the books are %+v", id, g.output, g.price(), got)
		}
		if !g.closed && g.told != g.price() {
			c.t.Errorf("I10: %s cost %d micros, and the client was told of %d", id, g.price(), g.told)
		}
	}
}
