package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// sqliteEmpty reports whether there is no database yet in the file.
func sqliteEmpty(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open store: %w", err)
	}
	return info.Size() == 0, nil
}

// writeSecret writes a secret to a file that only its owner can read, replacing it as a whole.
func writeSecret(path, secret string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write key file %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// readSecret reads a key file.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if _, ok := authz.KeyID(secret); !ok {
		return "", fmt.Errorf("read key file %s: it has no API key in it: want one line pk_...", path)
	}
	return secret, nil
}

// createKey makes a key on the store itself.
func createKey(ctx context.Context, store quota.KeyAdminStore, k authz.Key, now int64) (authz.Key, string, error) {
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		return authz.Key{}, "", err
	}
	k.ID, k.Hash, k.CreateTime = id, authz.HashSecret(secret), now
	if k.ExpireTime == 0 {
		k.ExpireTime = authz.Never
	}
	k, err = store.CreateKey(ctx, quota.Mutation{Principal: storePrincipal, Now: now}, k)
	return k, secret, err
}

// storePrincipal is who changes a store without a server.
const storePrincipal = "purser-cli"

// bootstrapKey writes an admin key to a file if the store has none. The file comes first: a
// key that nobody can read would lock everybody out, a file that opens nothing is replaced at
// the next start.
func bootstrapKey(ctx context.Context, store quota.KeyAdminStore, file string, c clock) (written bool, err error) {
	now := c.unixNano()
	has, err := store.HasAdminKey(ctx, now)
	if err != nil || has {
		return false, err
	}
	if file == "" {
		return false, errors.New("the store has no admin key: say with --bootstrap-key-file where to write one, or run purser keys create --store ... --role admin")
	}
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		return false, err
	}
	if err := writeSecret(file, secret); err != nil {
		return false, err
	}
	_, err = store.CreateKey(ctx, quota.Mutation{Principal: storePrincipal, Now: now}, authz.Key{ID: id, Hash: authz.HashSecret(secret),
		Role: authz.RoleAdmin, Principal: "admin", CreateTime: now, ExpireTime: authz.Never})
	return err == nil, err
}

// bootstrapFile is where the first admin key goes unless told otherwise.
func bootstrapFile(u storeURL, flag string) string {
	if path, ok := u.path(); ok && flag == "" {
		return path + ".admin-key"
	}
	return flag
}
