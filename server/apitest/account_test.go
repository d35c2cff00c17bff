package apitest

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func accountsAndSubscriptions(c *conversation) {
	c.shop()
	c.say("a child draws on its parent's wallet")
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "acme", TimeZone: "Europe/Berlin", DisplayName: "Acme Corp."})
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "acme:search", Parent: "acme"})
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "acme"})
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "x", Parent: "nowhere"})
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "x", TimeZone: "Mars/Olympus"})
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "-x"})
	c.say("a chain has at most 8 accounts")
	parent := "acme:search"
	for i := 3; i <= 8; i++ {
		id := fmt.Sprintf("level%d", i)
		must(c.world, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: id, Parent: parent})
		parent = id
	}
	call(c, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "level9", Parent: parent})

	c.say("an update under an etag")
	old := call(c, asViewer, c.accounts.GetAccount, &purserv1.GetAccountRequest{Id: "acme"}).GetAccount()
	rename := func(name, zone string, mask ...string) *purserv1.UpdateAccountRequest {
		return &purserv1.UpdateAccountRequest{Id: "acme", DisplayName: name, TimeZone: zone, Etag: old.GetEtag(),
			UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}}
	}
	call(c, asAdmin, c.accounts.UpdateAccount, rename("Acme Inc.", "Asia/Tokyo", "display_name"))
	call(c, asAdmin, c.accounts.UpdateAccount, rename("Acme Ltd.", "Asia/Tokyo", "time_zone"))
	call(c, asAdmin, c.accounts.UpdateAccount, &purserv1.UpdateAccountRequest{Id: "acme", DisplayName: "?"})
	call(c, asViewer, c.accounts.GetAccount, &purserv1.GetAccountRequest{Id: "nowhere"})

	c.say("a subscription pins a version, and can be ended")
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro"})
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro", Version: 2})
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "nowhere"})
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "nowhere", Plan: "pro"})
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Version: 1})
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme"})

	c.say("pages")
	page := call(c, asViewer, c.accounts.ListAccounts, &purserv1.ListAccountsRequest{PageSize: 3})
	call(c, asViewer, c.accounts.ListAccounts, &purserv1.ListAccountsRequest{PageSize: 100, PageToken: page.GetNextPageToken()})
	call(c, asViewer, c.accounts.ListAccounts, &purserv1.ListAccountsRequest{PageToken: "?"})
	call(c, asViewer, c.accounts.ListAccounts, &purserv1.ListAccountsRequest{PageSize: 1001})
}

func grantsInOrder(c *conversation) {
	must(c.world, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "acme"})
	must(c.world, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "acme:search", Parent: "acme"})
	c.say("grants go to the payer's wallet")
	call(c, asAdmin, c.accounts.CreateGrant, grant("acme:search", "bought", 5*credit))
	gift := grant("acme", "gift", credit)
	gift.Kind, gift.Priority, gift.CostBasis, gift.Note = purserv1.GrantKind_GRANT_KIND_PROMOTIONAL, 1, "0 EUR", "for the delay"
	call(c, asAdmin, c.accounts.CreateGrant, gift)
	soon := grant("acme", "soon", 2*credit)
	soon.ExpireTime = &timestamppb.Timestamp{Seconds: 4_000_000_000}
	call(c, asAdmin, c.accounts.CreateGrant, soon)
	unnamed := grant("acme", "", 3*credit)
	unnamed.EffectiveTime = nil
	call(c, asAdmin, c.accounts.CreateGrant, unnamed)
	c.say("refused")
	call(c, asAdmin, c.accounts.CreateGrant, grant("acme", "bought", 5*credit))
	call(c, asAdmin, c.accounts.CreateGrant, grant("nowhere", "g", 5*credit))
	soon.Grant, soon.EffectiveTime = "past", nil
	soon.ExpireTime = &timestamppb.Timestamp{Seconds: 1_600_000_000}
	call(c, asAdmin, c.accounts.CreateGrant, soon)
	soon.EffectiveTime = &timestamppb.Timestamp{Seconds: 1_650_000_000}
	call(c, asAdmin, c.accounts.CreateGrant, soon)
	c.say("they are listed by id and burn by priority, expiry, kind, effective time")
	page := call(c, asViewer, c.accounts.ListGrants, &purserv1.ListGrantsRequest{Account: "acme:search", PageSize: 2})
	call(c, asViewer, c.accounts.ListGrants, &purserv1.ListGrantsRequest{Account: "acme", PageSize: 2, PageToken: page.GetNextPageToken()})
	call(c, asViewer, c.accounts.ListGrants, &purserv1.ListGrantsRequest{Account: "nowhere"})
	c.balance(asViewer, "acme")
	c.say("voiding twice is once")
	call(c, asAdmin, c.accounts.VoidGrant, &purserv1.VoidGrantRequest{Account: "acme", Grant: "soon"})
	call(c, asAdmin, c.accounts.VoidGrant, &purserv1.VoidGrantRequest{Account: "acme", Grant: "soon"})
	call(c, asAdmin, c.accounts.VoidGrant, &purserv1.VoidGrantRequest{Account: "acme", Grant: "nowhere"})
	c.balance(asGate, "acme:search")
}

func budgetsAndEtags(c *conversation) {
	c.shop()
	c.account("acme", "", credit)
	put := func(change func(*purserv1.PutBudgetRequest)) *purserv1.PutBudgetResponse {
		r := budget("acme", "daily", 10*credit)
		r.Window, r.WarnPercent = purserv1.Window_WINDOW_DAY, 80
		change(r)
		return call(c, asAdmin, c.accounts.PutBudget, r)
	}
	c.say("put, put again, put under an etag that is old")
	first := put(func(*purserv1.PutBudgetRequest) {}).GetBudget()
	put(func(r *purserv1.PutBudgetRequest) { r.Cap, r.Etag = 20*credit, first.GetEtag() })
	put(func(r *purserv1.PutBudgetRequest) { r.Cap, r.Etag = 30*credit, first.GetEtag() })
	put(func(r *purserv1.PutBudgetRequest) { r.Enforcement = purserv1.Enforcement_ENFORCEMENT_SOFT })
	c.say("by label, and on a meter")
	put(func(r *purserv1.PutBudgetRequest) {
		r.Id, r.Selector = "each-team", &purserv1.Selector{LabelKey: "team"}
	})
	put(func(r *purserv1.PutBudgetRequest) {
		r.Id, r.Unit, r.Selector = "search-tokens", "output_tokens", &purserv1.Selector{LabelKey: "team", LabelValue: "search"}
	})
	c.say("refused")
	put(func(r *purserv1.PutBudgetRequest) { r.Unit = "output_tokens" })
	put(func(r *purserv1.PutBudgetRequest) { r.Id, r.Unit = "x", "output_tokns" })
	put(func(r *purserv1.PutBudgetRequest) { r.Id, r.Cap = "x", 0 })
	put(func(r *purserv1.PutBudgetRequest) { r.Account = "nowhere" })
	put(func(r *purserv1.PutBudgetRequest) { r.Id, r.Etag = "x", "5" })
	put(func(r *purserv1.PutBudgetRequest) { r.Window, r.Enforcement, r.WarnPercent = 0, 9, 101 })
	put(func(r *purserv1.PutBudgetRequest) { r.Selector = &purserv1.Selector{LabelKey: "Team"} })
	c.say("pages")
	page := call(c, asViewer, c.accounts.ListBudgets, &purserv1.ListBudgetsRequest{Account: "acme", PageSize: 2})
	call(c, asViewer, c.accounts.ListBudgets, &purserv1.ListBudgetsRequest{Account: "acme", PageSize: 2, PageToken: page.GetNextPageToken()})
	call(c, asViewer, c.accounts.ListBudgets, &purserv1.ListBudgetsRequest{Account: "nowhere"})
	c.say("deleted under an etag")
	call(c, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "acme", Id: "daily", Etag: first.GetEtag()})
	call(c, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "acme", Id: "daily"})
	call(c, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "acme", Id: "daily"})
}

func apiKeys(c *conversation) {
	c.shop()
	c.account("acme", "", 10*credit)
	c.account("other", "", 10*credit)
	c.say("a secret is shown once")
	req := &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "gateway", Account: "acme",
		Labels: map[string]string{"region": "eu"}, RequestId: "key-1", ExpireTime: &timestamppb.Timestamp{Seconds: 4_000_000_000}}
	made := call(c, asAdmin, c.keys.CreateKey, req)
	c.secrets["gateway"] = made.GetSecret()
	call(c, asAdmin, c.keys.CreateKey, req)
	call(c, asAdmin, c.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_VIEWER, Principal: "x", ValidateOnly: true})
	call(c, asAdmin, c.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "x", Account: "nowhere"})
	call(c, asAdmin, c.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "x", ExpireTime: &timestamppb.Timestamp{Seconds: 1}})
	call(c, asAdmin, c.keys.CreateKey, &purserv1.CreateKeyRequest{Principal: "-x"})
	c.say("a key bound to an account needs to name none, and may name no other")
	r := call(c, "gateway", c.authority.CheckAndReserve, labelled(work("", "large", 1000), "region", "us"))
	call(c, "gateway", c.authority.CheckAndReserve, work("other", "large", 1000))
	call(c, "gateway", c.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "other"})
	c.say("a reservation belongs to the principal: another key of it settles, another principal does not")
	second := call(c, asAdmin, c.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "gateway"})
	c.secrets["gateway-2"] = second.GetSecret()
	call(c, asGate, c.authority.Commit, used(r.GetReservation().GetToken(), 1000, 10))
	call(c, asAdmin, c.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: made.GetKey().GetId()})
	call(c, "gateway", c.authority.Commit, used(r.GetReservation().GetToken(), 1000, 10))
	call(c, "gateway-2", c.authority.Commit, used(r.GetReservation().GetToken(), 1000, 10))
	c.quiesce()
	c.say("the label bound to the key won")
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.say("revoking twice is once; ids are random, so keys are put in order of their principals here")
	call(c, asAdmin, c.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: made.GetKey().GetId()})
	call(c, asAdmin, c.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: "0123456789abcdef"})
	c.listKeys(4)
	c.listKeys(100)
}

// listKeys lists all keys in pages of a size, and writes them down in an order that is the
// same in every run.
func (c *conversation) listKeys(size int32) {
	c.t.Helper()
	all := &purserv1.ListKeysResponse{}
	pages := 0
	for token := ""; ; pages++ {
		page := must(c.world, asAdmin, c.keys.ListKeys, &purserv1.ListKeysRequest{PageSize: size, PageToken: token})
		all.Keys = append(all.Keys, page.GetKeys()...)
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	slices.SortFunc(all.Keys, func(a, b *purserv1.Key) int {
		return strings.Compare(a.GetPrincipal()+"/"+a.GetAccount(), b.GetPrincipal()+"/"+b.GetAccount())
	})
	c.asked(asAdmin, &purserv1.ListKeysRequest{PageSize: size})
	c.answered(all)
	c.lines = append(c.lines, fmt.Sprintf("  (in %d pages)", pages+1))
}

// repeatedRequests: the same request id with the same content is the same request, and a
// request that only validates changes nothing.
func repeatedRequests(c *conversation) {
	c.shop()
	account := &purserv1.CreateAccountRequest{Id: "acme", RequestId: "r1", ValidateOnly: true}
	c.say("validate_only checks everything and changes nothing, the use of the request id included")
	call(c, asAdmin, c.accounts.CreateAccount, account)
	call(c, asViewer, c.accounts.GetAccount, &purserv1.GetAccountRequest{Id: "acme"})
	account.ValidateOnly = false
	c.say("the same again is the same account")
	call(c, asAdmin, c.accounts.CreateAccount, account)
	call(c, asAdmin, c.accounts.CreateAccount, account)
	c.say("other content is refused")
	account.DisplayName = "Acme"
	call(c, asAdmin, c.accounts.CreateAccount, account)
	c.say("a request id belongs to its principal")
	c.secrets["admin-2"] = must(c.world, asAdmin, c.keys.CreateKey,
		&purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_ADMIN, Principal: "admin-2"}).GetSecret()
	call(c, "admin-2", c.accounts.CreateAccount, account)
	c.say("one grant, however often it is asked for, and its id drawn once")
	g := grant("acme", "", 5*credit)
	g.RequestId = "g1"
	call(c, asAdmin, c.accounts.CreateGrant, g)
	call(c, asAdmin, c.accounts.CreateGrant, g)
	only := grant("acme", "gift", 5*credit)
	only.ValidateOnly = true
	call(c, asAdmin, c.accounts.CreateGrant, only)
	call(c, asViewer, c.accounts.ListGrants, &purserv1.ListGrantsRequest{Account: "acme"})
	c.say("a failed request keeps no id")
	sub := &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "nowhere", RequestId: "s1"}
	call(c, asAdmin, c.accounts.SetSubscription, sub)
	sub.Plan = "pro"
	call(c, asAdmin, c.accounts.SetSubscription, sub)
	c.say("one version, however often it is published")
	p := plan(7)
	p.RequestId = "p1"
	call(c, asAdmin, c.catalog.PublishPlanVersion, p)
	call(c, asAdmin, c.catalog.PublishPlanVersion, p)
	p.RequestId, p.ValidateOnly = "", true
	call(c, asAdmin, c.catalog.PublishPlanVersion, p)
	call(c, asViewer, c.catalog.GetPlanVersion, &purserv1.GetPlanVersionRequest{Plan: "pro", Version: 3})
	c.say("validated only: a suspension, a budget, a void")
	call(c, asAdmin, c.accounts.SuspendAccount, &purserv1.SuspendAccountRequest{Account: "acme", Sync: true, ValidateOnly: true})
	b := budget("acme", "b", credit)
	b.ValidateOnly = true
	call(c, asAdmin, c.accounts.PutBudget, b)
	call(c, asViewer, c.accounts.ListBudgets, &purserv1.ListBudgetsRequest{Account: "acme"})
	call(c, asViewer, c.accounts.GetAccount, &purserv1.GetAccountRequest{Id: "acme"})
}
