// Package drive is the client of a benchmark: it makes the calls that a gateway makes, with
// the generated stubs, and as little of its own as it can.
package drive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/cmd/purser/internal/bench/load"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Target is a server with connections to it.
type Target struct {
	conns []*grpc.ClientConn
	api   []purserv1.AuthorityServiceClient
	key   string
}

// Dial connects; the caller closes. address is on loopback.
func Dial(address, key string, connections int) (*Target, error) {
	t := &Target{key: key}
	for range connections {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.conns, t.api = append(t.conns, conn), append(t.api, purserv1.NewAuthorityServiceClient(conn))
	}
	return t, nil
}

// Conn is one of the connections, for the admin API; see Context.
func (t *Target) Conn() grpc.ClientConnInterface { return t.conns[0] }

// Context is ctx with the key in it.
func (t *Target) Context(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.key)
}

// Close closes the connections.
func (t *Target) Close() error {
	var err error
	for _, c := range t.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Work is what is asked for: the same for every account.
type Work struct {
	Feature   string
	Estimates []*purserv1.Estimate
	Usage     []*purserv1.MeterQuantity
	Labels    map[string]string
	TTL       time.Duration
	Keyless   bool // reservations without idempotency keys
}

// request is a CheckAndReserve whose account and key are to be set.
func (w *Work) request() *purserv1.CheckAndReserveRequest {
	return &purserv1.CheckAndReserveRequest{Candidates: []string{w.Feature}, Estimates: w.Estimates, Labels: w.Labels,
		Ttl: durationpb.New(w.TTL)}
}

// Calls makes single calls to a target, for accounts chosen at random, from a number of
// workers. Each worker has its own state.
type Calls struct {
	target   *Target
	work     *Work
	accounts []string
	workers  []worker
}

type worker struct {
	api     purserv1.AuthorityServiceClient
	random  *mathrand.Rand
	reserve *purserv1.CheckAndReserveRequest
	commit  *purserv1.CommitRequest
	keys    keys
	tokens  [][]byte                // of reservations that nobody has settled
	acks    *hdrhistogram.Histogram // how long commits took
	_       [64]byte                // workers do not share cache lines
}

// keys makes idempotency keys that nobody had before.
type keys struct {
	prefix string
	n      uint64
	buf    []byte
	none   bool // there are no keys
}

func (w *Work) newKeys() keys { return keys{prefix: rand.Text()[:16] + "-", none: w.Keyless} }

func (k *keys) next() string {
	if k.none {
		return ""
	}
	k.n++
	k.buf = strconv.AppendUint(append(k.buf[:0], k.prefix...), k.n, 36)
	return string(k.buf)
}

// NewCalls prepares workers.
func NewCalls(t *Target, w *Work, accounts []string, workers int) *Calls {
	c := &Calls{target: t, work: w, accounts: accounts, workers: make([]worker, workers)}
	for i := range c.workers {
		c.workers[i] = worker{api: t.api[i%len(t.api)], random: mathrand.New(mathrand.NewPCG(1, uint64(i))), reserve: w.request(),
			commit: &purserv1.CommitRequest{Usage: w.Usage, Outcome: purserv1.Outcome_OUTCOME_SUCCESS}, keys: w.newKeys(), acks: load.NewHistogram()}
	}
	return c
}

// Workers is how many there are.
func (c *Calls) Workers() int { return len(c.workers) }

// Context has to be that of all calls.
func (c *Calls) Context(ctx context.Context) context.Context { return c.target.Context(ctx) }

// hold reserves.
func (c *Calls) hold(ctx context.Context, w *worker) (*purserv1.CheckAndReserveResponse, error) {
	w.reserve.Account = c.accounts[w.random.IntN(len(c.accounts))]
	w.reserve.IdempotencyKey = w.keys.next()
	return reserve(ctx, w.api, w.reserve)
}

// reserve fails if the answer is no: in a benchmark nobody runs dry.
func reserve(ctx context.Context, api purserv1.AuthorityServiceClient, r *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	a, err := api.CheckAndReserve(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	return a, allowed(a)
}

func allowed(a *purserv1.CheckAndReserveResponse) error {
	if a.GetDecision() != purserv1.Decision_DECISION_ALLOWED {
		return fmt.Errorf("reserve: denied: %s", a.GetDenial())
	}
	return nil
}

// Reserve makes a reservation, to be given back by Release. It is a load.Call.
func (c *Calls) Reserve(ctx context.Context, i int) error {
	w := &c.workers[i]
	a, err := c.hold(ctx, w)
	if err == nil {
		w.tokens = append(w.tokens, a.GetReservation().GetToken())
	}
	return err
}

// Echo makes the call of Reserve where nothing is held. It is a load.Call.
func (c *Calls) Echo(ctx context.Context, i int) error {
	_, err := c.hold(ctx, &c.workers[i])
	return err
}

// Pair reserves and commits. It is a load.Call.
func (c *Calls) Pair(ctx context.Context, i int) error {
	w := &c.workers[i]
	a, err := c.hold(ctx, w)
	if err != nil {
		return err
	}
	w.commit.Token = a.GetReservation().GetToken()
	start := time.Now()
	if _, err := w.api.Commit(ctx, w.commit); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	load.Record(w.acks, time.Since(start))
	return nil
}

// Acks is how long commits took since it was last asked.
func (c *Calls) Acks() *hdrhistogram.Histogram {
	parts := make([]*hdrhistogram.Histogram, len(c.workers))
	for i := range c.workers {
		parts[i], c.workers[i].acks = c.workers[i].acks, load.NewHistogram()
	}
	return load.Merge(parts)
}

// Each makes one reservation of every account, and releases it: what is drawn stays.
func (c *Calls) Each(ctx context.Context) error {
	var next int
	var mu sync.Mutex
	return inParallel(len(c.workers), func(i int) error {
		w := &c.workers[i]
		for {
			mu.Lock()
			n := next
			next++
			mu.Unlock()
			if n >= len(c.accounts) {
				return nil
			}
			w.reserve.Account, w.reserve.IdempotencyKey = c.accounts[n], w.keys.next()
			a, err := reserve(ctx, w.api, w.reserve)
			if err != nil {
				return err
			}
			w.tokens = append(w.tokens, a.GetReservation().GetToken())
		}
	})
}

// releasing is how many releases are in flight: many, for it is not measured.
const releasing = 256

// Release gives back everything that is held, and reports how much that was.
func (c *Calls) Release(ctx context.Context) error {
	var tokens [][]byte
	for i := range c.workers {
		tokens, c.workers[i].tokens = append(tokens, c.workers[i].tokens...), c.workers[i].tokens[:0]
	}
	return c.target.Release(ctx, tokens)
}

// Release settles reservations as not used.
func (t *Target) Release(ctx context.Context, tokens [][]byte) error {
	return inParallel(releasing, func(i int) error {
		for ; i < len(tokens); i += releasing {
			if err := t.release(ctx, t.api[i%len(t.api)], tokens[i]); err != nil {
				return fmt.Errorf("release: %w", err)
			}
		}
		return nil
	})
}

// releaseTries bounds how often a release whose outcome is unknown is sent again: a store that
// has just taken in what a scenario left may be busy for longer than a call waits.
const releaseTries = 20

func (t *Target) release(ctx context.Context, api purserv1.AuthorityServiceClient, token []byte) (err error) {
	for range releaseTries {
		if _, err = api.Release(ctx, &purserv1.ReleaseRequest{Token: token}); status.Code(err) != codes.Unavailable {
			return err
		}
	}
	return err
}

// One makes a single reservation, releases it, and returns the answer.
func (c *Calls) One(ctx context.Context) (*purserv1.CheckAndReserveResponse, error) {
	a, err := c.hold(ctx, &c.workers[0])
	if err != nil {
		return nil, err
	}
	return a, c.target.Release(ctx, [][]byte{a.GetReservation().GetToken()})
}

// RequestBytes is the size of a reserve as it is sent.
func (c *Calls) RequestBytes() int { return proto.Size(c.workers[0].reserve) }

func inParallel(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { errs[i] = fn(i) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one stands for all: they are alike
		}
	}
	return nil
}
