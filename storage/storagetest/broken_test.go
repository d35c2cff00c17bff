package storagetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
	"github.com/purser-io/purser/storage/sqlite"
)

// broken is a store with one fault, and the tests that must find it.
type broken struct {
	name   string
	spoil  func(*sqlite.Store) quota.Store
	caught []string
}

// over makes a broken store of one that embeds a whole one.
func over[S quota.Store](wrap func(quota.Store) S) func(*sqlite.Store) quota.Store {
	return func(s *sqlite.Store) quota.Store { return wrap(s) }
}

// rewriting makes a broken store by one change to its SQL. A text that is not there any more
// breaks nothing, and so is noticed.
func rewriting(from, to string) func(*sqlite.Store) quota.Store {
	return func(s *sqlite.Store) quota.Store {
		s.Driver = &rewritten{Driver: s.Driver, from: from, to: to}
		return s
	}
}

func brokenStores() []broken {
	return []broken{
		{"loses a record of a batch", over(func(s quota.Store) *losesRecord { return &losesRecord{s} }),
			[]string{"Journal/EntriesAreKept", "Journal/ManyRecords"}},
		{"writes a batch again when it is sent again", over(func(s quota.Store) *doubleCommit { return &doubleCommit{Store: s} }),
			[]string{"Journal/ResendIsHarmless"}},
		{"does not look whether the lane is open", func(s *sqlite.Store) quota.Store {
			s.Driver = &unfenced{s.Driver}
			return s
		}, []string{"Journal/Fenced"}},
		{"fences only when it closes", over(func(s quota.Store) *lateFence { return &lateFence{s} }),
			[]string{"Journal/Fenced", "Draw/Fenced", "Return/Fenced", "Settle/GuestFenced"}},
		{"answers that others won, and writes the rest", over(func(s quota.Store) *writesTheRest { return &writesTheRest{s} }),
			[]string{"Journal/Winners"}},
		{"applies a shrink twice", over(func(s quota.Store) *shrinksTwice {
			return &shrinksTwice{Store: s, sent: map[quota.AllotmentRef]int64{}}
		}),
			[]string{"Return/OnceBySequence"}},
		{"loses a shrink", over(func(s quota.Store) *losesShrink { return &losesShrink{s} }),
			[]string{"Return/GivesBack", "Return/Window"}},
		{"draws anew when a draw is sent again", over(func(s quota.Store) *drawsAnew { return &drawsAnew{Store: s} }),
			[]string{"Draw/ResendAnswersTheSame"}},
		{"refuses a batch of draws for one of them", over(func(s quota.Store) *refusesAll { return &refusesAll{s} }),
			[]string{"Draw/RefusedApart"}},
		{"lands a part of a batch of draws", over(func(s quota.Store) *drawsAlone { return &drawsAlone{s} }),
			[]string{"Draw/BatchIsOneTransaction"}},
		{"ignores the half rule", over(func(s quota.Store) *greedy { return &greedy{s} }),
			[]string{"Draw/HalfRule", "Draw/Window"}},
		{"ignores burn order", over(func(s quota.Store) *noOrder { return &noOrder{s} }),
			[]string{"Draw/BurnOrder", "Projection/WalletClaimsInBurnOrder"}},
		{"does not check epochs", over(func(s quota.Store) *anyEpoch { return &anyEpoch{s} }),
			[]string{"Draw/Epoch", "Draw/AllWantsOrNone"}},
		{"gives beyond the cap", over(func(s quota.Store) *noCap { return &noCap{s} }),
			[]string{"Draw/Window", "Draw/WindowCapLowered", "Concurrency/DrawsStayWithinTheCap"}},
		{"charges LATE as often as it is asked", over(func(s quota.Store) *lateAgain { return &lateAgain{Store: s} }),
			[]string{"Settle/LateOnce"}},
		{"loses interim usage", over(func(s quota.Store) *losesInterim { return &losesInterim{s} }),
			[]string{"Interim/ChargedWhenTheLaneCloses", "Interim/ClosedByParts"}},
		{"lets interim usage fall", rewriting("interims.number < excluded.number", "interims.number <> excluded.number"),
			[]string{"Interim/HighestNumberCounts"}},
		{"keeps the first interim usage", rewriting("interims.number < excluded.number", "interims.number > excluded.number"),
			[]string{"Interim/HighestNumberCounts"}},
		{"notes usage behind a fence", rewriting("SELECT state FROM lanes WHERE lane_id", "SELECT 1 FROM lanes WHERE lane_id"),
			[]string{"Interim/Fenced", "Concurrency/InterimAgainstClosing"}},
		{"notes usage behind the end", rewriting("WHERE lane_id = $1 AND tag = 2 AND k1 IN", "WHERE lane_id = $1 AND tag = 2 AND k1 < 0 AND k1 IN"),
			[]string{"Interim/EndedTakesNone"}},
		{"charges interim usage beside what was settled", rewriting("j.tag = 2 AND j.k1 = i.sequence)", "j.tag = 9 AND j.k1 = i.sequence)"),
			[]string{"Interim/ChargedWhenTheLaneCloses"}},
		{"charges interim usage beside a LATE charge", rewriting("j.k1 = i.sequence)", "j.k1 = i.sequence AND j.k2 = 0)"),
			[]string{"Interim/FinalBehindTheFence"}},
		{"takes the closing's batch for a second writer's", rewriting("SELECT state FROM lanes WHERE lane_id", "SELECT 1 FROM lanes WHERE lane_id"),
			[]string{"Interim/OwnerBehindTheClosing"}},
		{"charges the first part of interim usage only", over(func(s quota.Store) *closesTheRest { return &closesTheRest{s} }),
			[]string{"Interim/ClosedByParts"}},
		{"forgets what an expiry charged", over(func(s quota.Store) *forgetsUsage { return &forgetsUsage{s} }),
			[]string{"Interim/LateBehindUsage", "Interim/ExpiredByItsOwner"}},
		{"loses notes", over(func(s quota.Store) *losesNotes { return &losesNotes{s} }),
			[]string{"Settle/Notes", "Settle/NotesToEveryOwner"}},
		{"keeps notes that were taken in", over(func(s quota.Store) *keepsNotes { return &keepsNotes{s} }),
			[]string{"Settle/Notes"}},
		{"answers for accounts in another order", over(func(s quota.Store) *mixesProfiles { return &mixesProfiles{s} }),
			[]string{"Account/ProfilesInOrder"}},
		{"loses wishes", over(func(s quota.Store) *losesWishes { return &losesWishes{s} }),
			[]string{"Lease/PollWishes"}},
		{"projects twice", over(func(s quota.Store) *projectsTwice { return &projectsTwice{s} }),
			[]string{"Projection/Once"}},
		{"does not compare the cursor", rewriting("SET batch_no = $3 WHERE lane_id = $1 AND batch_no = $2", "SET batch_no = $3 WHERE lane_id = $1 AND $2 = $2"),
			[]string{"Projection/Once", "Projection/TwoProjectors"}},
		{"projects without moving the cursor", rewriting("UPDATE cursors SET batch_no = $3", "UPDATE cursors SET batch_no = batch_no + 0 * $3"),
			[]string{"Projection/Once"}},
		{"loses claims", over(func(s quota.Store) *losesClaims { return &losesClaims{s} }),
			[]string{"Projection/WalletClaimsMakeDebt", "Projection/WindowClaimsPassTheCap"}},
		{"loses spent figures", over(func(s quota.Store) *losesSpent { return &losesSpent{s} }),
			[]string{"Projection/WindowClaimsPassTheCap", "Usage/EventsComeBackWhole"}},
		{"loses a usage event", over(func(s quota.Store) *losesEvent { return &losesEvent{s} }),
			[]string{"Projection/RollupsAddUp", "Usage/EventsComeBackWhole"}},
		{"passes over a missing batch", over(func(s quota.Store) *skipsGaps { return &skipsGaps{s} }),
			[]string{"Projection/BatchesStopAtAGap"}},
		{"makes what has expired available", over(func(s quota.Store) *neverExpires { return &neverExpires{s} }),
			[]string{"Reaper/CloseExpiredGrant"}},
		{"closes a lane without its entries", over(func(s quota.Store) *forgetsParts { return &forgetsParts{s} }),
			[]string{"Reaper/CloseArithmetic", "Reaper/CloseCountsForeignSettlements"}},
		{"lets a crash loop push out the close", rewriting("state = 2 AND close_after = 0 AND id <> $2", "state = 2 AND id <> $2"),
			[]string{"Reaper/CloseAfterIsWrittenOnce"}},
		{"closes by its own hold", rewriting("CASE WHEN hold_until - issue_until > $3", "CASE WHEN hold_until - issue_until > $3 + 9000000000000000"),
			[]string{"Reaper/BuryKeepsWhatWasPromised"}},
		{"renews without compare-and-set", over(func(s quota.Store) *anyLease { return &anyLease{Store: s} }),
			[]string{"Lease/RenewByCompareAndSet"}},
		{"finds a reservation's neighbour", rewriting("tag = 2 AND k1 = $2 ORDER BY", "tag = 2 AND k1 >= $2 ORDER BY"),
			[]string{"Journal/WhereaboutsOfTheEnded"}},
		{"takes every issuer for live", rewriting("i.address, i.state FROM lanes", "i.address, 1 FROM lanes"),
			[]string{"Journal/Whereabouts"}},
		{"forgets request ids", over(func(s quota.Store) *noRequests { return &noRequests{s} }),
			[]string{"Request/RepeatedIsAnsweredTheSame", "Request/OtherContentIsRefused", "Concurrency/RequestOnce"}},
		{"does what it was only to try", over(func(s quota.Store) *alwaysDoes { return &alwaysDoes{s} }),
			[]string{"Request/ValidateOnlyWritesNothing"}},
		{"leaves debt unpaid", rewriting("UPDATE debts SET debt = debt - $2", "UPDATE debts SET debt = debt - 0 * $2"),
			[]string{"Grant/PaysDebtFirst", "Return/PaysDebt", "Reaper/ClosePaysDebt"}},
	}
}

// onBroken is SQLite, broken.
func onBroken(b broken) Harness {
	h := onSQLite()
	return Harness{Name: b.name, Open: func(t testing.TB) Opened {
		o := h.Open(t)
		o.Store = b.spoil(o.Store.(*sqlite.Store))
		return o
	}}
}

// TestBrokenStoresAreCaught shows that the suite can fail: each fault is found by the tests
// that are there for it.
func TestBrokenStoresAreCaught(t *testing.T) {
	for _, b := range brokenStores() {
		t.Run(b.name, func(t *testing.T) {
			for _, name := range b.caught {
				found := failures(t, onBroken(b), find(t, name))
				if len(found) == 0 {
					t.Errorf("%s does not notice a store that %s", name, b.name)
					continue
				}
				t.Logf("%s: %s", name, found[0])
			}
		})
	}
}

// TestWholeStoresAreNot shows that what the tests above find is the fault, and not the way it
// is put in.
func TestWholeStoresAreNot(t *testing.T) {
	whole := broken{"whole", over(func(s quota.Store) quota.Store { return s }), nil}
	for _, name := range []string{"Draw/Epoch", "Journal/Fenced", "Projection/Once", "Return/OnceBySequence", "Reaper/CloseArithmetic"} {
		if found := failures(t, onBroken(whole), find(t, name)); len(found) != 0 {
			t.Errorf("%s finds fault with a whole store: %v", name, found)
		}
	}
}

type losesRecord struct{ quota.Store }

func (s *losesRecord) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	return s.Store.Append(ctx, lane, no, records[:max(len(records)-1, 1)])
}

// doubleCommit takes what is sent again for something new.
type doubleCommit struct {
	quota.Store
	mu   sync.Mutex
	last int64
	more uint64
}

func (s *doubleCommit) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if no > s.last {
		s.last = no
		return s.Store.Append(ctx, lane, no, records)
	}
	s.last++
	s.more += 1000
	records = slices.Clone(records)
	for i := range records {
		records[i].Sequence += s.more
	}
	return s.Store.Append(ctx, lane, s.last, records)
}

type unfenced struct{ relational.Driver }

func (d *unfenced) Append(ctx context.Context, _ quota.LaneID, rows []relational.JournalRow) (n int64, err error) {
	err = d.Write(ctx, func(tx relational.Tx) error {
		args := make([][]any, len(rows))
		for i, r := range rows {
			args[i] = []any{r.Lane, r.Tag, r.K1, r.K2, r.Kind, r.Body}
		}
		n, err = tx.Bulk(ctx, `INSERT INTO journal (lane_id, tag, k1, k2, kind, body) VALUES ($1, $2, $3, $4, $5, $6)`, args)
		return err
	})
	return n, err
}

type lateFence struct{ quota.Store }

func (s *lateFence) Fence(context.Context, quota.LaneID) error { return nil }

func (s *lateFence) CloseLane(ctx context.Context, lane quota.LaneID, now int64, limit int) (bool, error) {
	if err := s.Store.Fence(ctx, lane); err != nil {
		return false, err
	}
	return s.Store.CloseLane(ctx, lane, now, limit)
}

type writesTheRest struct{ quota.Store }

func (s *writesTheRest) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	res, err := s.Store.Append(ctx, lane, no, records)
	if err != nil || len(res.Winners) == 0 {
		return res, err
	}
	var rest []quota.Record
	for _, r := range records {
		if !slices.ContainsFunc(res.Winners, func(w quota.Entry) bool { return w.EntryKey == r.EntryKey }) {
			rest = append(rest, r)
		}
	}
	_, err = s.Store.Append(ctx, lane, no, rest)
	return res, err
}

// shrinksTwice numbers shrinks itself, as if the store did not look at their sequence.
type shrinksTwice struct {
	quota.Store
	sent map[quota.AllotmentRef]int64
}

func (s *shrinksTwice) Return(ctx context.Context, lane quota.LaneID, shrinks []quota.Shrink) error {
	shrinks = slices.Clone(shrinks)
	for i := range shrinks {
		ref := quota.AllotmentRef{Lane: lane, Number: shrinks[i].Number}
		s.sent[ref]++
		shrinks[i].Sequence = s.sent[ref]
	}
	return s.Store.Return(ctx, lane, shrinks)
}

type losesShrink struct{ quota.Store }

func (s *losesShrink) Return(ctx context.Context, lane quota.LaneID, shrinks []quota.Shrink) error {
	return s.Store.Return(ctx, lane, shrinks[1:])
}

type drawsAnew struct {
	quota.Store
	calls quota.AllotmentNo
}

func (s *drawsAnew) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	s.calls++
	return s.Store.Draw(ctx, withWants(draws, func(w *quota.Want) { w.First += 1000 * s.calls }))
}

// withWants copies draws, with every want changed.
func withWants(draws []quota.Draw, change func(*quota.Want)) []quota.Draw {
	draws = slices.Clone(draws)
	for i := range draws {
		draws[i].Wants = slices.Clone(draws[i].Wants)
		for w := range draws[i].Wants {
			change(&draws[i].Wants[w])
		}
	}
	return draws
}

// refusesAll answers a whole batch as its first refused draw.
type refusesAll struct{ quota.Store }

func (s *refusesAll) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	results, err := s.Store.Draw(ctx, draws)
	for i := range results {
		if results[i].Err != nil {
			return nil, results[i].Err
		}
	}
	return results, err
}

// drawsAlone serves each draw of a batch in a transaction of its own.
type drawsAlone struct{ quota.Store }

func (s *drawsAlone) Draw(ctx context.Context, draws []quota.Draw) (all []quota.DrawResult, err error) {
	for i := range draws {
		one, err := s.Store.Draw(ctx, draws[i:i+1])
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

type greedy struct{ quota.Store }

func (s *greedy) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	return s.Store.Draw(ctx, withWants(draws, func(w *quota.Want) { w.Floor = w.Amount }))
}

// noOrder keeps priorities upside down.
type noOrder struct{ quota.Store }

func (s *noOrder) CreateGrant(ctx context.Context, m quota.Mutation, account string, g quota.Pot) (quota.Pot, error) {
	g.Priority = 1000 - g.Priority
	return s.Store.CreateGrant(ctx, m, account, g)
}

type anyEpoch struct{ quota.Store }

func (s *anyEpoch) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	draws = slices.Clone(draws)
	for i := range draws {
		p, err := s.Store.Profile(ctx, draws[i].Epochs[0].Account)
		if err != nil {
			return nil, err
		}
		draws[i].Epochs = p.Epochs()
	}
	return s.Store.Draw(ctx, draws)
}

type noCap struct{ quota.Store }

func (s *noCap) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	return s.Store.Draw(ctx, withWants(draws, func(w *quota.Want) { w.Window.Cap = quota.Never }))
}

// lateAgain charges what is already charged LATE to a reservation it makes up.
type lateAgain struct {
	quota.Store
	more uint64
}

func (s *lateAgain) Settle(ctx context.Context, guest quota.LaneID, no int64, records []quota.Record) ([]quota.Settlement, bool, error) {
	fates, used, err := s.Store.Settle(ctx, guest, no, records)
	if err != nil || used || fates[0].Entry.Phase != quota.PhaseLate {
		return fates, used, err
	}
	again := slices.Clone(records)
	s.more += 1000
	again[0].Sequence += s.more
	return s.Store.Settle(ctx, guest, no, again)
}

type losesInterim struct{ quota.Store }

func (s *losesInterim) Interim(ctx context.Context, lane quota.LaneID, interims []quota.Interim) ([]quota.Entry, error) {
	return s.Store.Interim(ctx, lane, interims[:len(interims)-1])
}

// closesTheRest says that a lane is closed when its first part is.
type closesTheRest struct{ quota.Store }

func (s *closesTheRest) CloseLane(ctx context.Context, lane quota.LaneID, now int64, limit int) (bool, error) {
	_, err := s.Store.CloseLane(ctx, lane, now, limit)
	return true, err
}

// forgetsUsage writes expiries without what was used.
type forgetsUsage struct{ quota.Store }

func (s *forgetsUsage) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	records = slices.Clone(records)
	for i := range records {
		if records[i].Kind == quota.Expired {
			records[i] = ended(records[i], quota.Expired)
		}
	}
	return s.Store.Append(ctx, lane, no, records)
}

type losesNotes struct{ quota.Store }

func (s *losesNotes) Poll(ctx context.Context, p quota.PollRequest) (quota.PollResult, error) {
	res, err := s.Store.Poll(ctx, p)
	res.Notes = nil
	return res, err
}

type keepsNotes struct{ quota.Store }

func (s *keepsNotes) Poll(ctx context.Context, p quota.PollRequest) (quota.PollResult, error) {
	p.Forget = nil
	return s.Store.Poll(ctx, p)
}

type mixesProfiles struct{ quota.Store }

func (s *mixesProfiles) Profiles(ctx context.Context, accounts []string) ([]quota.ProfileResult, error) {
	found, err := s.Store.Profiles(ctx, accounts)
	slices.Reverse(found)
	return found, err
}

type losesWishes struct{ quota.Store }

func (s *losesWishes) Poll(ctx context.Context, p quota.PollRequest) (quota.PollResult, error) {
	res, err := s.Store.Poll(ctx, p)
	res.Wishes = nil
	return res, err
}

// projectsTwice writes what it is given wherever the cursor is.
type projectsTwice struct{ quota.Store }

func (s *projectsTwice) Project(ctx context.Context, p *quota.Projection) (bool, error) {
	applied, err := s.Store.Project(ctx, p)
	if err != nil || applied {
		return applied, err
	}
	again := *p
	again.From, again.To, again.Events = p.To, p.To+1, nil
	return s.Store.Project(ctx, &again)
}

type losesClaims struct{ quota.Store }

func (s *losesClaims) Project(ctx context.Context, p *quota.Projection) (bool, error) {
	without := *p
	without.Claims = nil
	return s.Store.Project(ctx, &without)
}

type losesSpent struct{ quota.Store }

func (s *losesSpent) Project(ctx context.Context, p *quota.Projection) (bool, error) {
	without := *p
	without.Spent = nil
	return s.Store.Project(ctx, &without)
}

type losesEvent struct{ quota.Store }

func (s *losesEvent) Project(ctx context.Context, p *quota.Projection) (bool, error) {
	without := *p
	without.Events = p.Events[min(1, len(p.Events)):]
	return s.Store.Project(ctx, &without)
}

type skipsGaps struct{ quota.Store }

func (s *skipsGaps) Batches(ctx context.Context, c quota.Cursor, limit int) (out []quota.Batch, err error) {
	for range limit {
		batches, err := s.Store.Batches(ctx, c, limit)
		if err != nil {
			return nil, err
		}
		out = append(out, batches...)
		c.No += int64(len(batches)) + 1
	}
	return out, nil
}

type neverExpires struct{ quota.Store }

func (s *neverExpires) CloseLane(ctx context.Context, lane quota.LaneID, _ int64, limit int) (bool, error) {
	return s.Store.CloseLane(ctx, lane, 0, limit)
}

// forgetsParts keeps entries that do not say on which allotments they were charged.
type forgetsParts struct{ quota.Store }

func (s *forgetsParts) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	return s.Store.Append(ctx, lane, no, withoutParts(records))
}

func (s *forgetsParts) Settle(ctx context.Context, guest quota.LaneID, no int64, records []quota.Record) ([]quota.Settlement, bool, error) {
	return s.Store.Settle(ctx, guest, no, withoutParts(records))
}

func withoutParts(records []quota.Record) []quota.Record {
	records = slices.Clone(records)
	for i := range records {
		records[i].Slots = slices.Clone(records[i].Slots)
		for j := range records[i].Slots {
			records[i].Slots[j].Parts = nil
		}
	}
	return records
}

// anyLease renews whatever sequence is named: it remembers the right one itself.
type anyLease struct {
	quota.Store
	sequence int64
}

func (s *anyLease) Register(ctx context.Context, r quota.Registration) (quota.LeaseGrant, error) {
	g, err := s.Store.Register(ctx, r)
	s.sequence = g.Sequence
	return g, err
}

func (s *anyLease) Renew(ctx context.Context, r quota.Renewal) (quota.LeaseGrant, error) {
	r.Sequence = s.sequence
	r.Nonce += time.Hour.Nanoseconds() * s.sequence
	g, err := s.Store.Renew(ctx, r)
	s.sequence = g.Sequence
	return g, err
}

type noRequests struct{ quota.Store }

func (s *noRequests) CreateGrant(ctx context.Context, m quota.Mutation, account string, g quota.Pot) (quota.Pot, error) {
	m.RequestID = ""
	return s.Store.CreateGrant(ctx, m, account, g)
}

type alwaysDoes struct{ quota.Store }

func (s *alwaysDoes) CreateGrant(ctx context.Context, m quota.Mutation, account string, g quota.Pot) (quota.Pot, error) {
	m.ValidateOnly = false
	return s.Store.CreateGrant(ctx, m, account, g)
}

// rewritten is a driver on which one piece of SQL reads otherwise.
type rewritten struct {
	relational.Driver
	from, to string
}

func (d *rewritten) Write(ctx context.Context, fn func(relational.Tx) error) error {
	return d.Driver.Write(ctx, func(tx relational.Tx) error { return fn(&rewrittenTx{tx, d}) })
}

func (d *rewritten) Read(ctx context.Context, fn func(relational.Tx) error) error {
	return d.Driver.Read(ctx, func(tx relational.Tx) error { return fn(&rewrittenTx{tx, d}) })
}

type rewrittenTx struct {
	relational.Tx
	driver *rewritten
}

func (t *rewrittenTx) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	return t.Tx.Exec(ctx, t.driver.rewrite(sql), args...)
}

func (t *rewrittenTx) Query(ctx context.Context, sql string, args ...any) (relational.Rows, error) {
	return t.Tx.Query(ctx, t.driver.rewrite(sql), args...)
}

func (t *rewrittenTx) Queries(ctx context.Context, queries []relational.Query, scan func(int, relational.Rows) error) error {
	queries = slices.Clone(queries)
	for i := range queries {
		queries[i].SQL = t.driver.rewrite(queries[i].SQL)
	}
	return t.Tx.Queries(ctx, queries, scan)
}

func (t *rewrittenTx) Bulk(ctx context.Context, sql string, rows [][]any) (int64, error) {
	return t.Tx.Bulk(ctx, t.driver.rewrite(sql), rows)
}

func (d *rewritten) rewrite(sql string) string { return strings.ReplaceAll(sql, d.from, d.to) }
