package endtoend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// gatewayEnv holds the settings of a gateway, as JSON, and makes this test binary one.
const gatewayEnv = "PURSER_ENDTOEND_GATEWAY"

// settings are what a gateway is told.
type settings struct {
	Addresses []string
	Key       string
	Workers   int
	Seed      uint64
	// Elsewhere makes it settle at another node than the one that reserved, where there is one.
	Elsewhere bool
	// Intents and Acknowledged are the files it writes.
	Intents, Acknowledged string
	// Open are settlements that an earlier gateway died with: they are sent first.
	Open []intent
}

// intent is a settlement about to be sent.
type intent struct {
	ID      string `json:"reservation_id"`
	Account string `json:"account"`
	Token   []byte `json:"token"`
	Input   int64  `json:"input_tokens"` // of a commit
	Output  int64  `json:"output_tokens"`
	Release bool   `json:"release"`
}

// acknowledgement is an answer, in the form that purser audit --against takes.
type acknowledgement struct {
	ID      string `json:"reservation_id"`
	Account string `json:"account"`
	State   string `json:"state"`
	Charged int64  `json:"charged_micros"`
	Late    bool   `json:"late"`
}

// gateway is a process that reserves and settles until its input ends. What it has not heard of
// by then it goes on asking for.
type gateway struct {
	settings
	client       *purser.Client   // of all nodes
	each         []*purser.Client // one for each address
	intents      *record
	acknowledged *record

	mu       sync.Mutex
	accounts map[string]string // of intents that the client keeps
	wrong    []error
	told     map[string]bool
}

// gatewayMain is a gateway process. Its exit code is 1 if anything happened that may not.
func gatewayMain(text string) int {
	g := &gateway{accounts: map[string]string{}, told: map[string]bool{}}
	if err := g.run(text); err != nil {
		g.fail(err)
	}
	for _, err := range g.wrong {
		fmt.Println("wrong:", err)
	}
	if len(g.wrong) > 0 {
		return 1
	}
	return 0
}

func (g *gateway) run(text string) (err error) {
	if err := json.Unmarshal([]byte(text), &g.settings); err != nil {
		return err
	}
	if g.intents, err = newRecord(g.Intents); err != nil {
		return err
	}
	if g.acknowledged, err = newRecord(g.Acknowledged); err != nil {
		return err
	}
	if err := g.dial(); err != nil {
		return err
	}
	for _, i := range g.Open {
		g.keep(i)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it, or is gone
		stop()
	}()
	var workers sync.WaitGroup
	for n := range g.Workers {
		workers.Go(func() { g.work(ctx, rand.New(rand.NewPCG(g.Seed, uint64(n)))) })
	}
	fmt.Println("gateway is working")
	workers.Wait()
	closing, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return g.client.Close(closing) // names what is unknown even now
}

func (g *gateway) dial() (err error) {
	// Few attempts: what the client keeps and sends again in the background is under test too.
	config := purser.Config{Addresses: g.Addresses, Key: g.Key, NoWait: true, Attempts: 3,
		BackoffMin: 5 * time.Millisecond, BackoffMax: 100 * time.Millisecond, OnSettled: g.settled}
	if g.client, err = purser.Dial(context.Background(), config); err != nil {
		return err
	}
	for _, address := range g.Addresses {
		config.Addresses, config.Attempts = []string{address}, 1
		c, err := purser.Dial(context.Background(), config)
		if err != nil {
			return err
		}
		g.each = append(g.each, c)
	}
	return nil
}

// work is one worker.
func (g *gateway) work(ctx context.Context, random *rand.Rand) {
	accounts := []string{"acme", "acme-search", "globex"}
	for ctx.Err() == nil {
		account := accounts[random.IntN(len(accounts))]
		at := random.IntN(len(g.each))
		client := g.client
		if g.Elsewhere {
			client = g.each[at]
		}
		input, output := int64(random.IntN(300)), int64(random.IntN(400))
		handle, err := client.Gate(ctx, purser.Request{Account: account, Features: []string{"chat"}, TTL: time.Second,
			Estimates: []purser.Estimate{purser.Need("input_tokens", input), purser.Want("output_tokens", output, 0)},
			Labels:    map[string]string{"user": fmt.Sprintf("u%d", random.IntN(5))}})
		if err != nil {
			g.refused(ctx, err)
			continue
		}
		next := intent{ID: handle.Reservation().GetReservationId(), Account: account, Token: handle.Reservation().GetToken(),
			Input: input, Output: random.Int64N(2*output + 1)} // up to twice the hold
		switch dice := random.IntN(100); {
		case dice < 3:
			continue // a worker that vanished: the hold expires
		case dice < 15:
			next.Release, next.Input, next.Output = true, 0, 0
		}
		if err := g.intents.write(next); err != nil {
			g.fail(err)
			return
		}
		if g.Elsewhere {
			g.settleElsewhere(at, next)
		} else {
			g.settle(handle, next)
		}
	}
}

// settle settles as programs do.
func (g *gateway) settle(handle *purser.Handle, i intent) {
	g.mu.Lock()
	g.accounts[i.ID] = i.Account
	g.mu.Unlock()
	var receipt purser.Receipt
	var err error
	if i.Release {
		receipt, err = handle.Release(context.Background())
	} else {
		receipt, err = handle.Commit(context.Background(), i.usage()...)
	}
	switch failure, ok := errors.AsType[*purser.Error](err); {
	case err == nil:
		g.acknowledge(i.ID, i.Account, receipt)
	case !ok || !failure.Kept:
		g.fail(fmt.Errorf("settle %s: %w", i.ID, err))
	}
}

// keep hands a settlement to the client, as programs do that have stored it.
func (g *gateway) keep(i intent) {
	g.mu.Lock()
	g.accounts[i.ID] = i.Account
	g.mu.Unlock()
	p := purser.Pending{ReservationID: i.ID, Account: i.Account, Token: i.Token}
	if !i.Release {
		p.Commit = &purser.Settlement{Usage: i.usage(), Outcome: purserv1.Outcome_OUTCOME_SUCCESS}
	}
	if !g.client.Resend(p) {
		g.fail(fmt.Errorf("settlement %s was not kept", i.ID))
	}
}

// settleElsewhere asks the node that did not reserve first, and then either, until it is told;
// it does not use the client's rules, so that they are not all that is tested.
func (g *gateway) settleElsewhere(reservedAt int, i intent) {
	p := &purserv1.CommitRequest{Token: i.Token, Outcome: purserv1.Outcome_OUTCOME_SUCCESS}
	for _, q := range i.usage() {
		p.Usage = append(p.Usage, &purserv1.MeterQuantity{Meter: q.Meter, Quantity: q.Quantity})
	}
	err := persist(func(ctx context.Context, try int) error {
		api := g.each[(reservedAt+1+try)%len(g.each)].Authority(i.Account)
		if i.Release {
			r, err := api.Release(ctx, &purserv1.ReleaseRequest{Token: i.Token})
			if err == nil {
				g.acknowledge(i.ID, i.Account, purser.Receipt{State: r.GetState()})
			}
			return err
		}
		r, err := api.Commit(ctx, p)
		if err == nil {
			g.acknowledge(i.ID, i.Account, purser.Receipt{State: r.GetState(), Charged: r.GetChargedMicros(), Late: r.GetLate()})
		}
		return err
	})
	if err != nil {
		g.fail(fmt.Errorf("settle %s: %w", i.ID, err))
	}
}

func (i *intent) usage() []purser.Quantity {
	if i.Release {
		return nil
	}
	return []purser.Quantity{purser.Used("input_tokens", i.Input), purser.Used("output_tokens", i.Output)}
}

// settled is told by the client what became of a settlement that it kept.
func (g *gateway) settled(s purser.Settled) {
	g.mu.Lock()
	account := g.accounts[s.ReservationID]
	g.mu.Unlock()
	if s.Err != nil {
		g.fail(fmt.Errorf("settle %s: refused in the end: %w", s.ReservationID, s.Err))
		return
	}
	g.acknowledge(s.ReservationID, account, s.Receipt)
}

// acknowledge records an answer. That a hold had expired before it was released is no promise
// of anything, so it is not recorded.
func (g *gateway) acknowledge(id, account string, r purser.Receipt) {
	state := map[purserv1.ReservationState]string{
		purserv1.ReservationState_RESERVATION_STATE_COMMITTED: "COMMITTED",
		purserv1.ReservationState_RESERVATION_STATE_RELEASED:  "RELEASED",
	}[r.State]
	if state == "" {
		return
	}
	if err := g.acknowledged.write(acknowledgement{id, account, state, r.Charged, r.Late}); err != nil {
		g.fail(err)
	}
}

// refused judges a reservation that was not made: only a node that is away, or says that it
// goes, may be the reason.
func (g *gateway) refused(ctx context.Context, err error) {
	failure, ok := errors.AsType[*purser.Error](err)
	switch {
	case ctx.Err() != nil:
	case ok && (failure.Code == codes.Unavailable || failure.Code == codes.DeadlineExceeded):
		g.tell(failure)
	default:
		g.fail(fmt.Errorf("reserve: %w", err))
	}
}

// tell prints each reason once, and whether it was said to be definite.
func (g *gateway) tell(e *purser.Error) {
	line := fmt.Sprintf("told: %s not_applied=%s", e.Reason, e.Metadata["not_applied"])
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.told[line] {
		g.told[line] = true
		fmt.Println(line)
	}
}

func (g *gateway) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.wrong) < 20 {
		g.wrong = append(g.wrong, err)
	}
}
