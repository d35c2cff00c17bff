package escrow

import (
	"fmt"
	"strings"
)

// found is what an exploration saw.
type found struct {
	states, moves int
	depth         int      // of the farthest state, in moves from the start
	complete      bool     // every state within the scope was visited
	bad           []string // what is broken in the first bad state; nil if there is none
	path          []move   // the shortest way there
}

// String tells the way to a bad state in words.
func (f *found) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nafter %d of these moves, which are the fewest that lead there:\n", strings.Join(f.bad, "\n"), len(f.path))
	for i, m := range f.path {
		fmt.Fprintf(&b, "%4d. %v\n", i+1, m)
	}
	return b.String()
}

// visited is a state, as the move that led there from the state before it.
type visited struct {
	before int32
	move   move
}

// explore visits every state of a scope, nearest first, until it finds a bad one or has seen
// limit of them (0 = no limit).
//
// Of a state only the fingerprint and the move that led there are kept; to go on from it, it is made
// again by its moves from the start. The fingerprint proves that this and a clone are the same.
func explore(sc *scope, limit int) *found {
	var f found
	var out writer
	root := newSmall(sc)
	states, level := []visited{{before: -1}}, []fingerprint{out.fingerprint(root)}
	seen := map[fingerprint]struct{}{level[0]: {}}
	var moves []move
	for i := 0; i < len(states); i++ {
		if limit > 0 && len(states) > limit {
			f.states = len(states)
			return &f
		}
		path := pathTo(states, i)
		w := replay(root, path)
		self := level[i]
		if out.fingerprint(w) != self {
			panic(fmt.Sprintf("the moves %v lead elsewhere when they are made again", path))
		}
		rests := true
		moves = w.moves(moves[:0])
		for _, m := range moves {
			next := w.clone(m)
			f.moves++
			if bad := next.try(m); bad != nil {
				f.states, f.bad, f.path = len(states), bad, append(path, m)
				return &f
			}
			print := out.fingerprint(next)
			rests = rests && (print == self || m.free())
			if _, known := seen[print]; !known {
				seen[print] = struct{}{}
				states, level = append(states, visited{int32(i), m}), append(level, print)
			}
		}
		if f.depth < len(path) {
			f.depth = len(path)
		}
		if rests {
			if bad := w.checkRest(); bad != nil {
				f.states, f.bad, f.path = len(states), bad, path
				return &f
			}
		}
	}
	f.states, f.complete = len(states), true
	return &f
}

func pathTo(states []visited, i int) []move {
	n := 0
	for at := i; states[at].before >= 0; at = int(states[at].before) {
		n++
	}
	path := make([]move, n, n+1)
	for at := i; states[at].before >= 0; at = int(states[at].before) {
		n--
		path[n] = states[at].move
	}
	return path
}

func replay(root *small, path []move) *small {
	w := root.clone(move{verb: passes})
	for i := range w.nodes {
		w.nodes[i] = root.nodes[i].clone()
	}
	for _, m := range path {
		w.do(m)
	}
	return w
}

// try makes a move and checks what it led to.
func (w *small) try(m move) (bad []string) {
	defer func() { // the core's own checks are invariants as well
		switch v := recover().(type) {
		case nil:
		case Violation:
			bad = []string{v.Error()}
		default:
			panic(v)
		}
	}()
	w.do(m)
	return w.check()
}
