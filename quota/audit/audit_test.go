package audit

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// books is a store in memory: what an AuditReader reads.
type books struct {
	pots       []quota.Pot
	allotments []quota.AllotmentRow
	lanes      []quota.LaneRow
	entries    []quota.Entry
	batches    []quota.Batch
	interims   []quota.InterimRow
	debts      map[string]int64
	spent      []quota.SpentRow
	events     []quota.UsageEvent
	fail       error
}

func (b *books) Audit(_ context.Context, fn func(quota.AuditReader) error) error {
	// Twice, as a store may whose read was interrupted: the report must be of the last.
	if err := fn(b); err != nil {
		return err
	}
	return fn(b)
}

func each[T any](rows []T, fn func(T) error) error {
	for _, row := range rows {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func (b *books) Pots(fn func(quota.Pot) error) error                { return each(b.pots, fn) }
func (b *books) Allotments(fn func(quota.AllotmentRow) error) error { return each(b.allotments, fn) }
func (b *books) Lanes(fn func(quota.LaneRow) error) error           { return each(b.lanes, fn) }
func (b *books) Entries(fn func(quota.Entry) error) error           { return each(b.entries, fn) }
func (b *books) Batches(fn func(quota.Batch) error) error           { return each(b.batches, fn) }
func (b *books) Interims(fn func(quota.InterimRow) error) error     { return each(b.interims, fn) }
func (b *books) Spent(fn func(quota.SpentRow) error) error          { return each(b.spent, fn) }
func (b *books) UsageEvents(fn func(quota.UsageEvent) error) error {
	return errors.Join(each(b.events, fn), b.fail)
}

func (b *books) Debts(fn func(string, int64) error) error {
	for payer, debt := range b.debts {
		if err := fn(payer, debt); err != nil {
			return err
		}
	}
	return nil
}

// Lanes of the books below.
const (
	laneOpen   quota.LaneID = 10
	laneClosed quota.LaneID = 20
	laneGuest  quota.LaneID = 30
)

const (
	grantPot  = "g/first"
	windowPot = "b/acme/monthly/0/"
)

// commit is a record that costs micros: parts of them on the wallet's allotment 1 and on the
// window's allotment 2, the rest uncovered on both.
func commit(lane quota.LaneID, sequence uint64, covered, uncovered int64) quota.Record {
	slot := func(kind quota.PotKind, n uint32) quota.Slot {
		s := quota.Slot{Kind: kind, Anchor: quota.AllotmentNo(n), Charge: covered + uncovered, Uncovered: uncovered}
		if covered > 0 {
			s.Parts = []token.Part{{Allotment: n, Amount: covered}}
		}
		return s
	}
	return quota.Record{
		EntryKey: quota.EntryKey{Lane: lane, Sequence: sequence}, Nonce: 70 + sequence, Kind: quota.Committed,
		Outcome: quota.OutcomeSuccess, Account: "acme", Payer: "acme", Principal: "gate", Feature: "chat", PriceVersion: 1,
		Labels: label.Set{{Key: "team", Value: "search"}}, Usage: []quota.Quantity{{Meter: "output_tokens", Quantity: 5}},
		Lines: []int64{covered + uncovered}, Held: 50,
		Slots:      []quota.Slot{slot(quota.PotWallet, 1), slot(quota.PotBudget, 2)},
		ReservedAt: 1, ExpiresAt: 99, SettledAt: 50,
	}
}

func ended(kind quota.SettleKind, lane quota.LaneID, sequence uint64) quota.Record {
	r := commit(lane, sequence, 0, 0)
	r.Kind, r.Usage, r.Lines, r.Slots, r.Outcome = kind, nil, nil, nil, 0
	return r
}

// healthy is a store whose books balance. In the open lane 30 were committed and covered, one
// reservation expired, one was released and one committed behind the cursor; the closed lane
// spent 40 of 60. The guest lane charged 25 LATE behind the expiry, 4 behind the release and 7
// for a reservation that the closed lane never settled: 31 of these 36 were debited to the
// grant, 5 are debt.
func healthy() *books {
	b := &books{debts: map[string]int64{"acme": 5}}
	b.lanes = []quota.LaneRow{
		{Lane: laneOpen, Incarnation: "live", State: quota.LaneOpen, Cursor: 1, NodeState: quota.IncarnationLive},
		{Lane: laneClosed, Incarnation: "dead", State: quota.LaneClosed, Cursor: 1, NodeState: quota.IncarnationDead},
		{Lane: laneGuest, Incarnation: "live", State: quota.LaneOpen, Guest: true, Cursor: 1, NodeState: quota.IncarnationLive},
	}
	late := commit(laneOpen, 2, 0, 25).Late(nil)
	orphan := commit(laneClosed, 9, 0, 7).Late(nil)
	orphan.Slots[1].Anchor, orphan.Slots[1].Pot = 0, windowPot
	delivered := commit(laneOpen, 3, 0, 4).Late(nil)
	delivered.Delivered = true
	b.batches = []quota.Batch{
		{Lane: laneOpen, No: 1, Records: []quota.Record{commit(laneOpen, 1, 30, 0), ended(quota.Expired, laneOpen, 2), ended(quota.Released, laneOpen, 3)}},
		{Lane: laneOpen, No: 2, Records: []quota.Record{commit(laneOpen, 4, 11, 0)}},
		{Lane: laneClosed, No: 1, Records: []quota.Record{commit(laneClosed, 1, 40, 0)}},
		{Lane: laneGuest, No: 1, Records: []quota.Record{late, orphan, delivered}},
	}
	b.allotments = []quota.AllotmentRow{
		{AllotmentRef: quota.AllotmentRef{Lane: laneOpen, Number: 1}, PotRef: quota.PotRef{Payer: "acme", Pot: grantPot}, Amount: 100},
		{AllotmentRef: quota.AllotmentRef{Lane: laneOpen, Number: 2}, PotRef: quota.PotRef{Payer: "acme", Pot: windowPot}, Amount: 100},
		{AllotmentRef: quota.AllotmentRef{Lane: laneClosed, Number: 1}, PotRef: quota.PotRef{Payer: "acme", Pot: grantPot}, Amount: 60, Spent: 40, Closed: true},
		{AllotmentRef: quota.AllotmentRef{Lane: laneClosed, Number: 2}, PotRef: quota.PotRef{Payer: "acme", Pot: windowPot}, Amount: 60, Spent: 40, Closed: true},
	}
	b.pots = []quota.Pot{
		{Payer: "acme", ID: windowPot, Kind: quota.PotBudget, Escrowed: 100, Spent: 40, Direct: 36},
		{Payer: "acme", ID: grantPot, Kind: quota.PotWallet, Granted: 200, Available: 29, Escrowed: 100, Spent: 40, Direct: 31},
	}
	b.spent = []quota.SpentRow{
		{PotRef: quota.PotRef{Payer: "acme", Pot: windowPot}, Amount: 106},
		{PotRef: quota.PotRef{Payer: "acme", Pot: grantPot}, Amount: 101},
	}
	b.post()
	return b
}

// post writes the entries and usage events that the batches lead to.
func (b *books) post() {
	cursors := map[quota.LaneID]int64{}
	for _, l := range b.lanes {
		cursors[l.Lane] = l.Cursor
	}
	b.entries, b.events = nil, nil
	for _, batch := range b.batches {
		for i := range batch.Records {
			r := &batch.Records[i]
			b.entries = append(b.entries, r.Entry(batch.Lane, batch.No))
			if batch.No > cursors[batch.Lane] || !r.Used() {
				continue
			}
			u := eventOf(r)
			if u.Covered > 0 {
				u.Grants = []quota.GrantUse{{Grant: "first", Micros: u.Covered}}
			}
			b.events = append(b.events, u)
		}
	}
	slices.SortFunc(b.entries, func(x, y quota.Entry) int {
		return (int(x.Lane)-int(y.Lane))*10000 + (int(x.Sequence)-int(y.Sequence))*10 + int(x.Phase) - int(y.Phase)
	})
}

func audit(t *testing.T, b *books, o Options) *Report {
	t.Helper()
	report, err := Run(t.Context(), b, o)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return report
}

func acked(list ...Acknowledged) iter.Seq2[Acknowledged, error] {
	return func(yield func(Acknowledged, error) bool) {
		for _, a := range list {
			if !yield(a, nil) {
				return
			}
		}
	}
}

func TestBooksInOrder(t *testing.T) {
	report := audit(t, healthy(), Options{})
	if !report.OK() {
		t.Fatalf("findings in healthy books: %v", report.Findings)
	}
	if report.Entries != 8 || report.Records != 8 || report.Batches != 4 || report.Pots != 2 || report.Allotments != 4 ||
		report.Lanes != 3 || report.UsageEvents != 5 || report.Charged != 117 || report.Granted != 200 || report.Debt != 5 {
		t.Errorf("report counts %+v", report)
	}
}

// noted is healthy with interim usage: 12 micros of reservation 5 of the open lane, which expired
// with 20, the client had 6 more; 8 of reservation 6, which is live; and 9 of 9 of the closed lane,
// which was charged LATE behind the fence.
func noted() *books {
	b := healthy()
	expired := commit(laneOpen, 5, 20, 0)
	expired.Kind = quota.Expired
	entry := expired.Entry(laneOpen, 3)
	b.batches = slices.Insert(b.batches, 2, quota.Batch{Lane: laneOpen, No: 3, Records: []quota.Record{expired}})
	final := commit(laneOpen, 5, 20, 6)
	b.batches = append(b.batches, quota.Batch{Lane: laneGuest, No: 2, Records: []quota.Record{final.Late(&entry)}})
	interim := func(lane quota.LaneID, sequence uint64, micros int64) quota.InterimRow {
		r := commit(lane, sequence, micros, 0)
		r.Kind = quota.Expired
		return quota.InterimRow{Lane: lane, Sequence: sequence, Interim: quota.Interim{Record: r, Number: 2}}
	}
	b.interims = []quota.InterimRow{interim(laneOpen, 5, 12), interim(laneOpen, 6, 8), interim(laneClosed, 9, 9)}
	b.post()
	b.interims[0].Terminal = &entry
	late := b.entries[len(b.entries)-1]
	b.interims[2].Late = &late
	return b
}

func TestInterimUsage(t *testing.T) {
	report := audit(t, noted(), Options{})
	if !report.OK() || report.Interims != 3 || report.Charged != 117+26 {
		t.Fatalf("noted books: %+v", report)
	}
	for _, c := range []struct {
		name    string
		corrupt func(*books)
		says    string
	}{
		{"expired with less", func(b *books) {
			b.interims[0].Record = commit(laneOpen, 5, 21, 0)
			b.interims[0].Record.Kind = quota.Expired
		}, "a charge of 20 micros, noted were 21"},
		{"expired with less of a meter", func(b *books) { b.interims[0].Record.Usage[0].Quantity = 6 }, "5 of output_tokens, noted were 6"},
		{"forgotten by the closing", func(b *books) { b.interims[2].Late = nil }, "9 micros that it had used are not charged"},
		{"of another reservation", func(b *books) { b.interims[1].Record.Sequence = 7 }, "is of"},
		{"another nonce", func(b *books) { b.interims[0].Record.Nonce++ }, "it ended with nonce"},
		{"in a guest lane", func(b *books) { b.interims[1].Lane, b.interims[1].Record.Lane = laneGuest, laneGuest }, "owns no reservations"},
		{"a commit", func(b *books) { b.interims[1].Record.Kind = quota.Committed }, "COMMITTED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := noted()
			c.corrupt(b)
			report := audit(t, b, Options{})
			if len(report.Findings) != 1 || report.Findings[0].Invariant != "R23" || !strings.Contains(report.Findings[0].String(), c.says) {
				t.Errorf("findings %v, want one R23 %q", report.Findings, c.says)
			}
		})
	}
}

// TestExpiryWithUsage: what an expiry charged is checked as a commit is, and the usage that its
// entry keeps is that of its record.
func TestExpiryWithUsage(t *testing.T) {
	for _, c := range []struct {
		name    string
		corrupt func(*books)
		says    string
	}{
		{"entry forgets usage", func(b *books) { b.entries[6].Used = nil }, "EXPIRED and yet charged 20"},
		{"entry has other usage", func(b *books) {
			b.entries[6].Used = &quota.Used{Usage: []quota.Quantity{{Meter: "output_tokens", Quantity: 9}}}
		}, "its entry says"},
		{"projected without an event", func(b *books) {
			b.lanes[0].Cursor = 3
			b.post()
			b.events = slices.DeleteFunc(b.events, func(u quota.UsageEvent) bool { return u.Key.Sequence == 5 && u.Key.Phase == quota.PhaseTerminal })
		}, "it is projected, but has no usage event"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := noted()
			if e := b.entries[6]; e.Sequence != 5 || e.Kind != quota.Expired {
				t.Fatalf("entry 6 is %+v", e)
			}
			c.corrupt(b)
			report := audit(t, b, Options{})
			if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return strings.Contains(f.String(), c.says) }) {
				t.Errorf("no finding %q in %v", c.says, report.Findings)
			}
		})
	}
}

// quiescent is healthy after everything came home and was projected.
func quiescent() *books {
	b := healthy()
	for i := range b.lanes {
		b.lanes[i].State = quota.LaneClosed
	}
	b.lanes[0].Cursor = 2
	for i := range b.allotments[:2] {
		b.allotments[i].Closed, b.allotments[i].Spent = true, 41
	}
	b.pots[0].Escrowed, b.pots[0].Spent = 0, 81
	b.pots[1].Escrowed, b.pots[1].Spent, b.pots[1].Available = 0, 81, 88
	b.spent[0].Amount, b.spent[1].Amount = 117, 112
	b.post()
	return b
}

func TestQuiescent(t *testing.T) {
	if report := audit(t, quiescent(), Options{Quiescent: true}); !report.OK() {
		t.Fatalf("findings in quiescent books: %v", report.Findings)
	}
	report := audit(t, healthy(), Options{Quiescent: true})
	for _, want := range []string{"allotment 1 of lane 10: it is still open", "lane 10: it is projected to batch 1 only"} {
		if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Invariant == "I15" && strings.Contains(f.String(), want) }) {
			t.Errorf("no finding I15 %q in %v", want, report.Findings)
		}
	}
}

func TestCorruption(t *testing.T) {
	cases := []struct {
		name      string
		corrupt   func(*books)
		invariant string
		says      string
	}{
		{"credits appear", func(b *books) { b.pots[1].Available += 1 }, "I1", "granted 200"},
		{"credits vanish", func(b *books) { b.pots[1].Available -= 1 }, "I1", "granted 200"},
		{"a grant goes negative", func(b *books) { b.pots[1].Available, b.pots[1].Expired = -1, 30 }, "I1", "negative"},
		{"a grant wraps around", func(b *books) { b.pots[1].Available, b.pots[1].Expired = 1<<62, 1<<62+1<<62-1 }, "I1", "64 bits"},
		{"escrow without allotment", func(b *books) { b.allotments[0].Amount-- }, "I1", "escrowed, its open allotments have 99"},
		{"voided and available", func(b *books) { b.pots[1].Voided = true }, "I1", "voided"},
		{"window escrow", func(b *books) { b.pots[0].Escrowed = 90 }, "I1", "90 escrowed"},
		{"window spent", func(b *books) { b.pots[0].Spent = 41 }, "I1", "41 spent"},
		{"window keeps what is left", func(b *books) { b.pots[0].Available = 3 }, "I1", "a window keeps"},
		{"window debited too much", func(b *books) { b.pots[0].Direct++ }, "I12", "37 were debited"},
		{"pot gone", func(b *books) { b.pots = b.pots[1:] }, "I1", "it does not exist"},
		{"allotment of no lane", func(b *books) { b.allotments[0].Lane = 99 }, "I1", "its lane does not exist"},
		{"allotment overspent", func(b *books) { b.allotments[0].Amount = 40 }, "I2", "entries charge 41"},
		{"closed with too little spent", func(b *books) { b.allotments[2].Spent = 39 }, "I2", "closed with 39"},
		{"closed spent negative", func(b *books) { b.allotments[2].Spent = -1 }, "I2", "negative"},
		{"entry on no allotment", func(b *books) { b.allotments = b.allotments[1:] }, "I2", "does not exist"},
		{"open allotment of a closed lane", func(b *books) { b.lanes[0].State = quota.LaneClosed }, "I15", "nobody will return"},
		{"settled twice", func(b *books) { b.entries = slices.Insert(b.entries, 0, b.entries[0]) }, "I5", "settled twice"},
		{"committed and late", func(b *books) { b.batches[0].Records[1] = commit(laneOpen, 2, 3, 0); b.post() }, "I5", "charged twice"},
		{"late behind a plain release", func(b *books) { b.batches[3].Records[2].Delivered = false; b.post() }, "I5", "no record says that it was delivered"},
		{"late behind nothing in an open lane", func(b *books) { b.lanes[1].State = quota.LaneOpen }, "I5", "nothing before it"},
		{"phases of two reservations", func(b *books) { b.batches[3].Records[0].Nonce++; b.post() }, "I5", "different nonces"},
		{"release that charges", func(b *books) { b.batches[0].Records[2].Lines = []int64{4}; b.post() }, "I5", "RELEASED and yet charged"},
		{"late that is no charge", func(b *books) { b.batches[3].Records[0].Kind = quota.Released; b.post() }, "I5", "not a charge"},
		{"third phase", func(b *books) { b.batches[3].Records[0].Phase = 2; b.post() }, "I5", "no phase 2"},
		{"entry of no lane", func(b *books) { b.batches[3].Records[1].Lane = 77; b.post() }, "I5", "its lane does not exist"},
		{"negative charge", func(b *books) { b.batches[1].Records[0].Lines = []int64{-1}; b.post() }, "I5", "cannot be"},
		{"part of nothing", func(b *books) { b.batches[1].Records[0].Slots[0].Parts[0].Amount = 0; b.post() }, "I2", "its part on"},
		{"charge neither covered nor uncovered", func(b *books) { b.batches[1].Records[0].Slots[0].Charge++; b.post() }, "I5", "slot 0 charges 12"},
		{"charged without a wallet", func(b *books) { b.batches[1].Records[0].Slots = nil; b.post() }, "I5", "in 0 wallets"},
		{"record without entry", func(b *books) { b.entries = b.entries[1:] }, "I5", "has no entry"},
		{"entry without record", func(b *books) { b.batches[0].Records = b.batches[0].Records[:2] }, "I5", "has no record"},
		{"entry and record differ", func(b *books) { b.entries[0].Charged++ }, "I5", "its entry says"},
		{"recorded twice", func(b *books) { b.batches[1].Records = append(b.batches[1].Records, b.batches[0].Records[0]) }, "I5", "it is recorded"},
		{"own record in a guest lane", func(b *books) { b.lanes[2].Guest = false }, "R27", "not where it belongs"},
		{"allotment of a guest lane", func(b *books) { b.lanes[0].Guest = true }, "R27", "no allotments"},
		{"batch lost", func(b *books) { b.batches[1].No = 3 }, "R20", "batch 3 follows batch 1"},
		{"batch of no lane", func(b *books) { b.lanes = b.lanes[:2] }, "R20", "does not exist"},
		{"cursor beyond the end", func(b *books) { b.lanes[1].Cursor = 2 }, "R20", "its last is 1"},
		{"usage event lost", func(b *books) { b.events = b.events[1:] }, "I10", "no usage event"},
		{"usage event made up", func(b *books) { b.lanes[0].Cursor = 0 }, "I5", "without a projected settlement"},
		{"usage event altered", func(b *books) { b.events[0].Usage = []quota.Quantity{{Meter: "output_tokens", Quantity: 6}} }, "I5", "its usage event says"},
		{"usage event of another label", func(b *books) { b.events[0].Labels = map[string]string{"team": "ads"} }, "I5", "its usage event says"},
		{"usage event's grants", func(b *books) { b.events[0].Grants[0].Micros-- }, "I5", "from grants"},
		{"claim made twice", func(b *books) { b.pots[1].Direct += 5; b.pots[1].Available -= 5 }, "I1", "36 direct and 5 debt"},
		{"claim lost", func(b *books) { b.debts = nil }, "I1", "31 direct and 0 debt"},
		{"debt negative", func(b *books) { b.debts["other"] = -4 }, "I1", "it is -4"},
		{"spent figure too high", func(b *books) { b.spent[0].Amount = 107 }, "I5", "107 are shown as spent"},
		{"window's spent figure too low", func(b *books) { b.spent[0].Amount = 105 }, "I5", "105 are shown as spent"},
		{"spent figure too low", func(b *books) { b.spent[1].Amount = 69 }, "I5", "69 are shown as spent"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := healthy()
			c.corrupt(b)
			report := audit(t, b, Options{})
			for _, f := range report.Findings {
				if f.Invariant == c.invariant && strings.Contains(f.String(), c.says) {
					return
				}
			}
			t.Errorf("no finding %s %q in %v", c.invariant, c.says, report.Findings)
		})
	}
}

// TestWindowsOfOneLimit is R34: what a reservation uses of a limit may be spread over its
// windows, the older first, and adds up to the usage.
func TestWindowsOfOneLimit(t *testing.T) {
	for _, c := range []struct {
		name    string
		charges [2]int64 // of an older and a newer window, of 11
		missing int64    // uncovered in the older one
		says    string
	}{
		{"spread", [2]int64{6, 5}, 0, ""},
		{"charged twice", [2]int64{11, 11}, 0, "its usage asks 11 of a limit whose windows are charged 22"},
		{"charged in part", [2]int64{6, 4}, 0, "its usage asks 11 of a limit whose windows are charged 10"},
		{"a rest left to the older", [2]int64{6, 5}, 2, "slot 1 leaves 2 uncovered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := healthy()
			r := &b.batches[1].Records[0]
			older, newer := r.Slots[1], r.Slots[1]
			older.Charge, older.Uncovered = c.charges[0], c.missing
			older.Parts = []token.Part{{Allotment: 2, Amount: c.charges[0] - c.missing}}
			newer.Charge, newer.Continues = c.charges[1], true
			newer.Parts = []token.Part{{Allotment: 2, Amount: c.charges[1]}}
			r.Slots = []quota.Slot{r.Slots[0], older, newer}
			b.post()
			report := audit(t, b, Options{})
			if c.says == "" {
				if !report.OK() {
					t.Fatalf("findings %v", report.Findings)
				}
				return
			}
			if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return strings.Contains(f.String(), c.says) }) {
				t.Fatalf("no finding %q in %v", c.says, report.Findings)
			}
		})
	}
}

func TestQuiescentProjectedSpent(t *testing.T) {
	b := quiescent()
	b.allotments[0].Spent-- // Spent and entries differ, as when closing believed a projected figure.
	b.pots[1].Spent--
	b.pots[1].Available++
	report := audit(t, b, Options{Quiescent: true})
	if len(report.Findings) != 2 || report.Findings[1].Invariant != "I15" {
		t.Errorf("findings %v, want I2 and I15", report.Findings)
	}
}

func TestAcknowledged(t *testing.T) {
	ok := []Acknowledged{
		{laneOpen, 1, 71, quota.Committed, 30},
		{laneOpen, 1, 71, quota.Committed, 30},
		{laneOpen, 2, 72, quota.Committed, 25},
		{laneOpen, 3, 73, quota.Released, 0},
		{laneOpen, 3, 73, quota.Committed, 4},
		{laneClosed, 9, 79, quota.Committed, 7},
		{laneClosed, 8, 78, quota.Released, 0}, // dropped: its lane is closed
	}
	report := audit(t, healthy(), Options{Acknowledged: acked(ok...)})
	if !report.OK() || report.Acknowledged != 5 || report.DuplicateAcks != 1 {
		t.Errorf("acknowledged: %+v", report)
	}
	cases := []struct {
		name, invariant, says string
		list                  []Acknowledged
	}{
		{"lost commit", "I10", "not in the store", []Acknowledged{{laneOpen, 50, 1, quota.Committed, 3}}},
		{"commit became an expiry", "I10", "EXPIRED there", []Acknowledged{{laneOpen, 7, 77, quota.Committed, 3}}},
		{"other charge", "I10", "the store has 30", []Acknowledged{{laneOpen, 1, 71, quota.Committed, 29}}},
		{"other nonce", "I10", "with nonce 1", []Acknowledged{{laneOpen, 1, 1, quota.Committed, 30}}},
		{"release lost", "I10", "release was acknowledged, but", []Acknowledged{{laneOpen, 51, 1, quota.Released, 0}}},
		{"release charged", "I11", "yet it was charged", []Acknowledged{{laneOpen, 1, 71, quota.Released, 0}}},
		{"acknowledged twice", "I5", "acknowledged for 30 micros", []Acknowledged{{laneOpen, 1, 71, quota.Committed, 30}, {laneOpen, 1, 71, quota.Committed, 31}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := healthy()
			b.batches[0].Records = append(b.batches[0].Records, ended(quota.Expired, laneOpen, 7))
			b.post()
			report := audit(t, b, Options{Acknowledged: acked(c.list...)})
			if len(report.Findings) != 1 || report.Findings[0].Invariant != c.invariant || !strings.Contains(report.Findings[0].String(), c.says) {
				t.Errorf("findings %v, want one %s %q", report.Findings, c.invariant, c.says)
			}
		})
	}
}

func TestErrorsAreNotFindings(t *testing.T) {
	broken := errors.New("broken")
	b := healthy()
	b.fail = broken
	if _, err := Run(t.Context(), b, Options{}); !errors.Is(err, broken) {
		t.Errorf("reading failed: error %v", err)
	}
	list := func(yield func(Acknowledged, error) bool) { yield(Acknowledged{}, broken) }
	if _, err := Run(t.Context(), healthy(), Options{Acknowledged: list}); !errors.Is(err, broken) {
		t.Errorf("acknowledgements failed: error %v", err)
	}
	if _, err := Run(t.Context(), healthy(), Options{Acknowledged: acked(Acknowledged{Lane: 1, Kind: quota.Expired})}); err == nil {
		t.Error("an acknowledged expiry was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, healthy(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	b := healthy()
	b.entries = nil
	report := audit(t, b, Options{MaxFindings: 2})
	if len(report.Findings) != 2 || report.More == 0 {
		t.Errorf("%d findings and %d more, want 2 and some", len(report.Findings), report.More)
	}
}
