// Package projection turns journal batches into what people and finance read: usage events,
// hourly rollups, spent figures, and claims for what no allotment covered. It is pure; the
// projector in quota/authority reads, calls Build, and applies the result with the cursor.
package projection

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/purser-io/purser/quota"
)

// Refs lists the allotments whose pots Build has to know.
func Refs(batches []quota.Batch) []quota.AllotmentRef {
	set := make(map[quota.AllotmentRef]struct{})
	for i := range batches {
		for j := range batches[i].Records {
			r := &batches[i].Records[j]
			for k := range r.Slots {
				s := &r.Slots[k]
				if s.Anchor != 0 && s.Uncovered > 0 {
					set[quota.AllotmentRef{Lane: r.Lane, Number: s.Anchor}] = struct{}{}
				}
				for _, p := range s.Parts {
					set[quota.AllotmentRef{Lane: r.Lane, Number: quota.AllotmentNo(p.Allotment)}] = struct{}{}
				}
			}
		}
	}
	refs := make([]quota.AllotmentRef, 0, len(set))
	for r := range set {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b quota.AllotmentRef) int {
		return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Number, b.Number))
	})
	return refs
}

type rollupKey struct {
	account        string
	hour           int64
	feature, meter string
}

type claimKey struct {
	payer string
	kind  quota.PotKind
	pot   string
}

// builder sums up; maps are read out in sorted order, so that the same batches always make
// the same projection.
type builder struct {
	pots    map[quota.AllotmentRef]quota.PotRef
	events  []quota.UsageEvent
	rollups map[rollupKey]*quota.Rollup
	claims  map[claimKey]int64
	spent   map[quota.PotRef]int64
}

// Build projects consecutive batches of one lane behind cursor c. pots must know every
// allotment of Refs.
func Build(c quota.Cursor, now int64, batches []quota.Batch, pots map[quota.AllotmentRef]quota.PotRef) *quota.Projection {
	b := &builder{pots: pots, rollups: make(map[rollupKey]*quota.Rollup),
		claims: make(map[claimKey]int64), spent: make(map[quota.PotRef]int64)}
	to := c.No
	for i := range batches {
		for j := range batches[i].Records {
			b.record(&batches[i].Records[j])
		}
		to = batches[i].No
	}
	return &quota.Projection{Lane: c.Lane, From: c.No, To: to, Now: now, Events: b.events,
		Rollups: b.rollupList(), Claims: b.claimList(), Spent: b.spentList()}
}

func (b *builder) record(r *quota.Record) {
	if !r.Used() {
		return
	}
	e := quota.UsageEvent{Key: r.EntryKey, Nonce: r.Nonce, Account: r.Account, Payer: r.Payer, Principal: r.Principal,
		Feature: r.Feature, Labels: r.Labels.Map(), PriceVersion: r.PriceVersion, Usage: r.Usage, Lines: r.Lines,
		Charged: r.Charged(), Uncovered: r.Uncovered(), Outcome: r.Outcome, Late: r.Phase == quota.PhaseLate,
		ReservedAt: r.ReservedAt, SettledAt: r.SettledAt}
	e.Covered = e.Charged - e.Uncovered
	for i := range r.Slots {
		b.slot(r, &r.Slots[i], &e)
	}
	b.events = append(b.events, e)
	b.roll(r)
}

// slot adds what one pot kind was charged: covered parts to the pots of their allotments,
// the rest to claims (R25).
func (b *builder) slot(r *quota.Record, s *quota.Slot, e *quota.UsageEvent) {
	for _, p := range s.Parts {
		ref := b.pots[quota.AllotmentRef{Lane: r.Lane, Number: quota.AllotmentNo(p.Allotment)}]
		b.spent[ref] += p.Amount
		if s.Kind == quota.PotWallet {
			e.Grants = addGrant(e.Grants, strings.TrimPrefix(ref.Pot, quota.GrantPotID("")), p.Amount)
		}
	}
	if s.Uncovered == 0 {
		return
	}
	key := claimKey{payer: r.Payer, kind: s.Kind}
	if s.Kind != quota.PotWallet {
		key.pot = s.Pot
		if s.Anchor != 0 {
			key.pot = b.pots[quota.AllotmentRef{Lane: r.Lane, Number: s.Anchor}].Pot
		}
		b.spent[quota.PotRef{Payer: r.Payer, Pot: key.pot}] += s.Uncovered
	}
	b.claims[key] += s.Uncovered
}

func addGrant(uses []quota.GrantUse, grant string, micros int64) []quota.GrantUse {
	for i := range uses {
		if uses[i].Grant == grant {
			uses[i].Micros += micros
			return uses
		}
	}
	return append(uses, quota.GrantUse{Grant: grant, Micros: micros})
}

func (b *builder) roll(r *quota.Record) {
	hour := r.SettledAt - r.SettledAt%int64(time.Hour)
	for i, u := range r.Usage {
		key := rollupKey{r.Account, hour, r.Feature, u.Meter}
		x, ok := b.rollups[key]
		if !ok {
			x = &quota.Rollup{Account: r.Account, Hour: hour, Feature: r.Feature, Meter: u.Meter}
			b.rollups[key] = x
		}
		x.Quantity += u.Quantity
		x.Micros += r.Lines[i]
		x.Events++
	}
}

func (b *builder) rollupList() []quota.Rollup {
	out := make([]quota.Rollup, 0, len(b.rollups))
	for _, r := range b.rollups {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(x, y quota.Rollup) int {
		return cmp.Or(cmp.Compare(x.Account, y.Account), cmp.Compare(x.Hour, y.Hour),
			cmp.Compare(x.Feature, y.Feature), cmp.Compare(x.Meter, y.Meter))
	})
	return out
}

func (b *builder) claimList() []quota.Claim {
	out := make([]quota.Claim, 0, len(b.claims))
	for k, amount := range b.claims {
		out = append(out, quota.Claim{Payer: k.payer, Kind: k.kind, Pot: k.pot, Amount: amount})
	}
	slices.SortFunc(out, func(x, y quota.Claim) int {
		return cmp.Or(cmp.Compare(x.Payer, y.Payer), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Pot, y.Pot))
	})
	return out
}

func (b *builder) spentList() []quota.SpentDelta {
	out := make([]quota.SpentDelta, 0, len(b.spent))
	for ref, amount := range b.spent {
		out = append(out, quota.SpentDelta{PotRef: ref, Amount: amount})
	}
	slices.SortFunc(out, func(x, y quota.SpentDelta) int {
		return cmp.Or(cmp.Compare(x.Payer, y.Payer), cmp.Compare(x.Pot, y.Pot))
	})
	return out
}
