package demo

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// tokenTime is how long one output token takes at speed 1.
const tokenTime = 20 * time.Millisecond

// Replayer sends jobs through a client.
type Replayer struct {
	Client      *purser.Client
	Ledger      *Ledger
	Tally       *Tally
	Run         string  // label `run` of every request; `request` has its number
	Concurrency int     // requests at the same time, > 0
	Speed       float64 // 1 = as the trace was recorded, 2 = twice as fast, 0 = as fast as it goes
	Now         func() time.Time
}

// Replay sends all jobs and returns when the last one is settled, or when ctx ends: then the
// requests in flight are settled still, and no others begun. It returns how long it took.
func (r *Replayer) Replay(ctx context.Context, jobs []Job) time.Duration {
	start := r.Now()
	queue := make(chan *Job)
	var workers sync.WaitGroup
	for range r.Concurrency {
		workers.Go(func() {
			for job := range queue {
				r.one(ctx, job)
			}
		})
	}
	for i := range jobs {
		if !r.wait(ctx, after(jobs[i].At, r.Speed)-r.Now().Sub(start)) {
			break
		}
		queue <- &jobs[i]
	}
	close(queue)
	workers.Wait()
	return r.Now().Sub(start)
}

// wait pauses for d if it is positive; false means that ctx has ended.
func (r *Replayer) wait(ctx context.Context, d time.Duration) bool {
	if r.Speed <= 0 || d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// one is what an inference server does: ask, work, settle. Only the work ends early with ctx:
// a request that was asked for is answered and settled.
func (r *Replayer) one(ctx context.Context, job *Job) {
	r.Tally.count(job.Plan, func(c *Counts) { c.Requests++ })
	began := r.Now()
	handle, err := r.Client.Gate(context.WithoutCancel(ctx), purser.Request{
		Account:  job.Account,
		Features: job.Features,
		Estimates: []purser.Estimate{
			purser.Need(MeterInput, job.Context),
			purser.Want(MeterOutput, Expected, Least),
		},
		Labels: map[string]string{"user": job.User, "team": job.Team, "run": r.Run, "request": job.Number},
	})
	r.Tally.took(r.Tally.reserve, r.Now().Sub(began))
	if denied, ok := errors.AsType[*purser.Denied](err); ok {
		r.Tally.denied(job.Plan, denied)
		return
	}
	if err != nil {
		r.Tally.failed(job.Plan, err)
		return
	}
	defer handle.Close()
	id := handle.Reservation().GetReservationId()
	r.Ledger.open(id, Entry{Request: job.Number, Account: job.Account, Plan: job.Plan, Feature: handle.Feature()})
	r.settle(ctx, job, handle, id)
}

func (r *Replayer) settle(ctx context.Context, job *Job, h *purser.Handle, id string) {
	used := job.Generated
	granted := h.Granted(MeterOutput)
	cut := h.Partial() && used > granted // a server hands the grant on as max_tokens
	if cut {
		used = granted
	}
	r.wait(ctx, after(time.Duration(used)*tokenTime, r.Speed))
	began := r.Now()
	receipt, err := r.finish(ctx, job, h, used)
	r.Tally.took(r.Tally.commit, r.Now().Sub(began))
	switch kept, ok := errors.AsType[*purser.Error](err); {
	case ok && kept.Kept: // the ledger learns of it from the background
		r.Tally.count(job.Plan, func(c *Counts) { c.Kept++ })
	case err != nil:
		r.Tally.failed(job.Plan, err)
		return
	default:
		r.Ledger.settled(id, receipt)
	}
	r.Tally.count(job.Plan, func(c *Counts) {
		c.Allowed++
		c.Degraded += bit(h.Feature() != job.Features[0])
		c.Partial += bit(h.Partial())
		c.Cut += bit(cut)
		c.Overrun += bit(receipt.Overage > 0)
		c.Cancelled += bit(job.Cancelled)
		c.Late += bit(receipt.Late)
	})
}

func (r *Replayer) finish(ctx context.Context, job *Job, h *purser.Handle, used int64) (purser.Receipt, error) {
	if job.Cancelled {
		return h.Release(ctx)
	}
	return h.Commit(ctx, purser.Used(MeterInput, job.Context), purser.Used(MeterOutput, used))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func reasonName(d *purser.Denied) string {
	return strings.TrimPrefix(purserv1.DenialReason_name[int32(d.Reason)], "DENIAL_REASON_")
}
