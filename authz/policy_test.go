package authz

import "testing"

func TestPolicy(t *testing.T) {
	p := NewPolicy()
	cases := []struct {
		method              string
		gate, viewer, admin bool
	}{
		{"/purser.v1.AuthorityService/CheckAndReserve", true, false, true},
		{"/purser.v1.AuthorityService/Commit", true, false, true},
		{"/purser.v1.AuthorityService/Release", true, false, true},
		{"/purser.v1.AuthorityService/Extend", true, false, true},
		{"/purser.v1.AuthorityService/Session", true, false, true},
		{"/purser.v1.AuthorityService/Check", true, true, true},
		{"/purser.v1.AuthorityService/GetBalance", true, true, true},
		{"/purser.v1.CatalogService/ListPlans", false, true, true},
		{"/purser.v1.CatalogService/PublishRateCard", false, false, true},
		{"/purser.v1.AccountService/ListGrants", false, true, true},
		{"/purser.v1.AccountService/CreateGrant", false, false, true},
		{"/purser.v1.AccountService/SuspendAccount", false, false, true},
		{"/purser.v1.KeyService/ListKeys", false, false, true},
		{"/purser.v1.KeyService/CreateKey", false, false, true},
		{"/purser.v1.UsageService/GetRollups", false, true, true},
		{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true, true, true},
		{"/purser.v1.AccountService/NoSuchMethod", false, false, false},
		{"", false, false, false},
	}
	for _, c := range cases {
		got := [...]bool{p.Allows(RoleGate, c.method), p.Allows(RoleViewer, c.method), p.Allows(RoleAdmin, c.method)}
		if want := [...]bool{c.gate, c.viewer, c.admin}; got != want {
			t.Errorf("%s: gate, viewer, admin = %v, want %v", c.method, got, want)
		}
	}
}

func TestPolicyGivesNothingToNobody(t *testing.T) {
	p := NewPolicy()
	for _, m := range p.Methods() {
		if p.Allows(RoleNone, m) {
			t.Errorf("%s may be called without a role", m)
		}
		if !p.Allows(RoleAdmin, m) {
			t.Errorf("%s may not be called by an admin", m)
		}
	}
}

func TestOnlyHealthIsOpen(t *testing.T) {
	p := NewPolicy()
	for _, m := range p.Methods() {
		health := len(m) > 23 && m[:23] == "/grpc.health.v1.Health/"
		if p.Open(m) != health {
			t.Errorf("%s: open = %v", m, p.Open(m))
		}
	}
	if p.Open("/purser.v1.AccountService/NoSuchMethod") {
		t.Error("an unknown method is open")
	}
}
