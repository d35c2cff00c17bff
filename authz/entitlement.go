package authz

import "github.com/purser-io/purser/quota/window"

// FeatureKind says what a plan states about a feature.
type FeatureKind uint8

// Feature kinds (design: words).
const (
	FeatureBoolean FeatureKind = iota + 1
	FeatureConfig
	FeatureMetered
)

// String is the kind's name as files and messages spell it.
func (k FeatureKind) String() string {
	switch k {
	case FeatureBoolean:
		return "BOOLEAN"
	case FeatureConfig:
		return "CONFIG"
	case FeatureMetered:
		return "METERED"
	}
	return "UNSPECIFIED"
}

// MeterRequests is the meter that every feature has: 1 for each committed reservation.
const MeterRequests = "requests"

// Feature is something a plan may allow.
type Feature struct {
	ID          string
	Kind        FeatureKind
	DisplayName string
	Description string
	Meters      []string // METERED: what its usage is measured in, beside "requests"
	CreateTime  int64    // unix ns
	Revision    int64    // of the last change; the etag
}

// Quota is a plan's cap over a window on one meter of a feature. Its counter's key has no
// plan version in it, so an upgrade keeps what was used (R33).
type Quota struct {
	ID     string
	Meter  string
	Limit  int64
	Window window.Kind
}

// Entitlement is what a plan version says about one feature.
type Entitlement struct {
	Feature string
	Config  string // CONFIG: the value carried
	Quotas  []Quota
	Limits  Limits // of this feature alone
}

// Plan is one immutable published version of a plan.
type Plan struct {
	ID           string
	Version      int64 // 1, 2, ...
	DisplayName  string
	RateCard     string // whose prices apply
	Entitlements []Entitlement
	Limits       Limits   // of all features together
	Fallback     []string // a chain: who asks for one of them may be given one behind it
	CreateTime   int64    // unix ns
	Revision     int64
}

// Entitlement finds what the plan says about feature; nothing said means not entitled.
func (p *Plan) Entitlement(feature string) (*Entitlement, bool) {
	for i := range p.Entitlements {
		if p.Entitlements[i].Feature == feature {
			return &p.Entitlements[i], true
		}
	}
	return nil, false
}

// PlanRef names a plan version.
type PlanRef struct {
	ID      string
	Version int64
}
