package resource

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// limited is what has rates and concurrency limits: a plan version, or an entitlement.
type limited interface {
	GetRates() []*purserv1.RateLimit
	GetConcurrency() []*purserv1.ConcurrencyLimit
}

func fromLimits(l limited) (out manifest.Limits) {
	for _, r := range l.GetRates() {
		out.Rates = append(out.Rates, manifest.Rate{ID: r.GetId(), Meter: r.GetMeter(), Limit: r.GetLimit(), Burst: r.GetBurst(),
			Per: manifest.Duration(r.GetPer().AsDuration()), Label: r.GetLabelKey()})
	}
	for _, c := range l.GetConcurrency() {
		out.Concurrency = append(out.Concurrency, manifest.Concurrency{ID: c.GetId(), Limit: c.GetLimit(), Label: c.GetLabelKey()})
	}
	return out
}

func sortedLimits(l manifest.Limits) manifest.Limits {
	return manifest.Limits{
		Rates:       slices.SortedFunc(slices.Values(l.Rates), func(a, b manifest.Rate) int { return cmp.Compare(a.ID, b.ID) }),
		Concurrency: slices.SortedFunc(slices.Values(l.Concurrency), func(a, b manifest.Concurrency) int { return cmp.Compare(a.ID, b.ID) }),
	}
}

// limitWords says limits in short: 60 requests per minute for each user, 4 live.
func limitWords(l limited) string {
	var out []string
	add := func(words, label string) {
		if label != "" {
			words += " for each " + label
		}
		out = append(out, words)
	}
	for _, r := range l.GetRates() {
		words := fmt.Sprintf("%d %s per %s", r.GetLimit(), r.GetMeter(), perWords(r.GetPer().AsDuration()))
		if r.GetBurst() != 0 {
			words += fmt.Sprintf(" (%d at once)", r.GetBurst())
		}
		add(words, r.GetLabelKey())
	}
	for _, c := range l.GetConcurrency() {
		add(strconv.FormatInt(c.GetLimit(), 10)+" live", c.GetLabelKey())
	}
	return strings.Join(out, ", ")
}

func perWords(d time.Duration) string {
	switch d {
	case time.Second:
		return "second"
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	}
	return manifest.Duration(d).String()
}
