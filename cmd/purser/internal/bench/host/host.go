package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/cmd/purser/internal/bench/echo"
	"github.com/purser-io/purser/cmd/purser/internal/bench/naive"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/storage/relational"
)

// Node is the Purser node of the host.
type Node interface {
	Reserve(ctx context.Context, p *authz.Principal, r *quota.Request, d *quota.Decision) error
	Quiesce(ctx context.Context) error
	Status() authority.Status
}

// Writer runs a transaction; stores over package relational do.
type Writer interface {
	Write(ctx context.Context, fn func(relational.Tx) error) error
}

// Host is what is served beside a node, and who carries out orders.
type Host struct {
	Node    Node
	Store   Writer          // the node's
	Calls   func() int      // of the node to its store, each of them a transaction
	Options *server.Options // the node's
	Naive   *naive.Service  // nil = the node is alone
	Request quota.Request   // to fill the node with

	echo   echo.Service
	inside []*grpc.Server
	group  errgroup.Group
	rows   int64 // inserted

	profiling *os.File // the CPU profile under way
}

// Open serves what the node is compared with on ports of loopback, and puts their addresses
// into r; nothing if the node is alone.
func (h *Host) Open(r *Ready) error {
	if h.Naive == nil {
		return nil
	}
	for _, s := range []struct {
		address *string
		service purserv1.AuthorityServiceServer
		options []grpc.ServerOption
	}{
		{&r.Bare, &h.echo, h.Options.Transport},
		{&r.Chain, &h.echo, h.Options.All()},
		{&r.Naive, h.Naive, h.Options.All()},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		g := grpc.NewServer(s.options...)
		purserv1.RegisterAuthorityServiceServer(g, s.service)
		*s.address = l.Addr().String()
		h.inside = append(h.inside, g)
		h.group.Go(func() error { return g.Serve(l) })
	}
	return nil
}

// Close ends what Open began.
func (h *Host) Close() error {
	for _, g := range h.inside {
		g.Stop()
	}
	return h.group.Wait()
}

// Do carries out an order.
func (h *Host) Do(ctx context.Context, o Order) (r Report, err error) {
	switch o.Do {
	case Usage:
		r.Usage = h.used()
	case Collect:
		runtime.GC() // the second one sweeps what the first freed, and pools forget
		runtime.GC()
		debug.FreeOSMemory()
		r.Usage = h.used()
	case Churn:
		churn()
		r.Usage = h.used()
	case Settle:
		err = h.Node.Quiesce(ctx)
	case Accounts:
		err = h.accounts(ctx, o)
	case Fill:
		err = h.fill(ctx, o)
	case Echo:
		answer := &purserv1.CheckAndReserveResponse{}
		if err = proto.Unmarshal(o.Answer, answer); err == nil {
			h.echo.SetAnswer(answer)
		}
	case Profile:
		err = h.profile(o.Path)
	case Insert:
		r.InsertNanos, err = h.insert(ctx, o.Count)
	default:
		err = errors.New("what is that?")
	}
	return r, err
}

func (h *Host) used() *Used {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status := h.Node.Status()
	return &Used{CPUSeconds: CPU().Seconds(), Transactions: h.Calls(), RSS: rss(), Heap: int64(m.HeapAlloc),
		Reservations: status.Reservations, Accounts: status.Accounts}
}

// insert inserts single rows one after the other.
func (h *Host) insert(ctx context.Context, n int) ([]int64, error) {
	took := make([]int64, 0, n)
	for range n {
		h.rows++
		start := time.Now()
		if err := h.Naive.Books.InsertRow(ctx, h.rows); err != nil {
			return nil, err
		}
		took = append(took, int64(time.Since(start)))
	}
	return took, nil
}

// Copies of a template's rows. The admin API makes one account in three transactions, which
// would take minutes for a hundred thousand.
const (
	copyAccountSQL = `INSERT INTO accounts (id, parent_id, payer_id, display_name, time_zone, status, suspend_reason, epoch, plan_id,
       plan_version, create_time, revision)
SELECT CAST($1 AS TEXT), parent_id, CAST($1 AS TEXT), display_name, time_zone, status, suspend_reason, epoch, plan_id, plan_version, create_time, revision
FROM accounts WHERE id = $2`

	copyBudgetsSQL = `INSERT INTO budgets (account_id, id, unit, cap, window_kind, label_key, label_value, soft, warn_percent,
       create_time, revision)
SELECT CAST($1 AS TEXT), id, unit, cap, window_kind, label_key, label_value, soft, warn_percent, create_time, revision
FROM budgets WHERE account_id = $2`

	copyPotsSQL = `INSERT INTO pots (payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time)
SELECT CAST($1 AS TEXT), pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct, start_time, end_time,
       CAST($1 AS TEXT), limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time
FROM pots WHERE payer_id = $2`

	copyRows = 1000 // in one transaction
)

// balance of a naive account: nobody runs dry.
const balance = int64(1e15)

// accounts copies a template that nobody has used yet.
func (h *Host) accounts(ctx context.Context, o Order) error {
	names := make([]string, o.Count)
	for i := range names {
		names[i] = Name(o.Prefix, i)
	}
	if h.Naive != nil {
		if err := h.Naive.Books.Seed(ctx, names, balance); err != nil {
			return fmt.Errorf("make naive accounts: %w", err)
		}
	}
	for at := 0; at < len(names); at += copyRows {
		var rows [][]any
		for _, name := range names[at:min(at+copyRows, len(names))] {
			rows = append(rows, []any{name, o.Template})
		}
		err := h.Store.Write(ctx, func(tx relational.Tx) error {
			for _, sql := range []string{copyAccountSQL, copyBudgetsSQL, copyPotsSQL} {
				if _, err := tx.Bulk(ctx, sql, rows); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("make accounts: %w", err)
		}
	}
	return nil
}

// Serve carries out orders until in ends.
func (h *Host) Serve(ctx context.Context, in io.Reader, out io.Writer, r Ready) error {
	return Obey(ctx, in, out, r, h.Do)
}
