package authority

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/purser-io/purser/quota"
)

const (
	lookupBatch   = 64 // accounts in one read
	lookupReaders = 4  // reads at a time
	// loadTimeout bounds a read that requests wait for.
	loadTimeout = 5 * time.Second
)

// lookup is the read of an account that is not in memory. Its answer is there when done is closed.
type lookup struct {
	id    string
	early bool // nobody has asked for it
	done  chan struct{}
	acc   *account // nil without an error: there is none
	err   error
}

// lookups are the reads under way and those that wait for their turn. An account alone is read at
// once; in a crowd it shares a read with those that came meanwhile.
type lookups struct {
	mu      sync.Mutex
	under   map[string]*lookup
	waiting []*lookup
	readers int
}

// join finds or begins the lookup of an account; reader tells that one more reader is to work.
func (l *lookups) join(id string) (found *lookup, reader bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found = l.under[id]; found != nil {
		return found, false
	}
	found = &lookup{id: id, done: make(chan struct{})}
	l.under[id] = found
	l.waiting = append(l.waiting, found)
	if reader = l.readers < lookupReaders; reader {
		l.readers++
	}
	return found, reader
}

// claim begins lookups of those that none is under way for; whoever claims them reads them.
func (l *lookups) claim(ids []string) (batch []*lookup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.under[id] == nil {
			claimed := &lookup{id: id, early: true, done: make(chan struct{})}
			l.under[id] = claimed
			batch = append(batch, claimed)
		}
	}
	return batch
}

// take gives a reader its next batch; none sends it home.
func (l *lookups) take() []*lookup {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), lookupBatch)
	if n == 0 {
		l.readers--
		l.waiting = nil
		return nil
	}
	batch := l.waiting[:n:n]
	l.waiting = l.waiting[n:]
	return batch
}

// end answers those who wait for a lookup.
func (l *lookups) end(ended *lookup) {
	l.mu.Lock()
	delete(l.under, ended.id)
	l.mu.Unlock()
	close(ended.done)
}

// get answers from memory, else by a read that it may share with others. An unknown account is nil
// without an error.
func (c *accounts) get(ctx context.Context, id string) (*account, error) {
	if a, known := c.peek(id); known {
		return a, nil
	}
	l, reader := c.lookups.join(id)
	if reader {
		go c.read()
	}
	select {
	case <-l.done:
		return l.acc, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read reads what waits to be read, until nothing does.
func (c *accounts) read() {
	for batch := c.lookups.take(); len(batch) > 0; batch = c.lookups.take() {
		_ = c.load(context.Background(), batch) // who waits is told
	}
}

// load answers a batch; the error is the store's. A profile that is older than what the poll has
// taken in meanwhile may miss a change whose row was already consumed, and is read again.
func (c *accounts) load(ctx context.Context, batch []*lookup) (err error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	for len(batch) > 0 {
		ids := make([]string, len(batch))
		for i, l := range batch {
			ids[i] = l.id
		}
		var profiles []quota.ProfileResult
		profiles, err = c.store.Profiles(ctx, ids)
		var again []*lookup
		for i, l := range batch {
			r := quota.ProfileResult{Err: err}
			if err == nil {
				r = profiles[i]
			}
			var current bool
			if l.acc, current, l.err = c.take(ctx, l, r); current {
				c.lookups.end(l)
			} else {
				again = append(again, l)
			}
		}
		batch = again
	}
	return err
}

// take keeps what was read of an account; current is false if that is older than what is known.
func (c *accounts) take(ctx context.Context, l *lookup, r quota.ProfileResult) (a *account, current bool, err error) {
	switch {
	case errors.Is(r.Err, quota.ReasonAccountNotFound):
		c.miss(l.id)
		return nil, true, nil
	case r.Err != nil:
		return nil, true, r.Err
	}
	if a, err = newAccount(r.Profile, &c.zones); err == nil {
		err = c.learnPlan(ctx, a)
	}
	if err != nil {
		return nil, true, err
	}
	a.early = l.early
	return a, c.keep(a), nil
}
