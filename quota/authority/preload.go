package authority

import (
	"context"
	"sync"

	"github.com/purser-io/purser/quota"
)

// preload is what is still to be read before anybody asks for it, so that the first request of an
// account costs its draw and nothing else: every account when a node begins, as far as there is
// room, and afterwards those that changed.
type preload struct {
	mu      sync.Mutex
	wake    chan struct{}
	changed map[string]bool
	every   bool   // every account behind after, in the order of their ids
	after   string // the last one that was read
}

func newPreload() preload {
	return preload{wake: make(chan struct{}, 1), changed: make(map[string]bool)}
}

// add has accounts read: those that changed, or every one. It remembers no more than most.
func (p *preload) add(changed []string, every bool, most int) {
	if len(changed) == 0 && !every {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range changed {
		p.changed[id] = true
	}
	if every || len(p.changed) > most {
		p.every, p.after = true, ""
		clear(p.changed)
	}
	nudge(p.wake)
}

// take gives some of those that changed.
func (p *preload) take(most int) (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.changed {
		if len(ids) == most {
			break
		}
		ids = append(ids, id)
		delete(p.changed, id)
	}
	return ids
}

// place is where the walk over every account is; walking is false if there is none.
func (p *preload) place() (after string, walking bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after, p.every
}

// move has the walk go on behind an account, or ends it with "", unless it began anew meanwhile.
func (p *preload) move(from, to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.after == from {
		p.after, p.every = to, to != ""
	}
}

// drop forgets all that is to be read: there is no room for more.
func (p *preload) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.changed)
	p.every = false
}

// preloadLoop reads what the poll leaves to be read, half of the time at most: requests come first.
func (a *Authority) preloadLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.preload.wake:
		}
		for {
			began := a.deps.Clock.Now()
			more, err := a.preloadSome(ctx)
			pause := a.deps.Clock.Now().Sub(began)
			if err != nil {
				pause = max(pause, a.cfg.Poll) // whoever is asked for meanwhile is read then
			}
			if !sleep(ctx, pause) {
				return nil
			}
			if !more {
				break
			}
		}
	}
}

// preloadSome reads a batch; more is false when nothing is left.
func (a *Authority) preloadSome(ctx context.Context) (more bool, err error) {
	room := min(a.accounts.room(), lookupBatch)
	if room == 0 {
		a.preload.drop()
		return false, nil
	}
	if ids := a.preload.take(room); len(ids) > 0 {
		if err = a.accounts.ahead(ctx, ids); err != nil {
			a.preload.add(ids, false, a.cfg.MaxAccounts)
		}
		return true, err
	}
	after, walking := a.preload.place()
	if !walking {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	page, err := a.deps.Store.ListAccounts(ctx, quota.Page{After: after, Size: room})
	if err != nil {
		return true, err
	}
	ids, last := make([]string, len(page)), ""
	for i := range page {
		ids[i], last = page[i].ID, page[i].ID
	}
	if err = a.accounts.ahead(ctx, ids); err == nil {
		a.preload.move(after, last)
	}
	return true, err
}

// ahead reads accounts that are not in memory; who asks for one of them meanwhile shares the read.
func (c *accounts) ahead(ctx context.Context, ids []string) error {
	return c.load(ctx, c.lookups.claim(c.missing(ids)))
}

// missing are those of ids that are not in memory.
func (c *accounts) missing(ids []string) (missing []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, id := range ids {
		if c.known[id] == nil {
			missing = append(missing, id)
		}
	}
	return missing
}

// room is for how many more accounts there is place.
func (c *accounts) room() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bound - len(c.known)
}
