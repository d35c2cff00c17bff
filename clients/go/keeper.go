package purser

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultTTL is what the server holds for if a request does not say (see
	// CheckAndReserveRequest.ttl).
	defaultTTL = 30 * time.Second
	// beatsPerTTL leaves two more chances before a hold ends (R35).
	beatsPerTTL = 3
	// keeperWorkers bounds the extensions under way: a node that answers slowly must not hold up
	// the handles of others.
	keeperWorkers = 64
)

// keeper keeps the handles of a client alive. Handles that wait for their next beat cost a
// timer, not a goroutine; workers exist while there is something to do.
type keeper struct {
	client   *Client
	ctx      context.Context
	cancel   context.CancelFunc
	unserved atomic.Bool // the authority knows no Extend
	unnoted  atomic.Bool // nor interim commits

	mu      sync.Mutex
	queue   []*Handle // at most one for each open handle and one for its beat
	workers int
	stopped bool
	ended   sync.WaitGroup
}

func newKeeper(c *Client) *keeper {
	k := &keeper{client: c}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// off reports whether handles are left alone.
func (k *keeper) off() bool { return k.client.cfg.KeepFor < 0 || k.unserved.Load() }

// keeping is a handle's part in being kept. Its fields are guarded by the handle's lock.
type keeping struct {
	timer  *time.Timer // of the next beat
	busy   chan struct{}
	cancel context.CancelFunc // of what is under way
	waited time.Duration      // since the look before
	idle   time.Duration      // since usage was last reported
	seen   int64              // usage of all meters then
}

func (k *keeper) start(h *Handle) {
	if k.off() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep.waited = h.beat()
	h.keep.timer = time.AfterFunc(h.beat(), func() { k.push(h) })
}

// beat is the time between two signs of life.
func (h *Handle) beat() time.Duration {
	if h.request.TTL > 0 {
		return h.request.TTL / beatsPerTTL
	}
	return defaultTTL / beatsPerTTL
}

// push has h looked after soon. It does not block.
func (k *keeper) push(h *Handle) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	k.queue = append(k.queue, h)
	if k.workers < keeperWorkers {
		k.workers++
		k.ended.Go(k.work)
	}
}

func (k *keeper) work() {
	for {
		k.mu.Lock()
		if len(k.queue) == 0 {
			k.workers--
			k.mu.Unlock()
			return
		}
		h := k.queue[0]
		k.queue = k.queue[1:]
		k.mu.Unlock()
		if ctx, ok := h.begin(k.ctx); ok {
			next := k.extend(ctx, h)
			if next.wait > 0 { // a node that does not answer must not hold up the extension
				k.noteUsage(ctx, h)
			}
			h.end(k, next)
		}
	}
}

// stop ends what is under way. Handles that are open expire.
func (k *keeper) stop() {
	k.mu.Lock()
	k.stopped, k.queue = true, nil
	k.mu.Unlock()
	k.cancel()
	k.ended.Wait()
}

// begin reserves the handle for one round; no if there is one already, or it was settled.
func (h *Handle) begin(ctx context.Context) (context.Context, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.settled || h.keep.busy != nil || h.keep.timer == nil {
		return nil, false
	}
	h.asked.Store(true)
	h.keep.busy = make(chan struct{})
	ctx, h.keep.cancel = context.WithCancel(ctx)
	return ctx, true
}

// round says how to go on after looking after a handle.
type round struct {
	wait time.Duration // until the next look; 0 = never again
	// open says that Report may ask for more meanwhile. Behind an answer that it did not come
	// to, it may not: that would be asked for with every token.
	open bool
}

// end closes a round.
func (h *Handle) end(k *keeper, r round) {
	h.mu.Lock()
	h.keep.cancel()
	close(h.keep.busy)
	h.keep.busy = nil
	again := false
	if r.wait > 0 && !h.settled {
		h.keep.waited = r.wait
		h.keep.timer.Reset(r.wait)
		if r.open {
			h.asked.Store(false)
			again = h.needsMore() && h.asked.CompareAndSwap(false, true)
		}
	}
	h.mu.Unlock()
	if again {
		k.push(h)
	}
}

// needsMore reports whether usage has come near what is granted, and more may be had.
func (h *Handle) needsMore() bool {
	if h.final.Load() {
		return false
	}
	for _, m := range h.meters.all() {
		if m.used.Load() >= m.mark.Load() {
			return true
		}
	}
	return false
}

// forgotten adds up the time without a sign of life from the caller: a handle that nobody will
// settle must not hold amounts for ever.
func (h *Handle) forgotten(keepFor time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := h.meters.sum()
	if sum != h.keep.seen {
		h.keep.seen, h.keep.idle = sum, 0
	}
	h.keep.idle += h.keep.waited
	return h.keep.idle > keepFor
}

// endKeeping says that the handle is being settled, and waits until a round under way has
// ended: it is cut short, unless it is committing an earlier reservation.
func (h *Handle) endKeeping() {
	h.mu.Lock()
	h.settled = true
	if h.keep.timer != nil {
		h.keep.timer.Stop()
	}
	busy := h.keep.busy
	if busy != nil {
		h.keep.cancel()
	}
	h.mu.Unlock()
	if busy != nil {
		<-busy
	}
}
