package audit

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
)

// comparison tells whether two streams, in whatever order each of them comes, hold the same
// items. It keeps one sum of hashes per lane; the lanes that differ are read again by name.
// The seed is random, so that no content can be made up to cancel out.
type comparison struct {
	seed maphash.Seed
	sums map[quota.LaneID]uint64
}

func newComparison(seed maphash.Seed) comparison {
	return comparison{seed: seed, sums: map[quota.LaneID]uint64{}}
}

func (c *comparison) left(lane quota.LaneID, content []byte) {
	c.sums[lane] += maphash.Bytes(c.seed, content)
}

func (c *comparison) right(lane quota.LaneID, content []byte) {
	c.sums[lane] -= maphash.Bytes(c.seed, content)
}

// differing lists the lanes whose streams are not the same.
func (c *comparison) differing() map[quota.LaneID]bool {
	out := map[quota.LaneID]bool{}
	for lane, sum := range c.sums {
		if sum != 0 {
			out[lane] = true
		}
	}
	return out
}

// encoder writes content so that different values never give the same bytes.
type encoder struct{ b []byte }

func (e *encoder) reset()        { e.b = e.b[:0] }
func (e *encoder) int(v int64)   { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) key(k quota.EntryKey) {
	e.int(int64(k.Lane))
	e.uint(k.Sequence)
	e.uint(uint64(k.Phase))
}

func (e *encoder) entry(n *quota.Entry) []byte {
	e.reset()
	e.key(n.EntryKey)
	e.uint(n.Nonce)
	e.uint(uint64(n.Kind))
	e.uint(n.Digest)
	e.int(n.Charged)
	e.int(n.Held)
	e.int(n.Uncovered)
	e.uint(uint64(len(n.Parts)))
	for _, p := range n.Parts {
		e.uint(uint64(p.Allotment))
		e.int(p.Amount)
	}
	e.int(int64(n.BatchLane))
	e.int(n.BatchNo)
	if n.Used != nil {
		e.usage(n.Used.Usage, n.Used.Lines)
	}
	return e.b
}

func (e *encoder) usage(usage []quota.Quantity, lines []int64) {
	e.uint(uint64(len(usage)))
	for _, q := range usage {
		e.string(q.Meter)
		e.int(q.Quantity)
	}
	e.uint(uint64(len(lines)))
	for _, l := range lines {
		e.int(l)
	}
}

// event encodes what a usage event and the record it was made from have in common.
func (e *encoder) event(u *quota.UsageEvent) []byte {
	e.reset()
	e.key(u.Key)
	e.uint(u.Nonce)
	for _, s := range [...]string{u.Account, u.Payer, u.Principal, u.Feature} {
		e.string(s)
	}
	e.uint(uint64(len(u.Labels)))
	for _, k := range slices.Sorted(maps.Keys(u.Labels)) {
		e.string(k)
		e.string(u.Labels[k])
	}
	e.int(u.PriceVersion)
	e.usage(u.Usage, u.Lines)
	late := int64(0)
	if u.Late {
		late = 1
	}
	for _, v := range [...]int64{u.Charged, u.Covered, u.Uncovered, int64(u.Outcome), late, u.ReservedAt, u.SettledAt} {
		e.int(v)
	}
	return e.b
}

// eventOf is the usage event that a record must lead to, without its grants.
func eventOf(r *quota.Record) quota.UsageEvent {
	return quota.UsageEvent{
		Key: r.EntryKey, Nonce: r.Nonce, Account: r.Account, Payer: r.Payer, Principal: r.Principal, Feature: r.Feature,
		Labels: r.Labels.Map(), PriceVersion: r.PriceVersion, Usage: r.Usage, Lines: r.Lines,
		Charged: r.Charged(), Covered: r.Charged() - r.Uncovered(), Uncovered: r.Uncovered(),
		Outcome: r.Outcome, Late: r.Phase == quota.PhaseLate, ReservedAt: r.ReservedAt, SettledAt: r.SettledAt,
	}
}

func entryText(e *quota.Entry) string {
	return fmt.Sprintf("%s of %d micros, %d of them uncovered, parts %v, nonce %d, in batch %d of lane %d",
		e.Kind, e.Charged, e.Uncovered, e.Parts, e.Nonce, e.BatchNo, e.BatchLane)
}

func eventText(u *quota.UsageEvent) string {
	return fmt.Sprintf("%d micros (%d covered, %d uncovered) for %s of account %s, usage %v at %v, settled at %d",
		u.Charged, u.Covered, u.Uncovered, u.Feature, u.Account, u.Usage, u.Lines, u.SettledAt)
}
