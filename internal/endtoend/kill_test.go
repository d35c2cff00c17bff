package endtoend

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const (
	workers  = 16
	killings = 4
	// Most and fewest acknowledgements between a start and the next killing.
	leastWork, mostWork = 20, 400
)

// TestKilledNodeKeepsTheBooks kills a node under load, again and again, and a gateway once. What
// was acknowledged is charged, once, and nothing else is (I5, I10).
func TestKilledNodeKeepsTheBooks(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			killAgainAndAgain(t, store(t), rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func killAgainAndAgain(t *testing.T, store string, random *rand.Rand) {
	n := newNode(t, store).serve()
	s := settings{Addresses: []string{n.address}, Key: n.apply(), Workers: workers, Seed: random.Uint64()}
	first := startGateway(t, s)
	gateways := []*gatewayProcess{first}
	current := first
	for k := range killings {
		current.awaitMore(leastWork + random.IntN(mostWork-leastWork))
		n.kill()
		if k == killings/2 { // now nobody knows what the gateway was about to settle but its file
			s.Open, s.Seed = current.crash(), random.Uint64()
			t.Logf("the gateway died with %d settlements open", len(s.Open))
			current = startGateway(t, s)
			gateways = append(gateways, current)
		}
		n.serve()
		availableAtOnce(t, n)
	}
	current.awaitMore(leastWork)
	current.finish()
	charged := account(t, gateways...)
	awaitBuried(t, store, 1)
	awaitBalance(t, n, charged)
	audited(t, store, false, files(gateways...)...) // beside the running node
	n.terminate()
	audited(t, store, true, files(gateways...)...)
}

// availableAtOnce is what the half rule is for: a crash never takes an account down.
func availableAtOnce(t *testing.T, n *node) {
	t.Helper()
	for _, payer := range []string{"acme", "globex"} {
		b := n.balance(payer)
		if b.GetAvailableMicros() < b.GetTotalMicros()/2 {
			t.Errorf("right after the restart %s has %d micros available of %d, want at least half", payer, b.GetAvailableMicros(), b.GetTotalMicros())
		}
	}
}

// awaitBalance waits until wallets show what was charged, to the micro: less would be a lost
// commit, more one charged twice.
func awaitBalance(t *testing.T, n *node, charged map[string]int64) {
	t.Helper()
	for _, payer := range []string{"acme", "globex"} {
		eventually(t, fmt.Sprintf("balance of %s: want %d micros charged and nothing elsewhere", payer, charged[payer]), func() (bool, any) {
			b := n.balance(payer)
			got := granted - b.GetTotalMicros() + b.GetDebtMicros()
			return got == charged[payer] && b.GetElsewhereMicros() == 0, fmt.Sprintf("%d charged, %d elsewhere", got, b.GetElsewhereMicros())
		})
	}
}
