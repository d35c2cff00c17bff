package endtoend

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testdb"
)

// TestClusterSurvives has three nodes on one database under load, and everything happen to them
// that ends, stops or cuts off a process. In the end all that was acknowledged is charged, once,
// and nothing else is (I5, I10), and everything that was set aside is home (I15). By default each
// thing happens once; TEST_CLUSTER=10m goes on for so long.
//
// It does not run beside the other tests here: it is work enough for two cores.
func TestClusterSurvives(t *testing.T) {
	t.Run("postgresql", func(t *testing.T) {
		server := testdb.NewServer(t)
		// Or a crash would lose what was acknowledged last.
		survive(t, server.Database(t)+"&synchronous_commit=on", server)
	})
	if u, ok := testdb.Cockroach(t); ok {
		t.Run("cockroach", func(t *testing.T) { survive(t, u, nil) })
	} else {
		t.Log("TEST_COCKROACH_URL is not set: the cluster ran on PostgreSQL only")
	}
}

// cluster is nodes on one database, with gateways at work.
type cluster struct {
	t        *testing.T
	store    string
	server   *testdb.Server // of the database; nil = not ours to stop
	nodes    []*node
	gateways []*gatewayProcess
	probe    *purser.Client // of all nodes, for looking how service is
	random   *rand.Rand
	charged  map[string]int64 // by the probe
}

// trouble is what may happen to a cluster.
type trouble struct {
	name string
	of   func(c *cluster, n *node)
	// database says that the database itself is meant, which has to be ours.
	database bool
}

var troubles = []trouble{
	{name: "a node is killed", of: (*cluster).kill},
	{name: "a node is stopped for longer than its lease", of: (*cluster).pause},
	{name: "a node is drained", of: (*cluster).drain},
	{name: "a node dies as it starts, again and again", of: (*cluster).restarts},
	{name: "the database restarts", of: (*cluster).databaseRestarts, database: true},
	{name: "the database crashes", of: (*cluster).databaseCrashes, database: true},
	{name: "the database is away for longer than a lease", of: (*cluster).databaseAway, database: true},
}

// calm are settings at which three nodes leave two cores some time for work.
var calm = []string{"--lease=2s", "--poll=250ms", "--skew=100ms"}

func survive(t *testing.T, store string, server *testdb.Server) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &cluster{t: t, store: store, server: server, random: rand.New(rand.NewPCG(seed, 0)), charged: map[string]int64{}}
	var addresses []string
	for range 3 {
		n := newNode(t, store, calm...).serve()
		c.nodes, addresses = append(c.nodes, n), append(addresses, n.address)
	}
	key := c.nodes[0].apply()
	c.probe = dial(t, key, func(c *purser.Config) { c.BackoffMin, c.BackoffMax = 5*time.Millisecond, 50*time.Millisecond }, addresses...)
	for _, elsewhere := range []bool{false, true} {
		c.gateways = append(c.gateways, startGateway(t, settings{Addresses: addresses, Key: key, Workers: workers / 4, Seed: c.random.Uint64(), Elsewhere: elsewhere}))
	}
	c.progress()
	for _, i := range c.random.Perm(len(troubles)) {
		c.suffer(troubles[i])
	}
	if text := os.Getenv("TEST_CLUSTER"); text != "" {
		long, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < long; {
			c.suffer(troubles[c.random.IntN(len(troubles))])
		}
	}
	c.settle()
}

// suffer has something happen to one of the nodes, and waits until all is well again.
func (c *cluster) suffer(what trouble) {
	if what.database && c.server == nil {
		return
	}
	c.t.Log(what.name)
	what.of(c, c.nodes[c.random.IntN(len(c.nodes))])
	awaitNodes(c.t, c.store, "have all nodes back", func(n nodes) bool { return n.live == len(c.nodes) })
	c.progress()
}

// progress waits until every gateway has got on.
func (c *cluster) progress() {
	for _, g := range c.gateways {
		g.awaitMore(50)
	}
}

// served reserves and commits for every account, and says how long that took: as long as some
// account is not served, at most.
func (c *cluster) served(after string) {
	c.t.Helper()
	began := time.Now()
	for account, payer := range payers {
		h := reserve(c.t, c.probe, account)
		eventually(c.t, "commit for "+account, func() (bool, any) {
			r, err := h.Commit(c.t.Context(), purser.Used("input_tokens", 10))
			if err == nil {
				c.charged[payer] += r.Charged
			}
			return err == nil, err
		})
	}
	c.t.Logf("%s every account was served within %v", after, time.Since(began).Round(time.Millisecond))
}

func (c *cluster) kill(n *node) {
	n.kill()
	began := time.Now()
	c.served("after a kill")
	awaitBuried(c.t, c.store, len(c.nodes)-1)
	c.t.Logf("what a killed node had set aside was home after %v", time.Since(began).Round(time.Millisecond))
	n.serve()
}

func (c *cluster) pause(n *node) {
	n.proc.signal(c.t, syscall.SIGSTOP)
	c.served("with a node stopped")
	awaitNodes(c.t, c.store, "declare it dead", func(n nodes) bool { return n.live == len(c.nodes)-1 })
	n.proc.signal(c.t, syscall.SIGCONT)
}

func (c *cluster) drain(n *node) {
	began := time.Now()
	n.terminate()
	c.t.Logf("a drain took %v", time.Since(began).Round(time.Millisecond))
	c.served("after a drain")
	n.serve()
}

func (c *cluster) restarts(n *node) {
	n.kill()
	for range 5 {
		n.begin()
		select {
		case <-n.proc.done:
			c.t.Fatalf("the node ended by itself:\n%s", n.proc.out)
		case <-time.After(time.Duration(c.random.IntN(400)) * time.Millisecond):
		}
		n.kill()
	}
	n.serve()
	awaitBuried(c.t, c.store, len(c.nodes))
}

func (c *cluster) databaseRestarts(*node) {
	c.server.Restart(c.t)
	c.served("after the database restarted")
}

func (c *cluster) databaseCrashes(*node) {
	c.server.Crash(c.t)
	c.server.Start(c.t)
	c.served("after the database crashed")
}

// databaseAway is R30: nodes that nobody could bury are not dead when the database is back, and
// those that were blind bury nobody.
func (c *cluster) databaseAway(*node) {
	c.server.Stop(c.t)
	eventually(c.t, "stop issuing", func() (bool, any) {
		h, err := c.probe.Gate(c.t.Context(), hundred("acme"))
		if err == nil {
			return false, h.Close()
		}
		failure, ok := err.(*purser.Error)
		return ok && failure.Code == codes.Unavailable && failure.Reason == "STORE_UNAVAILABLE", err
	})
	c.server.Start(c.t)
	c.served("after the database was away")
}

// settle ends the gateways, then the nodes, and looks at the books.
func (c *cluster) settle() {
	for _, g := range c.gateways {
		g.finish()
	}
	charged := account(c.t, c.gateways...)
	for payer, micros := range c.charged {
		charged[payer] += micros
	}
	closeClient(c.t, c.probe)
	for _, n := range c.nodes[1:] {
		n.terminate()
	}
	awaitBuried(c.t, c.store, 1)
	audited(c.t, c.store, false, files(c.gateways...)...) // beside the running node
	awaitBalance(c.t, c.nodes[0], charged)
	c.nodes[0].terminate()
	audited(c.t, c.store, true, files(c.gateways...)...)
}
