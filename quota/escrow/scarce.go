package escrow

import "github.com/purser-io/purser/quota"

// A pot that several nodes draw from becomes scarce in the end: what is free at one of them is
// then what another denies for. A scarce pot is drawn from only as needed, and what is free of
// it beyond what is used until the next poll goes home. Who finds a pot scarce wishes for it,
// and the other nodes read that with their next poll (protocol §3.2, recall). A wish that gets
// lost costs time, nothing else: giving back is always safe (I1, R19).

const (
	scarceFor = int64(3e9) // ns that a pot stays scarce after it was last found so
	wishFor   = 2          // polls for which a wish stands, so that nobody misses it
	// A pot is scarce if all who draw from it use up what it has left within so many polls.
	scarcePolls = 4
)

// scarce reports whether what is free here is wanted elsewhere.
func (p *pool) scarce(now int64) bool { return now < p.scarceUntil }

// sharers is how many nodes draw from the pot, as far as this one sees: all, or it alone.
func (p *pool) sharers(live int) int64 {
	if p.elsewhere() == 0 {
		return 1
	}
	return int64(live)
}

// usedIn is what is used here in so many ns at the present rate.
func (p *pool) usedIn(ns int64) int64 { return satMul(p.burn, ns/1e6) / 1000 }

// look finds out after a draw whether the pot is scarce. short says that the draw brought less
// than would do for those who wait.
func (s *Shard) look(now int64, p *pool, short bool) bool {
	n := p.sharers(s.live)
	few := satMul(max(p.floor(0), p.usedIn(scarcePolls*s.cfg.Poll)), n)
	if n == 1 || !short && p.left() >= few { // alone: nobody has anything to give back
		return false
	}
	p.scarceUntil, p.wishUntil = now+scarceFor, now+wishFor*s.cfg.Poll
	return true
}

// ref names the pool's pot; the wallet is "".
func (p *pool) ref() quota.PotRef {
	if p.window == nil {
		return quota.PotRef{Payer: p.payer.id}
	}
	return quota.PotRef{Payer: p.payer.id, Pot: p.window.ID()}
}

// Wishes appends the pots that were found scarce here, up to most in all.
func (s *Shard) Wishes(now int64, dst []quota.PotRef, most int) []quota.PotRef {
	for _, p := range s.order {
		if now < p.wishUntil && len(dst) < most {
			dst = append(dst, p.ref())
		}
	}
	return dst
}

// Wished takes in that another node found a pot scarce; it reports whether something of it is
// free here.
func (s *Shard) Wished(now int64, pot quota.PotRef) bool {
	payer, ok := s.payers[pot.Payer]
	if !ok {
		return false
	}
	for _, p := range payer.pools {
		if p.ref() == pot {
			p.scarceUntil = now + scarceFor
			return p.freeAll() > 0
		}
	}
	return false
}
