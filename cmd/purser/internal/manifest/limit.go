package manifest

import (
	"fmt"
	"strings"
	"time"

	"github.com/purser-io/purser/quota/label"
)

// Limits are the rates and concurrency limits of a plan, or of one of its entitlements.
type Limits struct {
	Rates       []Rate        `json:"rates,omitempty"`
	Concurrency []Concurrency `json:"concurrency,omitempty"`
}

// Rate bounds how fast a meter is used: Limit units each Per, Burst at once (0 = Limit), for
// each value of the label if there is one.
type Rate struct {
	ID    string   `json:"id"`
	Meter string   `json:"meter"`
	Limit int64    `json:"limit"`
	Per   Duration `json:"per"`
	Burst int64    `json:"burst,omitempty"`
	Label string   `json:"label,omitempty"`
}

// Duration is a time as a file writes it: 1m.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String leaves out the zeros that time.Duration writes behind: 1m and not 1m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// Concurrency bounds how many reservations are live at the same time, for each value of the
// label if there is one.
type Concurrency struct {
	ID    string `json:"id"`
	Limit int64  `json:"limit"`
	Label string `json:"label,omitempty"`
}

func (r *reader) rate(l *Rate) visit {
	l.Meter = "requests"
	return r.mapping(fields{
		"id":    {visit: r.id(&l.ID), required: true},
		"meter": {visit: r.id(&l.Meter)},
		"limit": {visit: r.integer(&l.Limit, 1, maxAmount), required: true},
		"per":   {visit: r.duration(&l.Per, time.Second, time.Hour), required: true},
		"burst": {visit: r.integer(&l.Burst, 1, maxAmount)},
		"label": {visit: r.labelKey(&l.Label)},
	})
}

func (r *reader) concurrency(l *Concurrency) visit {
	return r.mapping(fields{
		"id":    {visit: r.id(&l.ID), required: true},
		"limit": {visit: r.integer(&l.Limit, 1, 1_000_000), required: true},
		"label": {visit: r.labelKey(&l.Label)},
	})
}

func (r *reader) duration(to *Duration, least, most time.Duration) visit {
	return r.scalar("a duration such as 1m", func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%q is not a duration from %v to %v, such as 1m", text, least, most)
		}
		*to = Duration(d)
		return nil
	})
}

// labelKey reads the key of a label whose values are counted by themselves.
func (r *reader) labelKey(to *string) visit {
	return r.scalar("the key of a label, such as user", func(text string) error {
		if _, err := label.New(map[string]string{text: ""}); err != nil {
			return fmt.Errorf("%w: each value of it is counted by itself, so it is a key alone", err)
		}
		*to = text
		return nil
	})
}
