package authz

import "strings"

// RoleSet is a set of roles.
type RoleSet uint8

// Roles makes a set.
func Roles(roles ...Role) RoleSet {
	var s RoleSet
	for _, r := range roles {
		s |= 1 << r
	}
	return s
}

// Has reports whether r is in the set.
func (s RoleSet) Has(r Role) bool { return s&(1<<r) != 0 }

// Policy says which role may call which method. It never changes after [NewPolicy].
type Policy struct {
	methods map[string]RoleSet
	open    map[string]struct{} // services that need no key
}

// NewPolicy builds the one table over the full names of all methods served. What is not in
// it may be called by nobody: a method added without a row here is closed, not open.
func NewPolicy() *Policy {
	gate := Roles(RoleGate, RoleAdmin)
	quote := Roles(RoleGate, RoleViewer, RoleAdmin)
	read := Roles(RoleViewer, RoleAdmin)
	write := Roles(RoleAdmin)
	known := Roles(RoleGate, RoleViewer, RoleAdmin)

	p := &Policy{methods: make(map[string]RoleSet), open: make(map[string]struct{})}
	p.allow("purser.v1.AuthorityService", gate, "CheckAndReserve", "Commit", "Release", "Extend", "Session")
	p.allow("purser.v1.AuthorityService", quote, "Check", "GetBalance")
	p.allow("purser.v1.CatalogService", read, "GetFeature", "ListFeatures", "GetPlan", "ListPlans", "GetPlanVersion",
		"GetRateCard", "ListRateCards")
	p.allow("purser.v1.CatalogService", write, "CreateFeature", "UpdateFeature", "DeleteFeature", "PublishPlanVersion",
		"PublishRateCard")
	p.allow("purser.v1.AccountService", read, "GetAccount", "ListAccounts", "ListGrants", "ListBudgets")
	p.allow("purser.v1.AccountService", write, "CreateAccount", "UpdateAccount", "SetSubscription", "CreateGrant",
		"VoidGrant", "PutBudget", "DeleteBudget", "SuspendAccount", "ResumeAccount")
	// Who holds which key is nothing a viewer of usage has to know.
	p.allow("purser.v1.KeyService", write, "CreateKey", "ListKeys", "RevokeKey")
	p.allow("purser.v1.UsageService", read, "ListUsageEvents", "GetRollups")
	p.allow("purser.v1.EventService", read, "WatchEvents")
	p.allow("grpc.reflection.v1.ServerReflection", known, "ServerReflectionInfo")
	p.allow("grpc.reflection.v1alpha.ServerReflection", known, "ServerReflectionInfo")
	// Load balancers hold no key, and readiness tells nothing of an account.
	p.allow("grpc.health.v1.Health", known, "Check", "Watch", "List")
	p.open["grpc.health.v1.Health"] = struct{}{}
	return p
}

func (p *Policy) allow(service string, roles RoleSet, methods ...string) {
	for _, m := range methods {
		p.methods["/"+service+"/"+m] = roles
	}
}

// Allows reports whether role may call the method with this full name ("/package.Service/Method").
func (p *Policy) Allows(role Role, method string) bool {
	return p.methods[method].Has(role) && role != RoleNone
}

// Roles is who may call the method; ok is false if the table has no row for it.
func (p *Policy) Roles(method string) (roles RoleSet, ok bool) {
	roles, ok = p.methods[method]
	return roles, ok
}

// Open reports whether the method with this full name needs no key at all.
func (p *Policy) Open(method string) bool {
	service, _, ok := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	return ok && p.OpenService(service)
}

// OpenService reports whether the service ("package.Service") needs no key at all.
func (p *Policy) OpenService(service string) bool {
	_, ok := p.open[service]
	return ok
}

// Methods lists the full names of all methods in the table, in no order.
func (p *Policy) Methods() []string {
	names := make([]string, 0, len(p.methods))
	for m := range p.methods {
		names = append(names, m)
	}
	return names
}
