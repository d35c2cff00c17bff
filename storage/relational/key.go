package relational

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
)

const (
	findKeySQL = `SELECT id, hash, role, principal, account_id, labels, create_time, expire_time, revoke_time, revision
FROM api_keys WHERE id = $1`

	listKeysSQL = `SELECT id, hash, role, principal, account_id, labels, create_time, expire_time, revoke_time, revision
FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2`

	insertKeySQL = `INSERT INTO api_keys (id, hash, role, principal, account_id, labels, create_time, expire_time, revoke_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

	revokeKeySQL = `UPDATE api_keys SET revoke_time = $2, revision = $3 WHERE id = $1`

	adminKeySQL = `SELECT id FROM api_keys WHERE role = $1 AND revoke_time = 0 AND expire_time > $2 LIMIT 1`

	listMACKeysSQL = `SELECT id, secret, sign_from, create_time FROM mac_keys ORDER BY id`

	firstMACKeySQL = `INSERT INTO mac_keys (id, secret, sign_from, create_time) VALUES (1, $1, $2, $2)
ON CONFLICT (id) DO NOTHING`
)

// FindKey see [authz.KeyStore].
func (s *Store) FindKey(ctx context.Context, id string) (key authz.Key, err error) {
	err = s.read(ctx, "find key", func(tx Tx) error {
		key, err = findKey(ctx, tx, id)
		return err
	})
	return key, err
}

func findKey(ctx context.Context, tx Tx, id string) (key authz.Key, err error) {
	found := false
	err = each(ctx, tx, findKeySQL, []any{id}, func(r Rows) error {
		found = true
		key, err = scanKey(r)
		return err
	})
	if err == nil && !found {
		err = refuse(quota.ReasonKeyNotFound, "there is no key "+quoted(id), "key", id)
	}
	return key, err
}

// ListKeys see [quota.KeyAdminStore]. The page's key is the key's id.
func (s *Store) ListKeys(ctx context.Context, p quota.Page) (keys []authz.Key, err error) {
	limit, err := limitOf(p)
	if err != nil {
		return nil, err
	}
	err = s.read(ctx, "list keys", func(tx Tx) error {
		keys = nil
		return each(ctx, tx, listKeysSQL, []any{p.After, limit}, func(r Rows) error {
			key, err := scanKey(r)
			keys = append(keys, key)
			return err
		})
	})
	return keys, err
}

// CreateKey see [quota.KeyAdminStore]. The account it is bound to has to exist.
func (s *Store) CreateKey(ctx context.Context, m quota.Mutation, key authz.Key) (authz.Key, error) {
	return admin(ctx, s, m, func(a *adminTx) (authz.Key, error) {
		k := key
		if k.Account != "" {
			if _, err := payerOf(ctx, a, k.Account); err != nil {
				return k, err
			}
		}
		labels, err := asJSON(k.Labels.Map())
		if err != nil {
			return k, err
		}
		if k.Revision, err = a.change(quota.ChangeKey, k.ID); err != nil {
			return k, err
		}
		k.CreateTime, k.RevokeTime = a.now, 0
		return k, a.insert("key", k.ID, insertKeySQL, k.ID, k.Hash[:], int64(k.Role), k.Principal, k.Account, labels,
			k.CreateTime, k.ExpireTime, k.RevokeTime, k.Revision)
	})
}

// RevokeKey see [quota.KeyAdminStore]. Revoking again changes nothing and answers the key as
// it is.
func (s *Store) RevokeKey(ctx context.Context, m quota.Mutation, id string) (authz.Key, error) {
	return admin(ctx, s, m, func(a *adminTx) (authz.Key, error) {
		k, err := findKey(ctx, a, id)
		if err != nil || k.RevokeTime != 0 {
			return k, err
		}
		if k.Revision, err = a.change(quota.ChangeKey, id); err != nil {
			return k, err
		}
		k.RevokeTime = a.now
		return k, a.exec(revokeKeySQL, id, k.RevokeTime, k.Revision)
	})
}

// HasAdminKey see [quota.KeyAdminStore].
func (s *Store) HasAdminKey(ctx context.Context, now int64) (found bool, err error) {
	err = s.read(ctx, "find admin key", func(tx Tx) error {
		var id string
		found, err = queryRow(ctx, tx, adminKeySQL, []any{int64(authz.RoleAdmin), now}, &id)
		return err
	})
	return found, err
}

// MACKeys see [quota.KeyAdminStore]. Of several nodes that make the first key at once one
// wins, and all read the winner's.
func (s *Store) MACKeys(ctx context.Context, secret [32]byte, now int64) (keys []quota.MACKey, err error) {
	err = s.read(ctx, "read token keys", func(tx Tx) error {
		keys, err = macKeys(ctx, tx)
		return err
	})
	if err != nil || len(keys) > 0 {
		return keys, err
	}
	err = s.write(ctx, "make token key", func(tx Tx) error {
		if _, err := tx.Exec(ctx, firstMACKeySQL, secret[:], now); err != nil {
			return err
		}
		keys, err = macKeys(ctx, tx)
		return err
	})
	return keys, err
}

func macKeys(ctx context.Context, tx Tx) (keys []quota.MACKey, err error) {
	err = each(ctx, tx, listMACKeysSQL, nil, func(r Rows) error {
		var k quota.MACKey
		var id int64
		var secret []byte
		if err := r.Scan(&id, &secret, &k.SignFrom, &k.CreateTime); err != nil {
			return err
		}
		k.ID = uint32(id)
		if n := copy(k.Secret[:], secret); n != len(k.Secret) || n != len(secret) {
			return violated("token key %d has %d bytes", id, len(secret))
		}
		keys = append(keys, k)
		return nil
	})
	return keys, err
}

func scanKey(r Rows) (k authz.Key, err error) {
	var hash []byte
	var role int16
	var labels string
	err = r.Scan(&k.ID, &hash, &role, &k.Principal, &k.Account, &labels, &k.CreateTime, &k.ExpireTime, &k.RevokeTime, &k.Revision)
	if err != nil {
		return k, err
	}
	if n := copy(k.Hash[:], hash); n != len(k.Hash) || n != len(hash) {
		return k, violated("key %q has a hash of %d bytes", k.ID, len(hash))
	}
	k.Role = authz.Role(role)
	var m map[string]string
	if err := json.Unmarshal([]byte(labels), &m); err != nil {
		return k, fmt.Errorf("read labels of key %q: %w", k.ID, err)
	}
	k.Labels, err = label.New(m)
	return k, err
}
