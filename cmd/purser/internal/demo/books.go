package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Books is what the authority says of some accounts, as usage reporting and wallets show it.
type Books struct {
	Rollups int64            // micros charged, over all hours
	Wallets map[string]int64 // total less debt of each payer, in micros
}

// Reader asks an authority for its books. Its connection needs an admin's key: it reads what
// gates and viewers may.
type Reader struct {
	usage     purserv1.UsageServiceClient
	authority purserv1.AuthorityServiceClient
	accounts  []string
}

// NewReader reads the books of accounts.
func NewReader(conn grpc.ClientConnInterface, accounts []string) *Reader {
	return &Reader{purserv1.NewUsageServiceClient(conn), purserv1.NewAuthorityServiceClient(conn), accounts}
}

// Read takes the books as they stand.
func (r *Reader) Read(ctx context.Context) (Books, error) {
	b := Books{Wallets: map[string]int64{}}
	for _, account := range r.accounts {
		charged, err := r.rollups(ctx, account)
		if err != nil {
			return b, err
		}
		b.Rollups += charged
		balance, err := r.authority.GetBalance(ctx, &purserv1.GetBalanceRequest{Account: account})
		if err != nil {
			return b, fmt.Errorf("balance of %s: %w", account, err)
		}
		b.Wallets[balance.GetPayer()] = balance.GetTotalMicros() - balance.GetDebtMicros()
	}
	return b, nil
}

func (r *Reader) rollups(ctx context.Context, account string) (sum int64, err error) {
	for token := ""; ; {
		page, err := r.usage.GetRollups(ctx, &purserv1.GetRollupsRequest{Account: account, PageSize: pageSize, PageToken: token})
		if err != nil {
			return 0, fmt.Errorf("rollups of %s: %w", account, err)
		}
		for _, row := range page.GetRollups() {
			sum += row.GetChargedMicros()
		}
		if token = page.GetNextPageToken(); token == "" {
			return sum, nil
		}
	}
}

// pageSize is the most that a page may have.
const pageSize = 1000

// Comparison is the client's own record against the authority's books.
type Comparison struct {
	Client   int64    `json:"client_micros"`       // what the client added up
	Events   int64    `json:"usage_events_micros"` // what the usage events of the run say
	Rollups  int64    `json:"rollups_micros"`      // by how much the rollups grew
	Wallets  int64    `json:"wallets_micros"`      // by how much the wallets shrank
	Commits  int      `json:"commits"`             // of the client
	Found    int      `json:"usage_events"`        // of the run
	Findings []string `json:"findings,omitempty"`  // what does not agree
}

// Compare holds the ledger of a run against the authority: each settlement against its usage
// event, the sum against rollups and wallets, all to the micro. before is the books before
// the run; since is a time before it.
func (r *Reader) Compare(ctx context.Context, l *Ledger, run string, before Books, since time.Time) (*Comparison, error) {
	c := &Comparison{}
	c.Client, c.Commits = l.Charged()
	if n := l.unsettled(); n > 0 {
		c.findf("the outcome of %d settlements is unknown", n)
	}
	for _, err := range l.refused {
		c.findf("a settlement of unknown outcome was refused in the end: %v", err)
	}
	if err := r.compareEvents(ctx, c, l, run, since); err != nil {
		return nil, err
	}
	after, err := r.Read(ctx)
	if err != nil {
		return nil, err
	}
	c.Rollups = after.Rollups - before.Rollups
	for payer, total := range before.Wallets {
		c.Wallets += total - after.Wallets[payer]
	}
	for _, x := range []struct {
		what string
		sum  int64
	}{{"the usage events", c.Events}, {"the rollups", c.Rollups}, {"the wallets", c.Wallets}} {
		if x.sum != c.Client {
			c.findf("the client was told charges of %d micros, %s say %d: %+d", c.Client, x.what, x.sum, x.sum-c.Client)
		}
	}
	return c, nil
}

// compareEvents: each commit has an event with its charge, and no event is without. What
// belongs together is told by the label `request`, which the client made up and the authority
// only carried.
func (r *Reader) compareEvents(ctx context.Context, c *Comparison, l *Ledger, run string, since time.Time) error {
	charged, ids := map[string]int64{}, map[string]string{}
	for _, account := range r.accounts {
		events, err := r.events(ctx, account, since)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.GetLabels()["run"] == run {
				charged[e.GetLabels()["request"]] += e.GetChargedMicros()
				ids[e.GetLabels()["request"]] = e.GetReservationId()
				c.Events += e.GetChargedMicros()
				c.Found++
			}
		}
	}
	l.each(func(id string, e Entry) {
		sum, ok := charged[e.Request]
		delete(charged, e.Request)
		switch {
		case ok && ids[e.Request] != "" && ids[e.Request] != id:
			c.findf("reservation %s of %s: its usage event names reservation %s", id, e.Account, ids[e.Request])
		case e.committed() && !ok:
			c.findf("reservation %s of %s: the client was told a charge of %d micros, there is no usage event", id, e.Account, e.Charged)
		case e.committed() && sum != e.Charged:
			c.findf("reservation %s of %s: the client was told a charge of %d micros, its usage event says %d", id, e.Account, e.Charged, sum)
		case !e.committed() && ok:
			c.findf("reservation %s of %s: the client saw it %s, its usage event charges %d micros", id, e.Account, e.State, sum)
		}
	})
	for request, sum := range charged {
		c.findf("request %s: a usage event charges %d micros, the client knows nothing of it", request, sum)
	}
	slices.Sort(c.Findings)
	return nil
}

func (r *Reader) events(ctx context.Context, account string, since time.Time) ([]*purserv1.UsageEvent, error) {
	var all []*purserv1.UsageEvent
	for token := ""; ; {
		page, err := r.usage.ListUsageEvents(ctx, &purserv1.ListUsageEventsRequest{
			Account: account, StartTime: timestamppb.New(since), PageSize: pageSize, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("usage events of %s: %w", account, err)
		}
		all = append(all, page.GetUsageEvents()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// maxFindings bounds the findings named.
const maxFindings = 20

func (c *Comparison) findf(format string, args ...any) {
	if len(c.Findings) < maxFindings {
		c.Findings = append(c.Findings, fmt.Sprintf(format, args...))
	}
}
