package relational

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/purser-io/purser/quota"
)

const (
	selectIssuer = `SELECT i.state, i.issue_until, l.state FROM lanes l JOIN incarnations i ON i.id = l.incarnation_id
WHERE l.lane_id = $1 AND i.id = $2`
	selectLaneState = `SELECT state FROM lanes WHERE lane_id = $1`
	// As many as a chain is deep (R36); fewer are repeated.
	selectEpochs = `SELECT id, epoch, status FROM accounts WHERE id IN ($1, $2, $3, $4, $5, $6, $7, $8)`
	selectDrawn  = `SELECT number, pot_id, amount, not_after, state FROM allotments
WHERE lane_id = $1 AND number >= $2 AND number < $3 ORDER BY number`
	insertAllotment = `INSERT INTO allotments (lane_id, number, payer_id, pot_id, amount, spent, state, not_after, shrink_sequence, create_time)
VALUES ($1, $2, $3, $4, $5, 0, 1, $6, 0, $7)`
	insertTrace = `INSERT INTO allotments (lane_id, number, payer_id, pot_id, amount, spent, state, not_after, shrink_sequence, create_time)
VALUES ($1, $2, $3, $4, 0, 0, 3, 0, 0, $5)`
)

// Allotment states as stored.
const (
	allotmentOpen   int16 = 1
	allotmentClosed int16 = 3
)

// Draw see [quota.DrawStore].
func (s *Store) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	for i := range draws {
		if n := len(draws[i].Epochs); n == 0 || n > quota.MaxAccountDepth {
			return nil, violated("draw: a chain of %d accounts", n)
		}
	}
	var results []quota.DrawResult
	err := s.write(ctx, "draw", func(tx Tx) (err error) {
		results, err = drawAll(ctx, tx, draws)
		return err
	})
	return results, err
}

// drawAll serves draws in two rounds of reading, what may refuse them and what they are of,
// and one of writing.
func drawAll(ctx context.Context, tx Tx, draws []quota.Draw) ([]quota.DrawResult, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	b := drawBatch{tx: tx, now: now, book: newPotBook(tx), results: make([]quota.DrawResult, len(draws))}
	for i := range draws {
		b.drawings = append(b.drawings, drawing{batch: &b, draw: &draws[i], result: &b.results[i]})
	}
	if err := b.admit(ctx); err != nil {
		return nil, err
	}
	if err := b.load(ctx); err != nil {
		return nil, fmt.Errorf("read pots: %w", err)
	}
	for i := range b.drawings {
		d := &b.drawings[i]
		if d.result.Err == nil {
			if err := d.serve(ctx); err != nil {
				return nil, err
			}
		}
	}
	return b.results, b.write(ctx)
}

// drawBatch is draws in one transaction.
type drawBatch struct {
	tx         Tx
	now        int64 // the database's
	book       *potBook
	drawings   []drawing
	results    []quota.DrawResult
	unmade     [][]any      // rows of windows that are not there yet
	unfinished []*quota.Pot // windows that only a claim has touched
	made       [][]any      // allotment rows
	traces     [][]any
}

// drawing is one draw of a batch.
type drawing struct {
	batch   *drawBatch
	draw    *quota.Draw
	result  *quota.DrawResult
	debt    int64
	grants  []*quota.Pot // open ones
	windows []*quota.Pot // by want; nil for the wallet
	landed  bool         // an earlier sending: its allotments exist, nothing more is taken
}

// admit reads who may issue, what has landed already and whether policy is as it was seen,
// and refuses draws by it.
func (b *drawBatch) admit(ctx context.Context) error {
	const asked = 3 // queries for each draw
	queries := make([]Query, 0, asked*len(b.drawings))
	for i := range b.drawings {
		d := &b.drawings[i]
		d.result.Drawn = make([]quota.Drawn, len(d.draw.Wants))
		queries = append(queries, d.issuer(), d.numbers(), d.epochs())
	}
	issuing := make([]bool, len(b.drawings))
	current := make([]int, len(b.drawings)) // accounts of the chain that are as they were seen
	err := b.tx.Queries(ctx, queries, func(q int, rows Rows) (err error) {
		d := &b.drawings[q/asked]
		switch q % asked {
		case 0:
			issuing[q/asked], err = d.mayIssue(rows)
		case 1:
			err = d.scanDrawn(rows)
		default:
			var ok bool
			if ok, err = d.unchanged(rows); ok {
				current[q/asked]++
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read lease, allotments and epochs: %w", err)
	}
	for i := range b.drawings {
		d := &b.drawings[i]
		switch {
		case !issuing[i]:
			d.refuse(fenced("the incarnation may not issue from this lane any more"))
		case !d.landed && current[i] != len(d.draw.Epochs):
			d.refuse(&quota.Error{Reason: quota.ReasonPolicyChanged, NotApplied: true,
				Message: fmt.Sprintf("an account that payer %q pays for is not as it was seen", d.draw.Payer)})
		}
	}
	return nil
}

func (d *drawing) refuse(err error) {
	d.result.Drawn, d.result.Err = nil, err
}

// issuer asserts that the incarnation may issue from the lane (R11) by the database's time.
func (d *drawing) issuer() Query {
	return Query{SQL: selectIssuer, Args: []any{int64(d.draw.Lane), d.draw.Incarnation}}
}

func (d *drawing) mayIssue(rows Rows) (bool, error) {
	var incarnation, lane int16
	var issueUntil int64
	err := rows.Scan(&incarnation, &issueUntil, &lane)
	live := incarnation == int16(quota.IncarnationLive) && issueUntil > d.batch.now
	return live && lane == int16(quota.LaneOpen), err
}

func fenced(message string) error {
	return &quota.Error{Reason: quota.ReasonFenced, Message: message, NotApplied: true}
}

// epochs asserts that every account of the chain is as the caller saw it, and active (R12).
func (d *drawing) epochs() Query {
	seen := d.draw.Epochs
	args := make([]any, quota.MaxAccountDepth)
	for i := range args {
		args[i] = seen[min(i, len(seen)-1)].Account
	}
	return Query{SQL: selectEpochs, Args: args}
}

func (d *drawing) unchanged(rows Rows) (bool, error) {
	var id string
	var epoch int64
	var status int16
	if err := rows.Scan(&id, &epoch, &status); err != nil {
		return false, err
	}
	seen := quota.AccountEpoch{Account: id, Epoch: epoch}
	return status == int16(quota.AccountActive) && slices.Contains(d.draw.Epochs, seen), nil
}

// numbers finds allotments that exist under the numbers this draw reserves: an earlier
// sending of it landed (R11).
func (d *drawing) numbers() Query {
	var first, end quota.AllotmentNo
	for i := range d.draw.Wants {
		w := &d.draw.Wants[i]
		if i == 0 {
			first = w.First
		}
		first, end = min(first, w.First), max(end, w.First+w.Numbers())
	}
	return Query{SQL: selectDrawn, Args: []any{int64(d.draw.Lane), int64(first), int64(end)}}
}

func (d *drawing) scanDrawn(rows Rows) error {
	a := quota.Allotment{Lane: d.draw.Lane}
	var number int64
	var state int16
	if err := rows.Scan(&number, &a.Pot, &a.Amount, &a.NotAfter, &state); err != nil {
		return err
	}
	a.Number = quota.AllotmentNo(number)
	for i := range d.draw.Wants {
		if w := &d.draw.Wants[i]; a.Number >= w.First && a.Number < w.First+w.Numbers() {
			d.landed = true
			if state == allotmentOpen {
				d.result.Drawn[i].Allotments = append(d.result.Drawn[i].Allotments, a)
			}
		}
	}
	return nil
}

// potQuery is a read of what a want is of, or of what the payer owes.
type potQuery struct {
	d    *drawing
	want int // debtOnly: none
	pot  string
}

const debtOnly = -1

// load reads and locks all that the decisions need: pots by payer and id, the order in which
// everybody locks them, and debts.
func (b *drawBatch) load(ctx context.Context) error {
	var order []potQuery
	for i := range b.drawings {
		d := &b.drawings[i]
		if d.result.Err != nil {
			continue
		}
		d.windows = make([]*quota.Pot, len(d.draw.Wants))
		for w := range d.draw.Wants {
			order = append(order, potQuery{d, w, d.potID(w)})
			if d.draw.Wants[w].Kind == quota.PotWallet {
				order = append(order, potQuery{d, debtOnly, d.potID(w)})
			}
		}
	}
	slices.SortStableFunc(order, func(x, y potQuery) int {
		return cmp.Or(cmp.Compare(x.d.draw.Payer, y.d.draw.Payer), cmp.Compare(x.pot, y.pot))
	})
	queries := make([]Query, len(order))
	for i := range order {
		queries[i] = order[i].query()
	}
	if err := b.tx.Queries(ctx, queries, func(q int, rows Rows) error { return order[q].scan(rows) }); err != nil {
		return err
	}
	for i := range order {
		if err := order[i].loaded(ctx); err != nil {
			return err
		}
	}
	return nil
}

// potID is where a want stands in the order of locks; a wallet stands before its grants.
func (d *drawing) potID(want int) string {
	if d.draw.Wants[want].Kind == quota.PotWallet {
		return quota.GrantPotID("")
	}
	return d.draw.Wants[want].Window.ID()
}

func (q *potQuery) query() Query {
	d, lock := q.d, q.d.batch.tx.ForUpdate()
	switch {
	case q.want == debtOnly:
		return Query{SQL: selectDebt, Args: []any{d.draw.Payer}}
	case d.draw.Wants[q.want].Kind == quota.PotWallet:
		return Query{SQL: selectGrants + lock, Args: []any{d.draw.Payer, d.draw.Now}}
	}
	return Query{SQL: selectPot + lock, Args: []any{d.draw.Payer, q.pot}}
}

func (q *potQuery) scan(rows Rows) error {
	if q.want == debtOnly {
		return rows.Scan(&q.d.debt)
	}
	p, err := scanPot(rows)
	if err != nil {
		return err
	}
	pot := q.d.batch.book.hold(p)
	if q.d.draw.Wants[q.want].Kind == quota.PotWallet {
		q.d.grants = append(q.d.grants, pot)
	} else {
		q.d.windows[q.want] = pot
	}
	return nil
}

// loaded goes on with what was read.
func (q *potQuery) loaded(ctx context.Context) error {
	d := q.d
	switch {
	case q.want == debtOnly:
		return d.payDebt(ctx)
	case d.draw.Wants[q.want].Kind != quota.PotWallet:
		d.makeWindow(q.want)
	}
	return nil
}

// payDebt has a grant that became effective after the debt was made pay it now (R50); without
// this the wallet would stay shut for as long as nobody makes another grant.
func (d *drawing) payDebt(ctx context.Context) (err error) {
	if d.debt == 0 {
		return nil
	}
	slices.SortFunc(d.grants, burnOrder)
	for _, g := range d.grants {
		if err := d.batch.book.settleDebt(ctx, g, g.Available); err != nil {
			return err
		}
	}
	d.debt, err = debtOf(ctx, d.batch.tx, d.draw.Payer)
	return err
}

func burnOrder(a, b *quota.Pot) int {
	if a.Before(b) {
		return -1
	}
	return 1
}

// makeWindow makes a want's window if it is not there, and completes one that only a claim
// has touched.
func (d *drawing) makeWindow(want int) {
	wp, b := &d.draw.Wants[want].Window, d.batch
	pot := d.windows[want]
	if pot == nil {
		pot = b.book.held(quota.PotRef{Payer: d.draw.Payer, Pot: wp.ID()}) // made for another draw of the batch
	}
	if pot == nil {
		pot = b.book.hold(quota.Pot{Payer: d.draw.Payer, ID: wp.ID(), Kind: wp.Kind, Unit: wp.Unit, Start: wp.Start, End: wp.End,
			Account: wp.Account, Limit: wp.Limit, Selector: wp.Selector, CreateTime: b.now})
		b.unmade = append(b.unmade, potRow(pot))
	}
	if pot.End == 0 {
		pot.Unit, pot.End = wp.Unit, wp.End
		b.unfinished = append(b.unfinished, pot)
	}
	d.windows[want] = pot
}

// serve decides what every want gets, in the caller's order, and what is left after all.
func (d *drawing) serve(ctx context.Context) error {
	made := len(d.batch.made)
	for i := range d.draw.Wants {
		if err := d.serveWant(i); err != nil {
			return err
		}
	}
	for i := range d.draw.Wants {
		d.report(i)
	}
	if d.draw.Again && !d.landed && len(d.batch.made) == made && len(d.draw.Wants) > 0 {
		d.trace()
	}
	return nil
}

// serveWant moves what the want gets from available to escrowed, in memory.
func (d *drawing) serveWant(i int) error {
	want := &d.draw.Wants[i]
	switch {
	case d.landed:
		return nil
	case want.Amount <= 0 || want.Floor < 0:
		return violated("draw: want of %d with a floor of %d", want.Amount, want.Floor)
	case want.Kind != quota.PotWallet:
		pot := d.windows[i]
		if want.Window.End <= d.draw.Now {
			return nil // what is reserved now belongs to the next window (R13)
		}
		d.take(i, want.First, pot, quota.TakeFromWindow(pot.Taken(), want, d.draw.LiveNodes))
		return nil
	case d.debt > 0:
		return nil // R50
	}
	for n, t := range quota.TakeFromGrants(slices.Clone(d.grants), want, d.draw.LiveNodes) {
		d.take(i, want.First+quota.AllotmentNo(n), t.Pot, t.Amount)
		t.Pot.Available -= t.Amount
	}
	return nil
}

func (d *drawing) take(want int, number quota.AllotmentNo, pot *quota.Pot, amount int64) {
	if amount <= 0 {
		return
	}
	pot.Escrowed += amount
	drawn := &d.result.Drawn[want]
	drawn.Allotments = append(drawn.Allotments, quota.Allotment{
		Lane: d.draw.Lane, Number: number, Pot: pot.ID, Amount: amount, NotAfter: pot.End})
	d.batch.made = append(d.batch.made, []any{int64(d.draw.Lane), int64(number), pot.Payer, pot.ID, amount, pot.End, d.batch.now})
}

func (d *drawing) report(i int) {
	out := &d.result.Drawn[i]
	if pot := d.windows[i]; pot != nil {
		out.Escrowed, out.Taken = pot.Escrowed, pot.Taken()
		out.Available = max(d.draw.Wants[i].Window.Cap-pot.Taken(), 0)
		return
	}
	out.Debt = d.debt
	for _, g := range d.grants {
		out.Available += g.Available
		out.Escrowed += g.Escrowed
	}
}

// trace takes the draw's first number with a closed allotment of nothing, so that an earlier
// sending, should it still land, meets it and draws nothing either.
func (d *drawing) trace() {
	pot := d.potID(0)
	if d.draw.Wants[0].Kind == quota.PotWallet {
		pot = ""
	}
	d.batch.traces = append(d.batch.traces, []any{int64(d.draw.Lane), int64(d.draw.Wants[0].First), d.draw.Payer, pot, d.batch.now})
}

func (b *drawBatch) write(ctx context.Context) error {
	if err := bulk(ctx, b.tx, insertPotOnce, b.unmade); err != nil {
		return fmt.Errorf("make windows: %w", err)
	}
	for _, pot := range b.unfinished {
		if _, err := b.tx.Exec(ctx, completeWindow, pot.Payer, pot.ID, pot.Unit, pot.End); err != nil {
			return fmt.Errorf("complete window: %w", err)
		}
	}
	if err := b.book.write(ctx); err != nil {
		return err
	}
	if err := bulk(ctx, b.tx, insertAllotment, b.made); err != nil {
		return fmt.Errorf("insert allotments: %w", err)
	}
	if err := bulk(ctx, b.tx, insertTrace, b.traces); err != nil {
		return fmt.Errorf("leave a trace: %w", err)
	}
	return nil
}

// bulk is Tx.Bulk where nothing to do is nothing sent.
func bulk(ctx context.Context, tx Tx, sql string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := tx.Bulk(ctx, sql, rows)
	return err
}
