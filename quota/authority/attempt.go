package authority

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// Progress is how far something came that does not block.
type Progress uint8

// Values of Progress.
const (
	// Done: here is the answer.
	Done Progress = iota
	// Waiting: whoever asked will be called when it has come.
	Waiting
	// Reading: something is not in memory; the matching Prefetch reads it, and blocks.
	Reading
)

// Waker is told, once for each Waiting, that it is time to try again. Wake is called under
// locks: it must not block and not call the authority.
type Waker interface {
	Wake()
}

// Attempt is a CheckAndReserve on its way, for callers that serve many at once. Make one per
// request, and use it by one goroutine at a time.
type Attempt struct {
	Waker Waker

	tries   int
	draw    *draw // that it waits for
	acc     *account
	reading bool // found something missing in this round
	asked   bool // when the payer's credit comes back has been read, or cannot be
}

// Why a round of an attempt ended without an answer. They never leave this package.
var (
	errWaiting = errors.New("waiting for a draw")
	errReading = errors.New("not in memory")
)

// Attempt is Reserve in steps that do not block. After Waiting call it again when the Waker
// was called; after Reading, when PrefetchAccount returned. Reasons as Reserve.
func (a *Authority) Attempt(p *authz.Principal, r *quota.Request, t *Attempt, d *quota.Decision) (Progress, error) {
	resetDecision(d)
	if err := a.resume(t); err != nil {
		return Done, err
	}
	c := calls.Get().(*call)
	c.attempt, c.span = t, trace.SpanContext{} // its stream is traced, not each of its operations
	defer func() {
		c.attempt = nil
		calls.Put(c)
	}()
	err := a.rounds(context.Background(), p, r, c, d)
	switch {
	case errors.Is(err, errWaiting):
		return Waiting, nil
	case errors.Is(err, errReading), err == nil && t.reading:
		t.reading = false
		t.tries++
		return Reading, nil
	case err == nil:
		a.decided(p, r, d)
	}
	return Done, err
}

// resume takes in the outcome of the draw that t waited for.
func (a *Authority) resume(t *Attempt) error {
	w, acc := t.draw, t.acc
	if w == nil {
		return nil
	}
	t.draw, t.acc = nil, nil
	return a.drawn(w, acc)
}

// hang makes t wait for a draw; again if the draw is over already.
func (a *Authority) hang(t *Attempt, w *draw, acc *account) (again bool, err error) {
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	t.draw, t.acc = w, acc
	if w.over() {
		return true, a.resume(t)
	}
	w.hanging = append(w.hanging, t.Waker)
	t.tries++
	return false, errWaiting
}

// over reports whether the draw has ended.
func (w *draw) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// PrefetchAccount reads what a decision on an account needs, so that Attempt finds it in
// memory; it blocks on storage. An error is the answer to the request, and definite.
func (a *Authority) PrefetchAccount(ctx context.Context, id string) error {
	acc, err := a.accounts.get(ctx, id)
	if err != nil || acc == nil {
		return nothingHeld(err)
	}
	_ = a.comesBack(ctx, acc.Payer().ID)
	return nil
}

// profile is an account from memory, or read if the caller may block.
func (a *Authority) profile(ctx context.Context, c *call, id string) (*account, error) {
	if c.attempt == nil {
		return a.accounts.get(ctx, id)
	}
	acc, known := a.accounts.peek(id)
	if !known {
		return nil, errReading
	}
	return acc, nil
}

// mustAsk reports whether an attempt has to have it read first when a payer's credit comes
// back. It asks once: what the store does not say then is not waited for.
func (t *Attempt) mustAsk(a *Authority, payer string) bool {
	now := a.now()
	if t.asked || a.mourning.Load() <= now || a.returns.get(payer, now) != 0 {
		return false
	}
	t.asked, t.reading = true, true
	return true
}
