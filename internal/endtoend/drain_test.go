package endtoend

import (
	"syscall"
	"testing"
	"time"
)

// TestDrainUnderLoad sends SIGTERM to a node that is busy: it tells clients that it goes, settles
// what is live, leaves nothing set aside, and exits with 0 (R49).
func TestDrainUnderLoad(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drainUnderLoad(t, store(t))
		})
	}
}

func drainUnderLoad(t *testing.T, store string) {
	n := newNode(t, store).serve()
	s := settings{Addresses: []string{n.address}, Key: n.apply(), Workers: workers, Seed: uint64(time.Now().UnixNano())}
	g := startGateway(t, s)
	g.awaitMore(300)
	n.proc.signal(t, syscall.SIGTERM)
	g.await(t, `told: (SHUTTING_DOWN) not_applied=true\n`)
	if code := n.proc.wait(t); code != 0 {
		t.Errorf("the node ended with %d on SIGTERM:\n%s", code, n.proc.out)
	}
	audited(t, store, true, files(g)...)

	n.serve() // for those that the gateway had to keep, and to see the balance
	g.awaitMore(50)
	g.finish()
	awaitBuried(t, store, 1)
	awaitBalance(t, n, account(t, g))
	n.terminate()
	audited(t, store, true, files(g)...)
}
