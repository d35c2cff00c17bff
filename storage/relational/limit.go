package relational

import (
	"time"

	"github.com/purser-io/purser/authz"
)

// The forms of rates and concurrency limits in JSON columns. They are stored: fields are added,
// never renamed.
type (
	limitRows struct {
		Rates       []rateRow        `json:"rates,omitempty"`
		Concurrency []concurrencyRow `json:"concurrency,omitempty"`
	}
	rateRow struct {
		ID    string `json:"id"`
		Meter string `json:"meter"`
		Limit int64  `json:"limit"`
		Per   int64  `json:"per"` // ns
		Burst int64  `json:"burst,omitempty"`
		Label string `json:"label,omitempty"`
	}
	concurrencyRow struct {
		ID    string `json:"id"`
		Limit int64  `json:"limit"`
		Label string `json:"label,omitempty"`
	}
)

func toLimits(l *authz.Limits) (rows limitRows) {
	for _, r := range l.Rates {
		rows.Rates = append(rows.Rates, rateRow{ID: r.ID, Meter: r.Meter, Limit: r.Limit, Per: int64(r.Per), Burst: r.Burst, Label: r.LabelKey})
	}
	for _, c := range l.Concurrency {
		rows.Concurrency = append(rows.Concurrency, concurrencyRow{ID: c.ID, Limit: c.Limit, Label: c.LabelKey})
	}
	return rows
}

func fromLimits(rows limitRows) (l authz.Limits) {
	for _, r := range rows.Rates {
		l.Rates = append(l.Rates, authz.Rate{ID: r.ID, Meter: r.Meter, Limit: r.Limit, Per: time.Duration(r.Per), Burst: r.Burst, LabelKey: r.Label})
	}
	for _, c := range rows.Concurrency {
		l.Concurrency = append(l.Concurrency, authz.Concurrency{ID: c.ID, Limit: c.Limit, LabelKey: c.Label})
	}
	return l
}
