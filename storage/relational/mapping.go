package relational

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/purser-io/purser/quota"
)

// scanPot reads a row whose columns are those of selectPot.
func scanPot(rows Rows) (quota.Pot, error) {
	var p quota.Pot
	var kind, grantKind, voided int16
	var priority int64
	err := rows.Scan(&p.Payer, &p.ID, &kind, &p.Unit, &p.Granted, &p.Available, &p.Escrowed, &p.Spent, &p.Expired,
		&p.Refunded, &p.Direct, &p.Start, &p.End, &p.Account, &p.Limit, &p.Selector, &grantKind, &priority,
		&p.CostBasis, &p.Note, &voided, &p.CreateTime)
	p.Kind, p.GrantKind = quota.PotKind(kind), quota.GrantKind(grantKind)
	p.Priority, p.Voided = int(priority), voided != 0
	return p, err
}

// potRow is a pot as insertPot and insertPotOnce take it.
func potRow(p *quota.Pot) []any {
	return []any{p.Payer, p.ID, int16(p.Kind), p.Unit, p.Granted, p.Available, p.Escrowed, p.Spent, p.Expired,
		p.Refunded, p.Direct, p.Start, p.End, p.Account, p.Limit, p.Selector, int16(p.GrantKind), int64(p.Priority),
		p.CostBasis, p.Note, flag(p.Voided), p.CreateTime}
}

// flag is how a truth is stored.
func flag(b bool) int16 {
	if b {
		return 1
	}
	return 0
}

// usageLine is a line of usage_events.usage.
type usageLine struct {
	Meter    string `json:"meter"`
	Quantity int64  `json:"quantity"`
	Micros   int64  `json:"micros"`
}

// grantUse is an element of usage_events.grants.
type grantUse struct {
	Grant  string `json:"grant"`
	Micros int64  `json:"micros"`
}

// usageEventRow is an event as insertUsageEvent takes it.
func usageEventRow(e *quota.UsageEvent) ([]any, error) {
	lines := make([]usageLine, len(e.Usage))
	for i, q := range e.Usage {
		lines[i] = usageLine{Meter: q.Meter, Quantity: q.Quantity}
		if i < len(e.Lines) {
			lines[i].Micros = e.Lines[i]
		}
	}
	grants := make([]grantUse, len(e.Grants))
	for i, g := range e.Grants {
		grants[i] = grantUse(g)
	}
	labels := e.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	var texts [3]string
	for i, v := range []any{labels, lines, grants} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode usage event: %w", err)
		}
		texts[i] = string(b)
	}
	return []any{int64(e.Key.Lane), int64(e.Key.Sequence), int16(e.Key.Phase), e.Account, e.Payer, e.Principal, e.Feature,
		texts[0], e.PriceVersion, texts[1], e.Charged, e.Covered, e.Uncovered, texts[2], int16(e.Outcome),
		e.ReservedAt, e.SettledAt, int64(e.Nonce)}, nil
}

// scanUsageEvent reads a row whose columns are those of insertUsageEvent.
func scanUsageEvent(rows Rows) (quota.UsageEvent, error) {
	var e quota.UsageEvent
	var lane, sequence, nonce int64
	var phase, outcome int16
	var labels, usage, grants string
	err := rows.Scan(&lane, &sequence, &phase, &e.Account, &e.Payer, &e.Principal, &e.Feature, &labels, &e.PriceVersion,
		&usage, &e.Charged, &e.Covered, &e.Uncovered, &grants, &outcome, &e.ReservedAt, &e.SettledAt, &nonce)
	if err != nil {
		return e, err
	}
	e.Key = quota.EntryKey{Lane: quota.LaneID(lane), Sequence: uint64(sequence), Phase: uint8(phase)}
	e.Nonce = uint64(nonce)
	e.Outcome, e.Late = quota.Outcome(outcome), e.Key.Phase == quota.PhaseLate
	var lines []usageLine
	var uses []grantUse
	err = errors.Join(json.Unmarshal([]byte(labels), &e.Labels), json.Unmarshal([]byte(usage), &lines),
		json.Unmarshal([]byte(grants), &uses))
	if err != nil {
		return e, fmt.Errorf("decode usage event: %w", err)
	}
	if len(e.Labels) == 0 {
		e.Labels = nil
	}
	for _, l := range lines {
		e.Usage = append(e.Usage, quota.Quantity{Meter: l.Meter, Quantity: l.Quantity})
		e.Lines = append(e.Lines, l.Micros)
	}
	for _, u := range uses {
		e.Grants = append(e.Grants, quota.GrantUse(u))
	}
	return e, nil
}
