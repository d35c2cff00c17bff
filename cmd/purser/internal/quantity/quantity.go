// Package quantity reads and writes amounts of meters as a command line has them:
// input_tokens=1200, and output_tokens=800:50 for what may shrink to 50.
package quantity

import (
	"fmt"
	"strconv"
	"strings"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// Estimates reads METER=QUANTITY or METER=QUANTITY:LEAST, one to an item, each meter once.
func Estimates(items []string) ([]*purserv1.Estimate, error) {
	var out []*purserv1.Estimate
	seen := map[string]bool{}
	for _, item := range items {
		meter, text, ok := strings.Cut(item, "=")
		if !ok || meter == "" {
			return nil, fmt.Errorf("estimate %q: want METER=QUANTITY, or METER=QUANTITY:LEAST for what may shrink", item)
		}
		if seen[meter] {
			return nil, fmt.Errorf("estimate %q: the meter %s is there twice", item, meter)
		}
		seen[meter] = true
		text, least, flexible := strings.Cut(text, ":")
		e := &purserv1.Estimate{Meter: meter}
		var err error
		if e.Quantity, err = count(text); err != nil {
			return nil, fmt.Errorf("estimate %q: %w", item, err)
		}
		if flexible {
			n, err := count(least)
			if err != nil {
				return nil, fmt.Errorf("estimate %q: %w", item, err)
			}
			if n > e.Quantity {
				return nil, fmt.Errorf("estimate %q: the least, %d, is above the quantity", item, n)
			}
			e.MinQuantity = &n
		}
		out = append(out, e)
	}
	return out, nil
}

// Used reads METER=QUANTITY, one to an item, each meter once.
func Used(items []string) ([]*purserv1.MeterQuantity, error) {
	var out []*purserv1.MeterQuantity
	seen := map[string]bool{}
	for _, item := range items {
		meter, text, ok := strings.Cut(item, "=")
		if !ok || meter == "" {
			return nil, fmt.Errorf("usage %q: want METER=QUANTITY", item)
		}
		if seen[meter] {
			return nil, fmt.Errorf("usage %q: the meter %s is there twice", item, meter)
		}
		seen[meter] = true
		n, err := count(text)
		if err != nil {
			return nil, fmt.Errorf("usage %q: %w", item, err)
		}
		out = append(out, &purserv1.MeterQuantity{Meter: meter, Quantity: n})
	}
	return out, nil
}

func count(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > amount.Max {
		return 0, fmt.Errorf("%q is not a whole number from 0 to %d", text, int64(amount.Max))
	}
	return n, nil
}

// Words writes quantities as they are read.
func Words(list []*purserv1.MeterQuantity) string {
	var out []string
	for _, q := range list {
		out = append(out, fmt.Sprintf("%s=%d", q.GetMeter(), q.GetQuantity()))
	}
	return strings.Join(out, " ")
}

// Of is an amount with its unit: micros as credits, or a count if a meter is named.
func Of(meter string, v int64) string {
	if meter == "" {
		return amount.FormatCredits(v) + " credits"
	}
	return fmt.Sprintf("%d %s", v, meter)
}
