package endtoend

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // looks into PostgreSQL
	_ "modernc.org/sqlite"             // and into SQLite

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/sqlite"

	"github.com/purser-io/purser/internal/testdb"
)

// quick are settings whose promises end within test time.
var quick = []string{"--lease=1s", "--max-hold=2s", "--grace=500ms", "--poll=50ms", "--skew=50ms", "--drain-for=4s"}

const booksBalance = "audit: ok, books balance"

// granted is what each paying account of the catalogue has, in micros.
const granted = 400_000_000_000

// catalogue has two accounts that pay, one of them for a department too, with pots of all kinds: two
// grants, a budget for each user, a quota on requests.
const catalogue = `
features:
  - {id: chat, kind: METERED, meters: [input_tokens, output_tokens]}
rate_cards:
  - id: standard
    effective_time: 2023-01-01T00:00:00Z
    prices:
      - {feature: chat, meter: input_tokens, credits: 1, per: 1000}
      - {feature: chat, meter: output_tokens, credits: 3, per: 1000}
plans:
  - id: pro
    rate_card: standard
    entitlements:
      - feature: chat
        quotas: [{id: requests-hourly, meter: requests, limit: 10000000, window: HOUR}]
accounts:
  - id: acme
    time_zone: UTC
    plan: pro
    grants:
      - {id: acme-welcome, credits: 1000, kind: PROMOTIONAL, priority: 10}
      - {id: acme-annual, credits: 399000, kind: PURCHASED, priority: 100}
    budgets:
      - {id: user-daily, credits: 1000000, window: DAY, label: user}
  - {id: acme-search, parent: acme}
  - id: globex
    time_zone: UTC
    plan: pro
    grants:
      - {id: globex-topup, credits: 400000, kind: PURCHASED, priority: 100}
keys:
  - {principal: gateway, role: GATE}
`

// payers maps the accounts of the catalogue to who pays for them.
var payers = map[string]string{"acme": "acme", "acme-search": "acme", "globex": "globex"}

// stores are the kinds of store there are.
var stores = map[string]func(t *testing.T) string{
	"sqlite":     sqliteStore,
	"postgresql": func(t *testing.T) string { return testdb.PostgreSQL(t) },
}

func sqliteStore(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "purser.db") }

// node is a purser serve on a store, which can be started again at the same address.
type node struct {
	t        *testing.T
	store    string
	address  string
	adminKey string // file
	args     []string
	env      []string // besides that of the test
	proc     *process
}

// newNode prepares a node; it starts nothing.
func newNode(t *testing.T, store string, more ...string) *node {
	t.Helper()
	n := &node{t: t, store: store, address: freeAddress(t), adminKey: filepath.Join(t.TempDir(), "admin.key")}
	n.args = append([]string{"serve", "--store", store, "--listen", n.address, "--http-listen=", "--metrics-listen=",
		"--bootstrap-key-file", n.adminKey, "--log-level=warn"}, quick...)
	n.args = append(n.args, more...)
	return n
}

// freeAddress is a port of loopback that nobody uses. It lies below those the system hands out
// to outgoing connections, or a client that redials a node which is down could take its port.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.N(12_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port was found")
	return ""
}

// serve starts the node and waits until it serves.
func (n *node) serve(more ...string) *node {
	n.t.Helper()
	n.begin(more...)
	n.proc.await(n.t, `serving \S+ on (\S+)\n`)
	return n
}

// begin starts the node.
func (n *node) begin(more ...string) {
	n.t.Helper()
	cmd := command(append(append([]string(nil), n.args...), more...)...)
	cmd.Env = append(cmd.Env, n.env...)
	n.proc = start(n.t, cmd)
}

// kill ends the node without any chance to wind down.
func (n *node) kill() {
	n.t.Helper()
	n.proc.signal(n.t, syscall.SIGKILL)
	n.proc.wait(n.t)
}

// terminate drains the node and checks that it ended well.
func (n *node) terminate() {
	n.t.Helper()
	n.proc.signal(n.t, syscall.SIGTERM)
	if code := n.proc.wait(n.t); code != 0 {
		n.t.Errorf("the node ended with %d on SIGTERM:\n%s", code, n.proc.out)
	}
}

// apply brings the catalogue to the node and returns the secret of the gateway's key.
func (n *node) apply() string {
	n.t.Helper()
	dir := n.t.TempDir()
	file := filepath.Join(dir, "catalog.yaml")
	if err := os.WriteFile(file, []byte(catalogue), 0o600); err != nil {
		n.t.Fatal(err)
	}
	must(n.t, "apply", "-f", file, "--server", n.address, "--key-file", n.adminKey, "--secrets-dir", dir)
	return readFile(n.t, filepath.Join(dir, "gateway.key"))
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// dial connects to nodes with a key; the test closes the client.
func dial(t *testing.T, key string, change func(*purser.Config), addresses ...string) *purser.Client {
	t.Helper()
	config := purser.Config{Addresses: addresses, Key: key}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := purser.Dial(ctx, config)
	if err != nil {
		t.Fatalf("dial %v: %v", addresses, err)
	}
	t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) }) // a second time if the test did
	return c
}

// balance asks the node what an account has.
func (n *node) balance(account string) *purserv1.GetBalanceResponse {
	n.t.Helper()
	c := dial(n.t, readFile(n.t, n.adminKey), nil, n.address)
	defer c.Close(n.t.Context())
	b, err := c.Authority(account).GetBalance(n.t.Context(), &purserv1.GetBalanceRequest{Account: account})
	if err != nil {
		n.t.Fatalf("balance of %s: %v", account, err)
	}
	return b
}

// reader is an open store, for looking only.
type reader interface {
	quota.AuditStore
	io.Closer
}

func openReader(t *testing.T, store string) reader {
	t.Helper()
	var r reader
	var err error
	if path, ok := strings.CutPrefix(store, "sqlite:"); ok {
		r, err = sqlite.Open(t.Context(), sqlite.Options{Path: path, ReadOnly: true})
	} else {
		r, err = cockroach.Open(t.Context(), cockroach.Options{URL: store})
	}
	if err != nil {
		t.Fatalf("open %s: %v", store, err)
	}
	return r
}

// awaitBuried waits until so many incarnations are LIVE, and the lanes of all others are closed:
// what crashes had set aside is home.
func awaitBuried(t *testing.T, store string, live int) {
	t.Helper()
	awaitNodes(t, store, "close the lanes of the dead", func(n nodes) bool { return n.live == live && n.open == 0 })
}

// nodes is what a database says of its nodes.
type nodes struct {
	live int // incarnations
	open int // lanes of the others that are not closed
}

// awaitNodes waits until ok. It looks past the stores: at their isolation level, to look so
// often would disturb the nodes.
func awaitNodes(t *testing.T, store, what string, ok func(nodes) bool) {
	t.Helper()
	driver, name := "pgx", store
	if path, ok := strings.CutPrefix(store, "sqlite:"); ok {
		driver, name = "sqlite", "file:"+path+"?mode=ro"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, what, func() (bool, any) {
		var n nodes
		err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM incarnations WHERE state = 1),
(SELECT count(*) FROM lanes l JOIN incarnations i ON i.id = l.incarnation_id WHERE i.state <> 1 AND l.state <> 3)`).Scan(&n.live, &n.open)
		return err == nil && ok(n), fmt.Sprintf("%d live, %d lanes of others open, %v", n.live, n.open, err)
	})
}

// audited audits the store against what gateways saw acknowledged; quiescent says that every
// node has drained.
func audited(t *testing.T, store string, quiescent bool, against ...string) {
	t.Helper()
	args := []string{"audit", "--store", store}
	if quiescent {
		args = append(args, "--quiescent")
	}
	for _, file := range against {
		args = append(args, "--against", file)
	}
	r := purserCmd(t, args...)
	if r.code != 0 || !strings.Contains(r.output, booksBalance) {
		t.Errorf("audit: exit %d\n%s", r.code, r.output)
	}
}

// pay reserves and commits 400 000 micros.
func pay(t *testing.T, c *purser.Client, account string) {
	t.Helper()
	h := reserve(t, c, account)
	if _, err := h.Commit(t.Context(), purser.Used("input_tokens", 100), purser.Used("output_tokens", 100)); err != nil {
		t.Fatalf("commit: %v", err)
	}
}
