package storagetest

import (
	"fmt"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
)

func keyTests() []Test {
	return []Test{
		{"CreateFindRevoke", keyCreate},
		{"HasAdminKey", keyAdmin},
		{"List", keyList},
		{"MACKeys", keyMAC},
	}
}

func (e *Env) key(id string, role authz.Role) authz.Key {
	e.Helper()
	k, err := e.Store.CreateKey(e.ctx, e.mutation(), authz.Key{ID: id, Hash: authz.HashSecret(id), Role: role, Principal: "p-" + id, ExpireTime: authz.Never})
	e.must(err)
	return k
}

func keyCreate(e *Env) {
	e.account("acme", "")
	k := authz.Key{ID: "0123456789abcdef", Hash: authz.HashSecret("x"), Role: authz.RoleGate, Principal: "gäte", Account: "acme",
		Labels: label.Set{{Key: "team", Value: "sé\"arch"}}, ExpireTime: e.Now() + 1e12}
	got, err := e.Store.CreateKey(e.ctx, e.mutation(), k)
	e.must(err)
	e.check(got.Revision == 2 && got.CreateTime > 0, "created %+v", got)
	k.Revision, k.CreateTime = got.Revision, got.CreateTime
	e.same("created", got, k)
	found, err := e.Store.FindKey(e.ctx, k.ID)
	e.must(err)
	e.same("found", found, k)
	_, err = e.Store.CreateKey(e.ctx, e.mutation(), k)
	e.refused(err, quota.ReasonResourceExists)
	_, err = e.Store.FindKey(e.ctx, "none")
	e.refused(err, quota.ReasonKeyNotFound)
	k.ID, k.Account = "fedcba9876543210", "none"
	_, err = e.Store.CreateKey(e.ctx, e.mutation(), k)
	e.refused(err, quota.ReasonAccountNotFound)

	revoked, err := e.Store.RevokeKey(e.ctx, e.mutation(), "0123456789abcdef")
	e.must(err)
	e.check(revoked.RevokeTime > 0 && revoked.Revision > found.Revision, "revoked %+v", revoked)
	again, err := e.Store.RevokeKey(e.ctx, e.mutation(), "0123456789abcdef")
	e.must(err)
	e.same("revoked again", again.RevokeTime, revoked.RevokeTime)
	found, err = e.Store.FindKey(e.ctx, "0123456789abcdef")
	e.must(err)
	e.same("found", found, revoked)
	_, err = e.Store.RevokeKey(e.ctx, e.mutation(), "none")
	e.refused(err, quota.ReasonKeyNotFound)
}

func keyAdmin(e *Env) {
	has := func(at int64, want bool) {
		e.Helper()
		got, err := e.Store.HasAdminKey(e.ctx, at)
		e.must(err)
		e.same("an admin key", got, want)
	}
	now := e.Now()
	has(now, false)
	e.key("gate", authz.RoleGate)
	has(now, false)
	_, err := e.Store.CreateKey(e.ctx, e.mutation(), authz.Key{ID: "short", Role: authz.RoleAdmin, Principal: "a", ExpireTime: now + 1000})
	e.must(err)
	has(now, true)
	has(now+1000, false)
	e.key("admin", authz.RoleAdmin)
	has(now+1000, true)
	_, err = e.Store.RevokeKey(e.ctx, e.mutation(), "admin")
	e.must(err)
	has(now+1000, false)
}

func keyList(e *Env) {
	want := map[string]bool{}
	for i := range 5 {
		want[e.key(fmt.Sprintf("key%d", 9-i), authz.RoleViewer).ID] = true
	}
	got := map[string]bool{}
	page := quota.Page{Size: 2}
	for range 10 {
		list, err := e.Store.ListKeys(e.ctx, page)
		e.must(err)
		for _, k := range list {
			e.check(!got[k.ID], "key %s is listed twice", k.ID)
			got[k.ID] = true
			page.After = k.ID
		}
		if len(list) == 0 {
			break
		}
	}
	e.same("keys", got, want)
}

// keyMAC: of two nodes that start at once, the first one's secret is everybody's.
func keyMAC(e *Env) {
	now := e.Now()
	first, err := e.Store.MACKeys(e.ctx, [32]byte{1, 2, 3}, now)
	e.must(err)
	e.check(len(first) == 1 && first[0].Secret == [32]byte{1, 2, 3} && first[0].SignFrom <= now && first[0].ID > 0, "first keys %+v", first)
	again, err := e.Store.MACKeys(e.ctx, [32]byte{9}, now+5)
	e.must(err)
	e.same("keys", again, first)
}
