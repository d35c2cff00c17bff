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
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

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
	// Intents, Acknowledged and Abandoned are the files it writes.
	Intents, Acknowledged, Abandoned string
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
	Stream  bool   `json:"stream"` // part of it was reported before
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
	abandoned    *record // reservations that nobody settles, with the price of what was reported

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
	if g.abandoned, err = newRecord(g.Abandoned); err != nil {
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
		i := intent{Account: accounts[random.IntN(len(accounts))], Input: int64(random.IntN(300)), Output: int64(random.IntN(400))}
		if g.Elsewhere {
			g.generateElsewhere(ctx, i, random)
		} else {
			g.generate(ctx, i, random)
		}
	}
}

// generate reserves for i and settles, as programs do.
func (g *gateway) generate(ctx context.Context, i intent, random *rand.Rand) {
	handle, err := g.client.Gate(ctx, purser.Request{Account: i.Account, Features: []string{"chat"}, TTL: time.Second,
		Estimates: []purser.Estimate{purser.Need("input_tokens", i.Input), purser.Want("output_tokens", i.Output, 0)},
		Labels:    map[string]string{"user": fmt.Sprintf("u%d", random.IntN(5))}})
	if err != nil {
		g.refused(ctx, err)
		return
	}
	i.ID, i.Token = handle.Reservation().GetReservationId(), handle.Reservation().GetToken()
	if i.ends(random) && g.intend(i) {
		g.settle(handle, i)
	}
}

// ends decides how a generation ends: with a commit of up to twice what was held, or with a
// release. It is false if its worker vanishes, and the hold expires.
func (i *intent) ends(random *rand.Rand) bool {
	i.Output = random.Int64N(2*i.Output + 1)
	dice := random.IntN(100)
	if dice < 15 {
		i.Release, i.Input, i.Output = true, 0, 0
	}
	return dice >= 3
}

// intend writes down what is about to be sent.
func (g *gateway) intend(i intent) bool {
	err := g.intents.write(i)
	if err != nil {
		g.fail(err)
	}
	return err == nil
}

// generateElsewhere reserves for i at some node and settles at another. It does not use the
// client's rules, so that they are not all that is tested. Some generations are streams.
func (g *gateway) generateElsewhere(ctx context.Context, i intent, random *rand.Rand) {
	at := random.IntN(len(g.each))
	attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	api := g.each[at].Authority(i.Account)
	r, err := api.CheckAndReserve(attempt, &purserv1.CheckAndReserveRequest{Account: i.Account, Candidates: []string{"chat"},
		Ttl: durationpb.New(time.Second), Estimates: i.estimates(), Labels: map[string]string{"user": fmt.Sprintf("u%d", random.IntN(5))}})
	if err != nil {
		g.away(ctx, fmt.Errorf("reserve: %w", err), status.Code(err))
		return
	}
	if r.GetReservation() == nil {
		g.fail(fmt.Errorf("reserve: denied: %v", r.GetDenial()))
		return
	}
	i.ID, i.Token = r.GetReservation().GetReservationId(), r.GetReservation().GetToken()
	if random.IntN(4) == 0 {
		g.stream(attempt, api, at, i, random)
	} else if i.ends(random) && g.intend(i) {
		g.settleElsewhere(at, i)
	}
}

// stream is a generation that is extended, reported on as it goes, and in the end settled or
// abandoned. Then what was reported is charged (R23).
func (g *gateway) stream(ctx context.Context, api purserv1.AuthorityServiceClient, at int, i intent, random *rand.Rand) {
	i.Stream, i.Output = true, 2*i.Output
	if r, err := api.Extend(ctx, &purserv1.ExtendRequest{Token: i.Token, Estimates: i.estimates()}); err == nil && r.GetReservation() != nil {
		i.Token = r.GetReservation().GetToken()
	}
	if !g.intend(i) {
		return
	}
	part := i
	part.Output /= 2
	interim := part.request()
	interim.Final = new(bool)
	r, err := api.Commit(ctx, interim)
	reported := err == nil && r.GetState() == purserv1.ReservationState_RESERVATION_STATE_HELD
	if !reported || random.IntN(3) > 0 {
		g.settleElsewhere(at, i)
		return
	}
	if err := g.abandoned.write(acknowledgement{ID: i.ID, Account: i.Account, Charged: part.price()}); err != nil {
		g.fail(err)
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

// settleElsewhere asks a node that did not reserve first, and then any, until it is told.
func (g *gateway) settleElsewhere(reservedAt int, i intent) {
	p := i.request()
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

func (i *intent) estimates() []*purserv1.Estimate {
	return []*purserv1.Estimate{{Meter: "input_tokens", Quantity: i.Input}, {Meter: "output_tokens", Quantity: i.Output}}
}

// request is the commit of it.
func (i *intent) request() *purserv1.CommitRequest {
	p := &purserv1.CommitRequest{Token: i.Token, Outcome: purserv1.Outcome_OUTCOME_SUCCESS}
	for _, q := range i.usage() {
		p.Usage = append(p.Usage, &purserv1.MeterQuantity{Meter: q.Meter, Quantity: q.Quantity})
	}
	return p
}

// price is what its usage costs, in micros.
func (i *intent) price() int64 { return 1000*i.Input + 3000*i.Output }

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
	code := codes.Unknown
	if ok {
		code = failure.Code
	}
	if g.away(ctx, fmt.Errorf("reserve: %w", err), code) && ok {
		g.tell(failure)
	}
}

// away reports whether an error says that a node is away; any other is one too many, unless the
// gateway is about to end.
func (g *gateway) away(ctx context.Context, err error, code codes.Code) bool {
	away := code == codes.Unavailable || code == codes.DeadlineExceeded
	if !away && ctx.Err() == nil {
		g.fail(err)
	}
	return away
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
