// Package auditor audits the books of a store in use, again and again, on a budget of time, so
// that a mistake is found by Purser before a customer finds it.
package auditor

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
)

// Defaults of an Auditor.
const (
	DefaultShare = 0.1
	DefaultLimit = time.Hour
)

// Store is a handle on the store whose statements may take as long as an audit.
type Store interface {
	quota.AuditStore
	io.Closer
}

// Result is what an audit came to.
type Result struct {
	Findings int // things that are wrong; 0 if Err is not nil
	Ended    time.Time
	Took     time.Duration // wall time
	Err      error         // it could not be done
}

// Metrics is told of audits.
type Metrics interface{ Audited(r Result) }

// Auditor audits. All fields but Share and Limit are required.
type Auditor struct {
	Open    func(ctx context.Context) (Store, error) // anew for each audit, closed behind it
	Every   time.Duration                            // from the end of an audit to the next; > 0
	Share   float64                                  // of the time that an audit may be at work, 0 < Share <= 1; 0 = DefaultShare
	Limit   time.Duration                            // the longest an audit may take; 0 = DefaultLimit
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics Metrics
}

// Run audits until ctx ends. The first time comes at random within Every: nodes that were
// started together do not audit together.
func (a *Auditor) Run(ctx context.Context) error {
	for wait := rand.N(a.Every); sleep(ctx, wait); wait = a.Every {
		a.once(ctx)
	}
	return nil
}

func (a *Auditor) once(ctx context.Context) {
	began := a.Now()
	report, err := a.audit(ctx)
	r := Result{Ended: a.Now(), Err: err}
	r.Took = r.Ended.Sub(began)
	switch {
	case ctx.Err() != nil:
		return // told to stop
	case err != nil:
		a.Logger.Warn("audit of the books could not be done", "error", err)
	case !report.OK():
		r.Findings = len(report.Findings) + report.More
		a.tell(report)
	default:
		a.Logger.Info("audit of the books: they balance", "settlements", report.Entries, "took", r.Took)
	}
	a.Metrics.Audited(r)
}

// told bounds the findings that get a line.
const told = 20

// tell names what is wrong, without figures: the log is read by more people than the books.
func (a *Auditor) tell(report *audit.Report) {
	all := len(report.Findings) + report.More
	a.Logger.Error("the books do not balance: run purser audit on the store, and report what it says", "findings", all)
	for _, f := range report.Findings[:min(len(report.Findings), told)] {
		a.Logger.Error("audit finding", "invariant", f.Invariant, "subject", f.Subject)
	}
}

func (a *Auditor) audit(ctx context.Context) (*audit.Report, error) {
	limit := a.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	store, err := a.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }() // it was only read
	share := a.Share
	if share == 0 {
		share = DefaultShare
	}
	return audit.Run(ctx, &pacedStore{AuditStore: store, pace: &pace{ctx: ctx, share: share, now: a.Now, since: a.Now()}}, audit.Options{})
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
