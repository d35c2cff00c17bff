package quota

import (
	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota/window"
)

// MaxAccountDepth bounds an account's parent chain, itself included (R36).
const MaxAccountDepth = 8

// AccountStatus says whether an account may get new tokens.
type AccountStatus uint8

// Account states.
const (
	AccountActive AccountStatus = iota + 1
	AccountSuspended
)

// Account is who pays, or a member of one who pays.
type Account struct {
	ID            string
	Parent        string // "" = pays itself
	Payer         string // root of the parent chain: whose wallet pays
	DisplayName   string
	TimeZone      string // IANA name; windows of its budgets and quotas follow it
	Status        AccountStatus
	SuspendReason string
	Epoch         int64         // bumped by every change a draw must notice (R12)
	Plan          authz.PlanRef // zero = the nearest ancestor's
	CreateTime    int64
	Revision      int64
}

// Budget is a cap over a window on credits or on a meter.
type Budget struct {
	Account     string
	ID          string
	Unit        string // UnitCredits or a meter
	Cap         int64  // micros or a count, > 0
	Window      window.Kind
	LabelKey    string // "" = the whole account
	LabelValue  string // "" with a LabelKey = each value has its own
	Soft        bool   // warns, never denies
	WarnPercent int    // 1..100: warn from this share of the cap; 0 = never
	CreateTime  int64
	Revision    int64
}

// Profile is an account with all a decision needs of it: the chain from the account (first)
// to its payer (last), and each one's budgets.
type Profile struct {
	Chain    []Account
	Budgets  [][]Budget // by position in Chain
	Revision int64      // of the store when it was read
}

// ProfileResult answers for one of several accounts.
type ProfileResult struct {
	Profile *Profile
	Err     error // ACCOUNT_NOT_FOUND, or INVARIANT_VIOLATED if the chain as stored cannot be
}

// Account is the account itself.
func (p *Profile) Account() *Account { return &p.Chain[0] }

// Payer is the root of the chain.
func (p *Profile) Payer() *Account { return &p.Chain[len(p.Chain)-1] }

// Suspended finds the nearest suspended account of the chain.
func (p *Profile) Suspended() (*Account, bool) {
	for i := range p.Chain {
		if p.Chain[i].Status == AccountSuspended {
			return &p.Chain[i], true
		}
	}
	return nil, false
}

// Plan is the subscription in force: the account's own, else its nearest ancestor's.
func (p *Profile) Plan() (authz.PlanRef, bool) {
	for i := range p.Chain {
		if p.Chain[i].Plan.ID != "" {
			return p.Chain[i].Plan, true
		}
	}
	return authz.PlanRef{}, false
}

// Epochs lists what a draw has to check (R12).
func (p *Profile) Epochs() []AccountEpoch {
	out := make([]AccountEpoch, len(p.Chain))
	for i := range p.Chain {
		out[i] = AccountEpoch{Account: p.Chain[i].ID, Epoch: p.Chain[i].Epoch}
	}
	return out
}

// AccountEpoch is an account's epoch as somebody saw it.
type AccountEpoch struct {
	Account string
	Epoch   int64
}
