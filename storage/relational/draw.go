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
func (s *Store) Draw(ctx context.Context, d quota.Draw) ([]quota.Drawn, error) {
	if len(d.Epochs) > quota.MaxAccountDepth {
		return nil, violated("draw: a chain of %d accounts", len(d.Epochs))
	}
	var drawn []quota.Drawn
	err := s.write(ctx, "draw", func(tx Tx) (err error) {
		drawn, err = draw(ctx, tx, &d)
		return err
	})
	return drawn, err
}

func draw(ctx context.Context, tx Tx, d *quota.Draw) ([]quota.Drawn, error) {
	now, err := checkIssuer(ctx, tx, d)
	if err != nil {
		return nil, err
	}
	w := drawing{tx: tx, draw: d, book: newPotBook(tx), now: now, drawn: make([]quota.Drawn, len(d.Wants))}
	if err := w.loadDrawn(ctx); err != nil {
		return nil, fmt.Errorf("read allotments: %w", err)
	}
	if !w.landed {
		if err := checkEpochs(ctx, tx, d.Epochs); err != nil {
			return nil, err
		}
	}
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	// The decision sees the wants as the caller ordered them, the locks were taken by id.
	for i := range d.Wants {
		if err := w.serve(i); err != nil {
			return nil, err
		}
	}
	for i := range d.Wants {
		w.report(i)
	}
	return w.drawn, w.write(ctx)
}

// checkIssuer asserts that the incarnation may issue from the lane (R11) by the database's
// time, which it returns.
func checkIssuer(ctx context.Context, tx Tx, d *quota.Draw) (int64, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return 0, err
	}
	var incarnation, lane int16
	var issueUntil int64
	found, err := queryRow(ctx, tx, selectIssuer, []any{int64(d.Lane), d.Incarnation}, &incarnation, &issueUntil, &lane)
	if err != nil {
		return 0, fmt.Errorf("read lease: %w", err)
	}
	live := found && incarnation == int16(quota.IncarnationLive) && issueUntil > now
	if !live || lane != int16(quota.LaneOpen) {
		return 0, fenced("the incarnation may not issue from this lane any more")
	}
	return now, nil
}

func fenced(message string) error {
	return &quota.Error{Reason: quota.ReasonFenced, Message: message, NotApplied: true}
}

// checkEpochs asserts that every account of the chain is as the caller saw it, and active
// (R12).
func checkEpochs(ctx context.Context, tx Tx, seen []quota.AccountEpoch) error {
	if len(seen) == 0 {
		return violated("draw: no account was named")
	}
	seen = slices.Clone(seen)
	slices.SortFunc(seen, func(a, b quota.AccountEpoch) int { return cmp.Compare(a.Account, b.Account) })
	args := make([]any, quota.MaxAccountDepth)
	for i := range args {
		args[i] = seen[min(i, len(seen)-1)].Account
	}
	current := make(map[string]int64, len(seen))
	err := each(ctx, tx, selectEpochs, args, func(rows Rows) error {
		var id string
		var epoch int64
		var status int16
		err := rows.Scan(&id, &epoch, &status)
		if status == int16(quota.AccountActive) {
			current[id] = epoch
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read epochs: %w", err)
	}
	for _, s := range seen {
		if epoch, active := current[s.Account]; !active || epoch != s.Epoch {
			return &quota.Error{Reason: quota.ReasonPolicyChanged, NotApplied: true,
				Message: fmt.Sprintf("account %q is not as it was seen", s.Account)}
		}
	}
	return nil
}

// drawing is one draw in its transaction.
type drawing struct {
	tx         Tx
	draw       *quota.Draw
	book       *potBook
	now        int64 // the database's
	debt       int64
	grants     []*quota.Pot // open ones
	windows    []*quota.Pot // by want; nil for the wallet
	unmade     []*quota.Pot // windows that are not there yet
	unfinished []*quota.Pot // windows that only a claim has touched
	landed     bool         // an earlier sending: its allotments exist, nothing more is taken
	made       [][]any      // allotment rows
	drawn      []quota.Drawn
}

// load reads all that the decision needs; pots in id order.
func (w *drawing) load(ctx context.Context) error {
	w.windows = make([]*quota.Pot, len(w.draw.Wants))
	order := make([]int, len(w.draw.Wants))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(w.potID(a), w.potID(b)) })
	for _, i := range order {
		load := w.loadWindow
		if w.draw.Wants[i].Kind == quota.PotWallet {
			load = w.loadWallet
		}
		if err := load(ctx, i); err != nil {
			return fmt.Errorf("read pots: %w", err)
		}
	}
	return nil
}

// potID is where a want stands in the order of locks; a wallet stands before its grants.
func (w *drawing) potID(want int) string {
	if w.draw.Wants[want].Kind == quota.PotWallet {
		return quota.GrantPotID("")
	}
	return w.draw.Wants[want].Window.ID()
}

// loadDrawn finds allotments that exist under the numbers this draw reserves: an earlier
// sending of it landed (R11).
func (w *drawing) loadDrawn(ctx context.Context) error {
	wants := w.draw.Wants
	if len(wants) == 0 {
		return nil
	}
	first, end := wants[0].First, wants[0].First
	for i := range wants {
		first, end = min(first, wants[i].First), max(end, wants[i].First+wants[i].Numbers())
	}
	args := []any{int64(w.draw.Lane), int64(first), int64(end)}
	return each(ctx, w.tx, selectDrawn, args, func(rows Rows) error {
		a := quota.Allotment{Lane: w.draw.Lane}
		var number int64
		var state int16
		if err := rows.Scan(&number, &a.Pot, &a.Amount, &a.NotAfter, &state); err != nil {
			return err
		}
		a.Number = quota.AllotmentNo(number)
		for i := range wants {
			if a.Number >= wants[i].First && a.Number < wants[i].First+wants[i].Numbers() {
				w.landed = true
				if state == allotmentOpen {
					w.drawn[i].Allotments = append(w.drawn[i].Allotments, a)
				}
			}
		}
		return nil
	})
}

func (w *drawing) loadWallet(ctx context.Context, _ int) (err error) {
	if w.grants != nil {
		return nil
	}
	if w.grants, err = w.book.grants(ctx, w.draw.Payer, w.draw.Now); err != nil {
		return err
	}
	if w.debt, err = debtOf(ctx, w.tx, w.draw.Payer); err != nil || w.debt == 0 {
		return err
	}
	// A grant that became effective after the debt was made pays it now (R50); without this
	// the wallet would stay shut for as long as nobody makes another grant.
	slices.SortFunc(w.grants, burnOrder)
	for _, g := range w.grants {
		if err := w.book.settleDebt(ctx, g, g.Available); err != nil {
			return err
		}
	}
	w.debt, err = debtOf(ctx, w.tx, w.draw.Payer)
	return err
}

func burnOrder(a, b *quota.Pot) int {
	if a.Before(b) {
		return -1
	}
	return 1
}

func (w *drawing) loadWindow(ctx context.Context, want int) error {
	wp := &w.draw.Wants[want].Window
	pot, err := w.book.find(ctx, quota.PotRef{Payer: w.draw.Payer, Pot: wp.ID()})
	if err != nil {
		return err
	}
	if pot == nil {
		pot = w.book.hold(quota.Pot{Payer: w.draw.Payer, ID: wp.ID(), Kind: wp.Kind, Unit: wp.Unit, Start: wp.Start, End: wp.End,
			Account: wp.Account, Limit: wp.Limit, Selector: wp.Selector, CreateTime: w.now})
		unmade := *pot
		w.unmade = append(w.unmade, &unmade)
	}
	if pot.End == 0 {
		pot.Unit, pot.End = wp.Unit, wp.End
		w.unfinished = append(w.unfinished, pot)
	}
	w.windows[want] = pot
	return nil
}

// serve moves what the want gets from available to escrowed, in memory.
func (w *drawing) serve(i int) error {
	want := &w.draw.Wants[i]
	switch {
	case w.landed:
		return nil
	case want.Amount <= 0 || want.Floor < 0:
		return violated("draw: want of %d with a floor of %d", want.Amount, want.Floor)
	case want.Kind != quota.PotWallet:
		pot := w.windows[i]
		if want.Window.End <= w.draw.Now {
			return nil // what is reserved now belongs to the next window (R13)
		}
		w.take(i, want.First, pot, quota.TakeFromWindow(pot.Taken(), want, w.draw.LiveNodes))
		return nil
	case w.debt > 0:
		return nil // R50
	}
	for n, t := range quota.TakeFromGrants(slices.Clone(w.grants), want, w.draw.LiveNodes) {
		w.take(i, want.First+quota.AllotmentNo(n), t.Pot, t.Amount)
		t.Pot.Available -= t.Amount
	}
	return nil
}

func (w *drawing) take(want int, number quota.AllotmentNo, pot *quota.Pot, amount int64) {
	if amount <= 0 {
		return
	}
	pot.Escrowed += amount
	w.drawn[want].Allotments = append(w.drawn[want].Allotments, quota.Allotment{
		Lane: w.draw.Lane, Number: number, Pot: pot.ID, Amount: amount, NotAfter: pot.End})
	w.made = append(w.made, []any{int64(w.draw.Lane), int64(number), pot.Payer, pot.ID, amount, pot.End, w.now})
}

// report fills in what is left after the whole draw.
func (w *drawing) report(i int) {
	out := &w.drawn[i]
	if pot := w.windows[i]; pot != nil {
		out.Escrowed, out.Taken = pot.Escrowed, pot.Taken()
		out.Available = max(w.draw.Wants[i].Window.Cap-pot.Taken(), 0)
		return
	}
	out.Debt = w.debt
	for _, g := range w.grants {
		out.Available += g.Available
		out.Escrowed += g.Escrowed
	}
}

func (w *drawing) write(ctx context.Context) error {
	var rows [][]any
	for _, pot := range w.unmade {
		rows = append(rows, potRow(pot))
	}
	if err := bulk(ctx, w.tx, insertPotOnce, rows); err != nil {
		return fmt.Errorf("make windows: %w", err)
	}
	for _, pot := range w.unfinished {
		if _, err := w.tx.Exec(ctx, completeWindow, pot.Payer, pot.ID, pot.Unit, pot.End); err != nil {
			return fmt.Errorf("complete window: %w", err)
		}
	}
	if err := w.book.write(ctx); err != nil {
		return err
	}
	if err := bulk(ctx, w.tx, insertAllotment, w.made); err != nil {
		return fmt.Errorf("insert allotments: %w", err)
	}
	if w.draw.Again && !w.landed && len(w.made) == 0 && len(w.draw.Wants) > 0 {
		return w.trace(ctx)
	}
	return nil
}

// trace takes the draw's first number with a closed allotment of nothing, so that an earlier
// sending, should it still land, meets it and draws nothing either.
func (w *drawing) trace(ctx context.Context) error {
	pot := w.potID(0)
	if w.draw.Wants[0].Kind == quota.PotWallet {
		pot = ""
	}
	_, err := w.tx.Exec(ctx, insertTrace, int64(w.draw.Lane), int64(w.draw.Wants[0].First), w.draw.Payer, pot, w.now)
	if err != nil {
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
