package session

import (
	"context"
	"errors"
	"time"

	"github.com/purser-io/purser/quota"
)

// watch looks after open streams until ctx ends: it tells them that the node drains, and ends
// those whose key no longer opens anything. Keys come from memory, which the poll of changes
// keeps current, so a revoked key ends its streams within the bound of every other change.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(s.Watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		streams := s.open()
		if settleFor, draining := s.Node.Draining(); draining {
			for _, st := range streams {
				st.drain(settleFor)
			}
		}
		s.checkKeys(ctx, streams)
	}
}

// lookup bounds the reading of keys that are not in memory.
const lookup = 5 * time.Second

// checkKeys ends the streams of keys that are not valid any more. A key that cannot be looked
// up stays: with the store away the node's lease ends what it may do.
func (s *Server) checkKeys(ctx context.Context, streams []*stream) {
	ctx, cancel := context.WithTimeout(ctx, lookup)
	defer cancel()
	now := s.Now().UnixNano()
	ended := make(map[string]bool)
	for _, st := range streams {
		id := st.principal.KeyID
		end, known := ended[id]
		if !known {
			k, err := s.Keys.FindKey(ctx, id)
			end = errors.Is(err, quota.ReasonKeyNotFound) || err == nil && !k.Usable(now)
			ended[id] = end
		}
		if end {
			st.fail(&quota.Error{Reason: quota.ReasonCredentialsInvalid,
				Message: "the API key has expired or was revoked while the session was open"})
		}
	}
}
