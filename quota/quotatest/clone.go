package quotatest

import (
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
)

// Clone makes a second database in the same state, with an oracle of its own that remembers
// the same. Faults injected and writes on their way are not cloned: who clones keeps track of
// them himself.
func (db *DB) Clone() *DB {
	if len(db.zombies) > 0 {
		panic("quotatest: a database with writes on their way cannot be cloned")
	}
	c := *db
	c.Inject = nil
	c.accounts = maps.Clone(db.accounts) // an account is replaced, not changed
	c.pots = make(map[quota.PotRef]*quota.Pot, len(db.pots))
	c.potOrder = make([]*quota.Pot, len(db.potOrder))
	for i, p := range db.potOrder {
		pot := *p
		c.potOrder[i], c.pots[quota.PotRef{Payer: p.Payer, Pot: p.ID}] = &pot, &pot
	}
	c.debts, c.spent, c.claimed = cloneMap(db.debts), cloneMap(db.spent), cloneMap(db.claimed)
	c.incarnations = cloneAll(db.incarnations)
	c.lanes, c.laneOrder = make(map[quota.LaneID]*lane, len(db.lanes)), make([]*lane, len(db.laneOrder))
	for i, l := range db.laneOrder {
		c.laneOrder[i] = l.clone(c.incarnations[l.owner.id])
		c.lanes[l.id] = c.laneOrder[i]
	}
	c.changes, c.events = slices.Clip(db.changes), slices.Clip(db.events)
	c.Oracle = db.Oracle.clone(&c)
	return &c
}

// cloneAll clones a map and what its values point to.
func cloneAll[K comparable, V any](m map[K]*V) map[K]*V {
	if len(m) == 0 {
		return nil
	}
	out := make(map[K]*V, len(m))
	for k, v := range m {
		x := *v
		out[k] = &x
	}
	return out
}

// cloneMap leaves out a map in which nothing is: most are empty most of the time.
func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

// set writes into a map that a clone may have left out.
func set[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

// clone copies what changes of a lane. Batches and entries are never changed once written.
func (l *lane) clone(owner *incarnation) *lane {
	c := *l
	c.owner = owner
	c.batches, c.entries = cloneMap(l.batches), cloneMap(l.entries)
	c.notes, c.numbers = slices.Clone(l.notes), slices.Clip(l.numbers)
	c.interim = cloneMap(l.interim)
	c.allotments = cloneAll(l.allotments)
	return &c
}

func (o *Oracle) clone(db *DB) *Oracle {
	c := *o
	c.db = db
	c.tokens, c.order = make(map[quota.EntryKey]*Issued, len(o.tokens)), make([]*Issued, len(o.order))
	for n, i := range o.order {
		x := *i
		x.Older, x.acks = slices.Clip(i.Older), slices.Clip(i.acks)
		c.order[n], c.tokens[i.Key] = &x, &x
	}
	c.caps, c.suspended = cloneMap(o.caps), cloneMap(o.suspended)
	c.violations = slices.Clone(o.violations)
	return &c
}
