package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/examples"
)

// TestRestoreFromABackup: a token made after the backup names an allotment that the restored
// store never handed out. Behind a fence it is charged once all the same, and the books balance.
func TestRestoreFromABackup(t *testing.T) {
	folder := t.TempDir()
	path, copied := filepath.Join(folder, "purser.db"), filepath.Join(folder, "backup.db")
	store := "sqlite:" + path
	p, address, keyFile := serve(t, store, "--drain-for=0s")
	must(t, "apply", "-f", writeFile(t, "catalog.yaml", string(examples.Catalog)), "--server", address, "--key-file", keyFile, "--secrets-dir", folder)
	secret, err := readSecret(filepath.Join(folder, "gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{address}, Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	gate := func(account string) *purser.Handle {
		handle, err := client.Gate(t.Context(), purser.Request{Account: account, Features: []string{"chat.gpt-small"},
			Estimates: []purser.Estimate{purser.Need("input_tokens", 1000)}})
		if err != nil {
			t.Fatal(err)
		}
		return handle
	}
	before := gate("globex")
	must(t, "backup", "--store", store, "--out", copied)
	fails(t, exitFailure, []string{"exists"}, "backup", "--store", store, "--out", copied)
	after := gate("initech") // its first: drawn behind the backup
	fails(t, exitFailure, []string{"in use by another process"}, "fence", "--store", store)
	p.end(t)

	for _, old := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Remove(old); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(copied, path); err != nil {
		t.Fatal(err)
	}
	wrong := sqliteStore(t)
	fails(t, exitFailure, []string{"is empty or not there"}, "fence", "--store", wrong)
	if _, err := os.Stat(strings.TrimPrefix(wrong, "sqlite:")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that is wrong was made a store: %v", err)
	}
	if out := must(t, "fence", "--store", store); !strings.Contains(out, "1 nodes declared dead, 2 lanes") {
		t.Errorf("fence says %q", out)
	}
	p, _, _ = serve(t, store, "--listen", address)
	for _, h := range []*purser.Handle{before, after} {
		receipt, err := h.Commit(t.Context(), purser.Used("input_tokens", 1000))
		if err != nil || !receipt.Late || receipt.Charged != 15_000 {
			t.Errorf("receipt = %+v, %v, want 0.015 credits, late", receipt, err)
		}
		receipt, err = h.Commit(t.Context(), purser.Used("input_tokens", 1000))
		if err != nil || receipt.Charged != 15_000 {
			t.Errorf("committed again: %+v, %v", receipt, err)
		}
	}
	p.end(t)
	if out := must(t, "audit", "--store", store); !strings.Contains(out, booksBalance) {
		t.Errorf("audit:\n%s", out)
	}
}
