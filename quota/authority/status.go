package authority

import (
	"time"

	"github.com/purser-io/purser/quota"
)

// Status is what health checks and people want to know of a node.
type Status struct {
	Ready       bool
	Reason      string // why not ready
	Incarnation string
	Lanes       []quota.LaneID
	LeaseUntil  time.Time
	LeaseLeft   time.Duration // until this node stops issuing, unless it renews; 0 = it has
	Revision    int64
	Former      int // incarnations of this process that still settle

	Reservations int
	Allotments   int
	Accounts     int // cached
	Limiters     int // counters of rate and concurrency limits
	FreeMicros   int64
	HeldMicros   int64
	// BurnMicros is what is reserved from wallets, less what comes back, in micros a second;
	// EndingMicros the part of it from wallets that last less than an hour at that rate.
	BurnMicros, EndingMicros int64

	Queued       int   // settlements not durable yet
	LaneQueues   []int // of them, in each of Lanes
	GuestQueue   int   // of them, in the guest lane
	FormerQueue  int   // of them, in lanes of former incarnations
	DrawsQueued  int   // draws waiting for their lane's turn
	DrawsWaiting int   // requests waiting for draws
	// ProjectionLag is for how long the oldest durable settlement that this node should have
	// projected has waited.
	ProjectionLag time.Duration

	MaxReservations int // the node's bound
	SettleQueue     int // bound of each lane
}

// Status looks at every shard for a moment; it is for seconds, not for requests.
func (a *Authority) Status() Status {
	e := a.engine.Load()
	if e == nil {
		return Status{Reason: "starting"}
	}
	lease := e.lease.Load()
	s := Status{Ready: true, Incarnation: e.id, Lanes: e.laneIDs(), Former: len(*a.former.Load()),
		LeaseUntil: time.Unix(0, lease.IssueUntil()), LeaseLeft: time.Duration(lease.Left(a.instant())),
		Revision: a.polls.applied(), Accounts: a.accounts.size(), DrawsQueued: a.drawsQueued(),
		MaxReservations: a.cfg.MaxReservations, SettleQueue: a.cfg.SettleQueue}
	if err := a.Ready(); err != nil {
		s.Ready, s.Reason = false, err.Error()
	}
	durable := make(map[quota.LaneID]int64)
	for _, x := range a.engines() {
		for _, sh := range x.shards {
			s.addShard(sh)
		}
		for _, l := range x.allLanes() {
			s.addLane(l, x == e)
			durable[l.journal.Lane()] = l.durable()
		}
	}
	s.ProjectionLag = time.Duration(a.backlog.lag(a.now(), durable))
	return s
}

func (s *Status) addShard(sh *shard) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	st := sh.core.Stats()
	s.Reservations += st.Holds
	s.Allotments += st.Allotments
	s.Limiters += st.Limiters
	s.FreeMicros += st.FreeMicros
	s.HeldMicros += st.HeldMicros
	s.BurnMicros += st.BurnMicros
	s.EndingMicros += st.EndingMicros
	for _, w := range sh.draws {
		s.DrawsWaiting += w.waiters
	}
}

func (s *Status) addLane(l *lane, current bool) {
	n := l.pending()
	s.Queued += n
	switch {
	case !current:
		s.FormerQueue += n
	case l.guest:
		s.GuestQueue = n
	default:
		s.LaneQueues = append(s.LaneQueues, n)
	}
}

func (a *Authority) drawsQueued() (n int) {
	for _, queue := range a.draws {
		n += len(queue)
	}
	return n
}
