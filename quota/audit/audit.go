// Package audit proves from a store alone that its books balance: that no credit was made,
// lost or spent twice, and that every settlement is recorded once and projected once. It reads
// one consistent state, writes nothing, and believes no figure that it can work out.
//
// Invariants (I1 ...) and rules (R1 ...) are numbered as in the protocol. The audit streams the store; what it keeps
// in memory grows with the number of lanes, allotments and pots, not with settlements.
package audit

import (
	"context"
	"fmt"
	"hash/maphash"
	"iter"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
	"github.com/purser-io/purser/quota/token"
)

// DefaultMaxFindings is how many findings a report names unless told otherwise.
const DefaultMaxFindings = 100

// Acknowledged is a settlement that a client saw acknowledged, as it kept it itself.
type Acknowledged struct {
	Lane     quota.LaneID
	Sequence uint64
	Nonce    uint64
	Kind     quota.SettleKind // Committed or Released
	Charged  int64            // micros
}

// Options of an audit. The zero value audits a store that is in use.
type Options struct {
	// Quiescent adds I15: clients and faults have stopped and every node has drained, so
	// nothing may be escrowed any more and everything must be projected.
	Quiescent bool
	// Acknowledged are settlements that the store must have (I10); nil = none. They are kept
	// in memory. An error ends the audit.
	Acknowledged iter.Seq2[Acknowledged, error]
	// MaxFindings bounds the findings named; 0 = DefaultMaxFindings.
	MaxFindings int
}

// Finding is one thing that is wrong.
type Finding struct {
	Invariant string // "I1", "I5", "R20" ...
	Subject   string // the pot, allotment, reservation or lane it is about
	Detail    string // in plain words, with the figures
}

// String is the finding as one line.
func (f Finding) String() string { return f.Invariant + " " + f.Subject + ": " + f.Detail }

// Report is the outcome of an audit.
type Report struct {
	Findings []Finding
	More     int // findings beyond Options.MaxFindings

	// What was looked at.
	Pots, Allotments, Lanes, Entries, Batches, Records, Interims, UsageEvents int64
	Acknowledged                                                              int64
	DuplicateAcks                                                             int64 // acknowledgements listed again, with the same content

	Granted  int64 // micros of all grants
	Charged  int64 // micros of all settlements
	Debt     int64 // micros
	Escrowed int64 // micros of grants that are out in allotments
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Run audits the store. It blocks until it has read all of it, and takes no lock that a
// server would wait for. The error is about reading; what is wrong with the books is in the
// report.
func Run(ctx context.Context, store quota.AuditStore, o Options) (*Report, error) {
	if o.MaxFindings <= 0 {
		o.MaxFindings = DefaultMaxFindings
	}
	acks, err := loadAcks(o.Acknowledged)
	if err != nil {
		return nil, fmt.Errorf("audit: read acknowledgements: %w", err)
	}
	var report *Report
	err = store.Audit(ctx, func(r quota.AuditReader) error {
		a := newAuditor(ctx, r, o, acks) // Anew: the store may call again.
		report = a.report
		return a.run()
	})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return report, nil
}

// auditor is one audit's state.
type auditor struct {
	ctx    context.Context
	r      quota.AuditReader
	o      Options
	acks   *acks
	report *Report

	lanes   map[quota.LaneID]*lane
	spent   map[quota.AllotmentRef]*parts // of entries, by allotment
	anchors map[quota.AllotmentRef]int64  // projected uncovered, to be put on the allotment's pot
	pots    map[quota.PotRef]*potSums
	wallets map[string]*wallet // by payer

	delivery map[quota.EntryKey]uint64 // LATE behind a release, with its nonce: the record must say delivered
	journal  comparison                // entries against records, by the batch's lane
	events   comparison                // records projected against usage events, by the owner's lane
}

// parts is what entries charge to one allotment.
type parts struct{ all, projected int64 }

// potSums is what allotments, entries and records say about a pot.
type potSums struct {
	open, closed int64 // amounts of open, spent of closed allotments
	projected    int64 // parts projected
	uncovered    int64 // windows: uncovered amounts projected
	taken        int64 // of the pot's row: direct
	kind         quota.PotKind
	exists       bool
	spentRow     int64
}

// wallet is what a payer's grants and debt come to.
type wallet struct{ uncovered, direct, debt int64 }

// lane is what the audit knows of a lane.
type lane struct {
	quota.LaneRow
	last int64 // last batch seen
}

func newAuditor(ctx context.Context, r quota.AuditReader, o Options, acks *acks) *auditor {
	seed := maphash.MakeSeed()
	acks.reset()
	return &auditor{
		ctx: ctx, r: r, o: o, acks: acks, report: &Report{},
		lanes:    map[quota.LaneID]*lane{},
		spent:    map[quota.AllotmentRef]*parts{},
		anchors:  map[quota.AllotmentRef]int64{},
		pots:     map[quota.PotRef]*potSums{},
		wallets:  map[string]*wallet{},
		delivery: map[quota.EntryKey]uint64{},
		journal:  newComparison(seed),
		events:   newComparison(seed),
	}
}

func (a *auditor) run() error {
	steps := []func() error{a.readLanes, a.readEntries, a.readBatches, a.readAllotments, a.readPots,
		a.readInterims, a.readDebts, a.readSpent, a.readUsageEvents, a.explainJournal, a.explainEvents}
	for _, step := range steps {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	a.checkAcks()
	return nil
}

func (a *auditor) find(invariant, subject, format string, args ...any) {
	if len(a.report.Findings) >= a.o.MaxFindings {
		a.report.More++
		return
	}
	a.report.Findings = append(a.report.Findings, Finding{invariant, subject, fmt.Sprintf(format, args...)})
}

// add adds to a sum. An overflow is itself a finding: it must not wrap into a balance.
func (a *auditor) add(sum *int64, x int64, subject string) {
	s, ok := amount.Add(*sum, x)
	if !ok {
		a.find("I1", subject, "the sum of %d and %d does not fit 64 bits", *sum, x)
		return
	}
	*sum = s
}

func (a *auditor) pot(ref quota.PotRef) *potSums {
	p := a.pots[ref]
	if p == nil {
		p = &potSums{}
		a.pots[ref] = p
	}
	return p
}

func (a *auditor) wallet(payer string) *wallet {
	w := a.wallets[payer]
	if w == nil {
		w = &wallet{}
		a.wallets[payer] = w
	}
	return w
}

// projected reports whether the batch lies behind its lane's cursor.
func (a *auditor) projected(batchLane quota.LaneID, no int64) bool {
	l := a.lanes[batchLane]
	return l != nil && no <= l.Cursor
}

func (a *auditor) readLanes() error {
	return a.r.Lanes(func(row quota.LaneRow) error {
		a.report.Lanes++
		a.lanes[row.Lane] = &lane{LaneRow: row}
		return nil
	})
}

func potName(p quota.PotRef) string { return "pot " + p.Pot + " of payer " + p.Payer }

func allotmentName(ref quota.AllotmentRef) string {
	return fmt.Sprintf("allotment %d of lane %d", ref.Number, ref.Lane)
}

func laneName(id quota.LaneID) string { return fmt.Sprintf("lane %d", id) }

func entryName(k quota.EntryKey, nonce uint64) string {
	name := fmt.Sprintf("reservation %s (lane %d, sequence %d)", token.ReservationID(int64(k.Lane), k.Sequence, nonce),
		k.Lane, k.Sequence)
	if k.Phase == quota.PhaseLate {
		name += ", LATE"
	}
	return name
}
