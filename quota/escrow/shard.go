package escrow

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// MaxShards is how many shards may share a lane: the low bits of a sequence tell the shard.
const MaxShards = 1 << shardBits

const shardBits = 4

// ShardOf tells which shard of its lane issued a sequence.
func ShardOf(sequence uint64) int { return int(sequence & (MaxShards - 1)) }

// Config bounds a shard.
type Config struct {
	Grace      int64 // g, ns: how long after its end a hold is recorded as expired (race 8)
	MaxTTL     int64 // M0, ns (R9)
	DryFor     int64 // ns: how long an empty pot is not asked again
	Poll       int64 // ns: how often nodes hear of one another
	IdleReturn int64 // ns without a request after which a pool's free amounts go home
	Room       *Room // of the node, shared by its shards
	// MaxLimiters bounds the counters of rate and concurrency limits.
	MaxLimiters int
}

// Shard keeps the allotments and holds of some payers. It is not safe for concurrent use.
type Shard struct {
	cfg   Config
	lane  quota.LaneID
	index uint64
	live  int // live nodes, for the half rule

	payers map[string]*payer
	pools  map[poolKey]*pool
	order  []*pool // for walks in a fixed order
	byNo   map[quota.AllotmentNo]*allotment

	holds    map[uint64]*hold
	spare    []*hold
	interims map[uint64]*quota.Interim // what holds have used so far, as reported (R23); few are
	sequence uint64
	block    uint32
	random   *rand.ChaCha8
	expiry   wheel[numbers]
	answers  answers

	byLimit     map[LimitKey]*limiter
	limiters    []*limiter // for walks
	limiterWalk int
	spareL      []*limiter
	names       []*[]string // lists of meters that holds share
	nameNext    int

	ahead   []*payer // asked for a draw ahead of need
	scratch []uint64
	ticked  int64
	walk    int
}

// NewShard makes an empty shard number index of lane. seed makes its nonces.
func NewShard(cfg Config, lane quota.LaneID, index int, seed [32]byte, now int64) *Shard {
	return &Shard{
		cfg: cfg, lane: lane, index: uint64(index), live: 1,
		payers: make(map[string]*payer), pools: make(map[poolKey]*pool),
		byNo:  make(map[quota.AllotmentNo]*allotment),
		holds: make(map[uint64]*hold), random: rand.NewChaCha8(seed),
		byLimit: make(map[LimitKey]*limiter),
		expiry:  newWheel[numbers](now, cfg.MaxTTL+cfg.Grace), answers: newAnswers(now, 2*cfg.MaxTTL),
		ticked: now,
	}
}

// Lane is the lane the shard's allotments belong to.
func (s *Shard) Lane() quota.LaneID { return s.lane }

// SetLiveNodes takes in how many nodes share the pots (R28).
func (s *Shard) SetLiveNodes(n int) { s.live = max(n, 1) }

// Holds is the number of live reservations.
func (s *Shard) Holds() int { return len(s.holds) }

// hold is a live reservation.
type hold struct {
	sequence uint64
	nonce    uint64
	reserved int64
	expires  int64
	counter  *atomic.Int64 // live reservations of the principal (R53)
	slots    []slot
	parts    []part // of all slots, in slot order
	settling *Pending
	uses     []use     // of rate and concurrency limits, until it is settled
	who      *identity // shared, never changed

	names      *[]string // meters that were asked for, in that order; shared, never changed
	granted    []int64   // totals granted of them (R35)
	generation uint8     // extensions so far, at most 255
}

// identity is what an EXPIRED record has to say of a reservation.
type identity struct {
	account, payer, principal, feature string
	priceVersion                       int64
}

type slot struct {
	pool      *pool
	unit      string
	parts     uint16 // how many of hold.parts are its
	continues bool   // a later window of the limit that the slot before it is about (R34)
}

type part struct {
	a      *allotment
	amount int64
	used   int64 // of amount, by the settlement under way
}

// newHold takes a hold from the spare ones, or makes one that is no larger than it has to be:
// a million of them have to fit into 600 MiB, garbage included. Most hold one part of each
// pot.
func (s *Shard) newHold(slots, granted int) *hold {
	if n := len(s.spare); n > 0 {
		h := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return h
	}
	if slots == 1 && granted <= 2 {
		var m smallHold
		m.hold.slots, m.hold.parts, m.hold.granted = m.slot[:0], m.part[:0], m.totals[:0]
		return &m.hold
	}
	return &hold{slots: make([]slot, 0, slots), parts: make([]part, 0, slots), granted: make([]int64, 0, granted)}
}

// smallHold is a hold on one pot with what it consists of, in one piece of memory.
type smallHold struct {
	hold
	slot   [1]slot
	part   [1]part
	totals [2]int64
}

// identities is how many of a payer's are remembered: of members, features and keys that take
// turns.
const identities = 8

// identityOf finds an identity among the last ones. Holds of one payer are mostly alike, so
// they share it.
func (p *payer) identityOf(id identity) *identity {
	for i, known := range p.who {
		if *known == id {
			p.who[0], p.who[i] = known, p.who[0]
			return known
		}
	}
	made := id // of its own, so that one that is found is not allocated
	if len(p.who) < identities {
		p.who = append(p.who, &made)
	} else {
		p.who[identities-1] = &made
	}
	return &made
}

// spareMost is how many holds a shard keeps for use again: as many as a few batches settle at once.
const spareMost = 1024

// drop forgets a hold whose amounts have all been placed.
func (s *Shard) drop(h *hold) {
	delete(s.holds, h.sequence)
	if len(s.interims) > 0 {
		delete(s.interims, h.sequence)
	}
	s.cfg.Room.holds.Add(-1)
	if h.counter != nil {
		h.counter.Add(-1)
	}
	slots, parts, granted, uses := h.slots[:0], h.parts[:0], h.granted[:0], h.uses[:0]
	*h = hold{slots: slots, parts: parts, granted: granted, uses: uses}
	if len(s.spare) < spareMost {
		s.spare = append(s.spare, h)
	}
}

// payerOf finds or makes a payer.
func (s *Shard) payerOf(id string) *payer {
	if p, ok := s.payers[id]; ok {
		return p
	}
	p := &payer{id: id}
	p.wallet = s.addPool(p, nil)
	s.payers[id] = p
	return p
}

func (s *Shard) addPool(p *payer, w *quota.WindowPot) *pool {
	pl := &pool{payer: p, window: w}
	s.order = append(s.order, pl)
	p.pools = append(p.pools, pl)
	return pl
}

// poolOf finds or makes the pool of a claim, of the payer whose pool before is: that of the
// claim before it, or the wallet. Requests of one payer mostly claim the same pools in the
// same order, so the one that came next the last time is looked at first.
func (s *Shard) poolOf(before *pool, c *Claim) *pool {
	if c.Kind == quota.PotWallet {
		return before.payer.wallet
	}
	if next := before.next; next != nil && next.isOf(&c.Window) {
		next.window.Cap = c.Window.Cap
		return next
	}
	key := keyOf(&c.Window)
	pl, ok := s.pools[key]
	if !ok {
		w := c.Window
		pl = s.addPool(before.payer, &w)
		s.pools[key] = pl
	}
	pl.window.Cap = c.Window.Cap
	before.next = pl
	return pl
}

// fill writes a hold into a token, with these slots and parts.
func (s *Shard) fill(h *hold, slots []slot, parts []part, t *token.Token) {
	t.Lane, t.Sequence, t.Nonce, t.Generation = int64(s.lane), h.sequence, h.nonce, h.generation
	t.IssuedAt, t.Expires = h.reserved, h.expires
	who := h.who
	t.Account, t.Payer, t.Principal, t.Feature = who.account, who.payer, who.principal, who.feature
	t.PriceVersion = who.priceVersion
	for len(t.Slots) < len(slots) {
		if len(t.Slots) < cap(t.Slots) {
			t.Slots = t.Slots[:len(t.Slots)+1]
		} else {
			t.Slots = append(t.Slots, token.Slot{})
		}
	}
	t.Slots = t.Slots[:len(slots)]
	next := 0
	for i := range slots {
		from, to := &slots[i], &t.Slots[i]
		to.Kind, to.Unit, to.PotID, to.Parts = uint8(from.pool.kind()), from.unit, "", to.Parts[:0]
		to.Continues = from.continues
		for _, p := range parts[next : next+int(from.parts)] {
			to.Parts = append(to.Parts, token.Part{Allotment: uint32(p.a.number), Amount: p.amount})
		}
		if from.parts == 0 && from.pool.window != nil {
			to.PotID = from.pool.window.ID()
		}
		next += int(from.parts)
	}
}

// Totals are what a payer has on this shard: free, held, and the amounts of all its
// allotments, spent or not.
type Totals struct {
	Free, Held, Own int64
}

// Wallet sums a payer's wallet here (R40).
func (s *Shard) Wallet(payer string) Totals {
	p, ok := s.payers[payer]
	if !ok {
		return Totals{}
	}
	return Totals{Free: p.wallet.freeAll(), Held: p.wallet.heldAll(), Own: p.wallet.own}
}

// Stats sums up the shard for metrics: one walk over its pools.
type Stats struct {
	Holds, Pools, Allotments, Keys int
	Limiters                       int   // counters of rate and concurrency limits
	FreeMicros, HeldMicros         int64 // of wallets
	// BurnMicros is what is reserved from wallets, less what comes back, in micros a second,
	// smoothed; EndingMicros the part of it from wallets that end within EndingWithin at that rate.
	BurnMicros, EndingMicros int64
}

// EndingWithin is how soon a wallet must end, in s, to be counted in Stats.EndingMicros.
const EndingWithin = 3600

// Stats sums up the shard.
func (s *Shard) Stats() Stats {
	st := Stats{Holds: len(s.holds), Pools: len(s.order), Allotments: len(s.byNo), Keys: len(s.answers.at), Limiters: len(s.limiters)}
	for _, p := range s.order {
		if p.window == nil {
			st.FreeMicros += p.freeAll()
			st.HeldMicros += p.heldAll()
			st.BurnMicros += p.burn
			if p.endsWithin(EndingWithin) {
				st.EndingMicros += p.burn
			}
		}
	}
	return st
}
