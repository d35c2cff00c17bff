package account

import (
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
)

func toAPIAccount(a *quota.Account) *purserv1.Account {
	out := &purserv1.Account{
		Id:            a.ID,
		Parent:        a.Parent,
		Payer:         a.Payer,
		DisplayName:   a.DisplayName,
		TimeZone:      a.TimeZone,
		State:         purserv1.AccountState_ACCOUNT_STATE_ACTIVE,
		SuspendReason: a.SuspendReason,
		Plan:          a.Plan.ID,
		PlanVersion:   a.Plan.Version,
		Etag:          admin.ETag(a.Revision),
		CreateTime:    admin.Time(a.CreateTime),
	}
	if a.Status == quota.AccountSuspended {
		out.State = purserv1.AccountState_ACCOUNT_STATE_SUSPENDED
	}
	return out
}
