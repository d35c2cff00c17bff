package audit

import (
	"bytes"

	"github.com/purser-io/purser/quota"
)

func (a *auditor) readUsageEvents() error {
	var enc encoder
	return a.r.UsageEvents(func(u quota.UsageEvent) error {
		a.report.UsageEvents++
		a.events.right(u.Key.Lane, enc.event(&u))
		granted := int64(0)
		for _, g := range u.Grants {
			a.add(&granted, g.Micros, entryName(u.Key, u.Nonce))
		}
		if granted != u.Covered {
			a.find("I5", entryName(u.Key, u.Nonce), "its usage event took %d micros from grants and says that %d were covered", granted, u.Covered)
		}
		return nil
	})
}

// explainEvents names the settlements that were not projected, or projected otherwise.
func (a *auditor) explainEvents() error {
	wrong := a.events.differing()
	if len(wrong) == 0 {
		return nil
	}
	want := map[quota.EntryKey]quota.UsageEvent{}
	err := a.r.Batches(func(b quota.Batch) error {
		for i := range b.Records {
			r := &b.Records[i]
			if wrong[r.Lane] && a.projected(b.Lane, b.No) && r.Used() {
				want[r.EntryKey] = eventOf(r)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var x, y encoder
	if err := a.r.UsageEvents(func(got quota.UsageEvent) error {
		if !wrong[got.Key.Lane] {
			return nil
		}
		w, ok := want[got.Key]
		switch {
		case !ok:
			a.find("I5", entryName(got.Key, got.Nonce), "there is a usage event (%s) without a projected settlement", eventText(&got))
		case !bytes.Equal(x.event(&w), y.event(&got)):
			a.find("I5", entryName(got.Key, got.Nonce), "its usage event says %s, its record %s", eventText(&got), eventText(&w))
		}
		delete(want, got.Key)
		return nil
	}); err != nil {
		return err
	}
	for _, key := range sortedKeys(want) {
		u := want[key]
		a.find("I10", entryName(key, u.Nonce), "it is projected, but has no usage event (%s)", eventText(&u))
	}
	return nil
}
