package apply

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func rates(list []manifest.Rate) []*purserv1.RateLimit {
	var out []*purserv1.RateLimit
	for _, r := range list {
		out = append(out, &purserv1.RateLimit{Id: r.ID, Meter: r.Meter, Limit: r.Limit, Per: durationpb.New(time.Duration(r.Per)),
			Burst: r.Burst, LabelKey: r.Label})
	}
	return out
}

func concurrency(list []manifest.Concurrency) []*purserv1.ConcurrencyLimit {
	var out []*purserv1.ConcurrencyLimit
	for _, c := range list {
		out = append(out, &purserv1.ConcurrencyLimit{Id: c.ID, Limit: c.Limit, LabelKey: c.Label})
	}
	return out
}
