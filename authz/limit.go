package authz

import "time"

// Rate bounds how fast a meter is used: on average Limit units each Per, and at most Burst of
// them at once. It is counted in the memory of each node (R55).
type Rate struct {
	ID       string
	Meter    string        // one of a feature's, or MeterRequests
	Limit    int64         // units of the meter, > 0
	Per      time.Duration // 1 s to 1 h; what is longer is a quota
	Burst    int64         // 0 = Limit
	LabelKey string        // each value of this label is counted by itself; "" = all together
}

// Concurrency bounds how many reservations are live at the same time. It is counted in the
// memory of each node (R55).
type Concurrency struct {
	ID       string
	Limit    int64  // reservations, > 0
	LabelKey string // as of a Rate
}

// Limits are the rates and concurrency limits of a plan, or of one of its entitlements. They
// count for the subscribed account; ids are unique over both lists.
type Limits struct {
	Rates       []Rate
	Concurrency []Concurrency
}

// Uses reports whether a rate counts a meter.
func (l *Limits) Uses(meter string) bool {
	for i := range l.Rates {
		if l.Rates[i].Meter == meter {
			return true
		}
	}
	return false
}
