package authority

import "github.com/purser-io/purser/quota"

// Watcher is shown what happens, if anybody looks. Calls come from the hot path: they must not
// block, and keep nothing of what they are given.
type Watcher interface {
	// Watched reports whether anybody looks; the others are called only then.
	Watched() bool
	// Decided shows a decision about r.
	Decided(principal string, r *quota.Request, d *quota.Decision)
	// Extended shows a decision about more of a reservation; r has its account and feature.
	Extended(principal string, r *quota.Request, d *quota.Decision)
	// Settled shows a settlement that became durable through this node.
	Settled(r *quota.Record, e *quota.Entry)
}

type noWatcher struct{}

func (noWatcher) Watched() bool                                    { return false }
func (noWatcher) Decided(string, *quota.Request, *quota.Decision)  {}
func (noWatcher) Extended(string, *quota.Request, *quota.Decision) {}
func (noWatcher) Settled(*quota.Record, *quota.Entry)              {}
