package catalog

import (
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// limited is what has rates and concurrency limits: a plan version, or an entitlement.
type limited interface {
	GetRates() []*purserv1.RateLimit
	GetConcurrency() []*purserv1.ConcurrencyLimit
}

// fromAPILimits checks what goes over both lists: a limit's counter is named by its id. prefix
// is the path of m in the request.
func fromAPILimits(prefix string, m limited) (out authz.Limits, err error) {
	used := make(map[string]struct{})
	once := func(list string, i int, id string) error {
		if _, twice := used[id]; twice {
			return grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{
				Field:       fmt.Sprintf("%s%s[%d].id", prefix, list, i),
				Description: fmt.Sprintf("limit %q is there twice; ids are unique over rates and concurrency", id),
			})
		}
		used[id] = struct{}{}
		return nil
	}
	for i, r := range m.GetRates() {
		if err := once("rates", i, r.GetId()); err != nil {
			return out, err
		}
		out.Rates = append(out.Rates, authz.Rate{ID: r.GetId(), Meter: r.GetMeter(), Limit: r.GetLimit(),
			Per: r.GetPer().AsDuration(), Burst: r.GetBurst(), LabelKey: r.GetLabelKey()})
	}
	for i, c := range m.GetConcurrency() {
		if err := once("concurrency", i, c.GetId()); err != nil {
			return out, err
		}
		out.Concurrency = append(out.Concurrency, authz.Concurrency{ID: c.GetId(), Limit: c.GetLimit(), LabelKey: c.GetLabelKey()})
	}
	return out, nil
}

func toAPIRates(rates []authz.Rate) []*purserv1.RateLimit {
	var out []*purserv1.RateLimit
	for _, r := range rates {
		out = append(out, &purserv1.RateLimit{Id: r.ID, Meter: r.Meter, Limit: r.Limit, Per: durationpb.New(r.Per),
			Burst: r.Burst, LabelKey: r.LabelKey})
	}
	return out
}

func toAPIConcurrency(limits []authz.Concurrency) []*purserv1.ConcurrencyLimit {
	var out []*purserv1.ConcurrencyLimit
	for _, c := range limits {
		out = append(out, &purserv1.ConcurrencyLimit{Id: c.ID, Limit: c.Limit, LabelKey: c.LabelKey})
	}
	return out
}
