package purser

import (
	"hash/fnv"
	"sort"
)

// rank orders addresses for an account by rendezvous hash, its home first: each address is
// scored with the account, and the highest wins. Every client agrees on it, whatever the order
// of its list, and an address that goes away moves only its own accounts (R27).
func rank(addresses []string, account string) []int {
	scores := make([]uint64, len(addresses))
	order := make([]int, len(addresses))
	for i, address := range addresses {
		scores[i], order[i] = score(address, account), i
	}
	sort.Slice(order, func(a, b int) bool {
		if scores[order[a]] != scores[order[b]] {
			return scores[order[a]] > scores[order[b]]
		}
		return addresses[order[a]] < addresses[order[b]]
	})
	return order
}

// score is FNV-1a of address, a zero byte and account, finished as in SplitMix64: FNV alone
// changes little in its high bits with the last character of an account.
func score(address, account string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(address)) // never fails
	h.Write([]byte{0})
	h.Write([]byte(account))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// from puts one address first and leaves the others in order: a reservation is settled where
// it was made.
func from(order []int, first int) []int {
	out := append(make([]int, 0, len(order)), first)
	for _, i := range order {
		if i != first {
			out = append(out, i)
		}
	}
	return out
}
