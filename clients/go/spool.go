package purser

import (
	"context"
	"fmt"
	"sync"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Pending is a settlement whose outcome is unknown. It can be stored and handed to
// [Client.Resend] of another process.
type Pending struct {
	ReservationID string
	Account       string
	Token         []byte
	Commit        *Settlement // nil = a release

	order []int
}

// Settled is what became of a settlement that had been kept.
type Settled struct {
	Pending
	Receipt Receipt
	// Err is a refusal: the settlement is not sent any more. Unless [IsUnknown] says that an
	// earlier try may have arrived, it was not charged by this, and will not be.
	Err error
}

// UnsettledError lists settlements still open when a client was closed.
type UnsettledError struct{ Pending []Pending }

// Error implements error.
func (e *UnsettledError) Error() string {
	return fmt.Sprintf("close: the outcome of %d settlements is unknown", len(e.Pending))
}

// spool keeps settlements of unknown outcome, bounded, and sends each again with the same
// token until it is definite. One goroutine sends: after an outage the authority is not to be
// met by all of them at once.
type spool struct {
	client *Client
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	queue   []Pending
	changed chan struct{} // closed and replaced whenever the queue changes
	stopped bool
}

func startSpool(c *Client) *spool {
	ctx, cancel := context.WithCancel(context.Background())
	s := &spool{client: c, cancel: cancel, ended: make(chan struct{}), changed: make(chan struct{})}
	go s.run(ctx)
	return s
}

// Resend takes a settlement left over by another client, such as those of an
// [*UnsettledError]. It reports false if the spool is full or the client is closed.
func (c *Client) Resend(p Pending) bool {
	p.order = rank(c.cfg.Addresses, p.Account)
	return c.spool.put(p)
}

// Unsettled is how many settlements are kept.
func (c *Client) Unsettled() int {
	c.spool.mu.Lock()
	defer c.spool.mu.Unlock()
	return len(c.spool.queue)
}

func (s *spool) put(p Pending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || len(s.queue) >= s.client.cfg.SpoolSize {
		s.client.cfg.Logger.Error("settlement of unknown outcome not kept",
			"reservation", p.ReservationID, "kept", len(s.queue), "stopped", s.stopped)
		return false
	}
	s.queue = append(s.queue, p)
	s.change()
	s.client.cfg.Logger.Warn("settlement of unknown outcome kept", "reservation", p.ReservationID, "kept", len(s.queue))
	return true
}

func (s *spool) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// head waits for the oldest settlement; ok is false when ctx ends.
func (s *spool) head(ctx context.Context) (p Pending, ok bool) {
	for {
		s.mu.Lock()
		changed := s.changed
		if len(s.queue) > 0 {
			p, ok = s.queue[0], true
		}
		s.mu.Unlock()
		if ok {
			return p, ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Pending{}, false
		}
	}
}

// next drops the head when it is done, or moves it to the end: one that no node can answer
// must not hold up the others. The head stays in the queue while it is sent, so that stop
// sees it.
func (s *spool) next(done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.queue[0]
	s.queue = s.queue[1:]
	if !done {
		s.queue = append(s.queue, p)
	}
	s.change()
}

func (s *spool) run(ctx context.Context) {
	defer close(s.ended)
	for failures := 0; ; {
		p, ok := s.head(ctx)
		if !ok {
			return
		}
		receipt, err := s.client.send(ctx, p)
		if err != nil && err.open() {
			failures++
			s.next(false)
			if !pause(ctx, s.client.backoff(failures, err.retryAfter)) {
				return
			}
			continue
		}
		failures = 0
		settled := Settled{Pending: p, Receipt: receipt}
		if err != nil {
			err.Definite = err.ofState() // what was sent before it was kept may have landed
			settled.Err = err
		}
		s.report(settled)
		s.next(true)
	}
}

func (s *spool) report(settled Settled) {
	log := s.client.cfg.Logger.With("reservation", settled.ReservationID)
	if settled.Err != nil {
		log.Error("kept settlement refused", "error", settled.Err)
	} else {
		log.Info("kept settlement settled", "late", settled.Receipt.Late, "replayed", settled.Receipt.Replayed)
	}
	if s.client.cfg.OnSettled != nil {
		s.client.cfg.OnSettled(settled)
	}
}

// stop waits until the queue is empty or ctx ends, ends the goroutine and returns the rest.
func (s *spool) stop(ctx context.Context) []Pending {
	for {
		s.mu.Lock()
		left, changed := len(s.queue), s.changed
		s.stopped = s.stopped || left == 0
		s.mu.Unlock()
		if left == 0 {
			break
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.cancel()
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.queue
}

// send settles with the tries of one call. The error says whether the matter is open still.
func (c *Client) send(ctx context.Context, p Pending) (Receipt, *Error) {
	var receipt Receipt
	op := "release"
	do := func(ctx context.Context, api purserv1.AuthorityServiceClient) error {
		response, err := api.Release(ctx, &purserv1.ReleaseRequest{Token: p.Token})
		receipt = Receipt{State: response.GetState(), Replayed: response.GetReplayed()}
		return err
	}
	if p.Commit != nil {
		op = "commit"
		do = func(ctx context.Context, api purserv1.AuthorityServiceClient) error {
			response, err := api.Commit(ctx, p.commitRequest())
			receipt = fromCommit(response)
			return err
		}
	}
	if _, err := c.call(ctx, op, p.order, do); err != nil {
		return Receipt{}, err
	}
	return receipt, nil
}

func (p *Pending) commitRequest() *purserv1.CommitRequest {
	out := &purserv1.CommitRequest{Token: p.Token, Outcome: p.Commit.Outcome, Labels: p.Commit.Labels, UsageDelivered: p.Commit.UsageDelivered}
	for _, q := range p.Commit.Usage {
		out.Usage = append(out.Usage, &purserv1.MeterQuantity{Meter: q.Meter, Quantity: q.Quantity})
	}
	return out
}

func fromCommit(r *purserv1.CommitResponse) Receipt {
	return Receipt{State: r.GetState(), Charged: r.GetChargedMicros(), Covered: r.GetCoveredMicros(),
		Overage: r.GetOverageMicros(), Uncovered: r.GetUncoveredMicros(), Late: r.GetLate(), Replayed: r.GetReplayed()}
}
