package authority

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestChangesGoDownTheTree: whatever is read, changed and forgotten, in any order, a change marks
// exactly the accounts in memory that it touches, leaves none of them there, and keeps the bound.
func TestChangesGoDownTheTree(t *testing.T) {
	const bound = 12
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := newAccounts(nil, nil, bound)
		revision := int64(0)
		for range 100 {
			switch a := treeAccount(random.IntN(40), revision); random.IntN(4) {
			case 0:
				revision++
				changed := map[string]bool{}
				for range random.IntN(3) {
					changed[a.Chain[random.IntN(len(a.Chain))].ID] = true
				}
				all := random.IntN(20) == 0
				before := maps.Clone(c.known)
				_, again := c.apply(revision, changed, all)
				for id, k := range before {
					touched := all
					for i := range k.Chain {
						touched = touched || changed[k.Chain[i].ID]
					}
					marked, here, listed := k.stale.Load(), c.known[id] == k, slices.Contains(again, id)
					if marked != touched || here == touched || touched && !listed {
						t.Fatalf("seed %d: %s touched %t, marked %t, in memory %t, to be read %t", seed, id, touched, marked, here, listed)
					}
				}
			case 1:
				if known := c.known[a.Account().ID]; known != nil {
					c.drop(known)
				}
			default:
				c.keep(a)
			}
			below := 0
			for _, a := range c.known {
				below += len(a.Chain) - 1
			}
			for _, under := range c.below {
				below -= len(under)
				if len(under) == 0 {
					t.Fatalf("seed %d: an empty set is kept", seed)
				}
			}
			if below != 0 || len(c.known) > bound {
				t.Fatalf("seed %d: %d in memory, of at most %d; %d above them missing", seed, len(c.known), bound, below)
			}
		}
	}
}

// treeAccount is the i-th account of a tree: its parent is the one of half its number.
func treeAccount(i int, revision int64) *account {
	p := &quota.Profile{Revision: revision}
	for ; i > 0; i /= 2 {
		p.Chain = append(p.Chain, quota.Account{ID: fmt.Sprint(i)})
	}
	return &account{Profile: &quota.Profile{Revision: revision, Chain: append(p.Chain, quota.Account{ID: "root"})}}
}
