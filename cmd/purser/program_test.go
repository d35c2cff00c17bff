package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/examples"
	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota/audit"
)

// TestServeApplyGateAudit is the tour: serve, apply a catalogue, gate with a key, audit beside
// the running server and behind it.
func TestServeApplyGateAudit(t *testing.T) {
	for name, store := range map[string]func(*testing.T) string{
		"sqlite":     sqliteStore,
		"postgresql": func(t *testing.T) string { return testdb.PostgreSQL(t) },
	} {
		t.Run(name, func(t *testing.T) { tour(t, store(t)) })
	}
}

func tour(t *testing.T, store string) {
	p, address, keyFile := serve(t, store, "--audit-every=300ms")
	metrics := p.await(t, `metrics on (http://\S+)\n`)
	server := []string{"--server", address, "--key-file", keyFile}
	with := func(args ...string) []string { return append(args, server...) }
	file, secrets := writeFile(t, "catalog.yaml", string(examples.Catalog)), t.TempDir()

	if out := must(t, with("apply", "-f", file, "--dry-run")...); !strings.Contains(out, "create account acme") || !strings.Contains(out, "nothing was done") {
		t.Errorf("dry run:\n%s", out)
	}
	if out := must(t, with("apply", "-f", file, "--secrets-dir", secrets)...); strings.Contains(out, "pk_") {
		t.Errorf("apply printed a secret that belongs in a file:\n%s", out)
	}
	if out := must(t, with("apply", "-f", file)...); !strings.Contains(out, "0 changes") {
		t.Errorf("applied again:\n%s", out)
	}
	changed := strings.NewReplacer("display_name: Globex", "display_name: Globex Inc.", "limit: 100, window: DAY", "limit: 200, window: DAY",
		"credits: 90, window: MONTH", "credits: 95, window: MONTH", "meter: input_tokens, credits: 0.25,", "meter: input_tokens, credits: 0.26,").Replace(string(examples.Catalog))
	out := must(t, with("apply", "-f", writeFile(t, "catalog.yaml", changed), "--dry-run")...)
	for _, want := range []string{"update account globex: display_name", "update plan free: version 2", "update budget globex/monthly",
		"update rate card standard: version 2", "4 to change"} {
		if !strings.Contains(out, want) {
			t.Errorf("dry run of a changed file lacks %q:\n%s", want, out)
		}
	}
	grant := strings.Replace(string(examples.Catalog), "credits: 20000", "credits: 20001", 1)
	fails(t, exitFailure, []string{"acme-annual exists with 20000 credits"}, with("apply", "-f", writeFile(t, "catalog.yaml", grant))...)

	acknowledged := gateOnce(t, address, filepath.Join(secrets, "gateway.key"))
	if out := must(t, "audit", "--store", store, "--against", acknowledged); !strings.Contains(out, booksBalance) {
		t.Errorf("audit beside the server:\n%s", out)
	}
	if out := must(t, with("keys", "list")...); !strings.Contains(out, "acme-gateway") || strings.Contains(out, "pk_") {
		t.Errorf("keys:\n%s", out)
	}
	audited := regexp.MustCompile(`purser_audits_total\{result="balanced"\} [1-9]`)
	body := get(t, metrics)
	for deadline := time.Now().Add(time.Minute); !audited.MatchString(body) && time.Now().Before(deadline); body = get(t, metrics) {
		time.Sleep(50 * time.Millisecond)
	}
	if !audited.MatchString(body) || !strings.Contains(body, "purser_audit_findings 0\n") || !strings.Contains(body, `purser_audits_total{result="failed"} 0`) {
		t.Errorf("audits beside the work:\n%s", body)
	}
	if code := p.end(t); code != exitOK {
		t.Fatalf("serve ended with %d\n%s", code, p.log)
	}
	if out := must(t, "audit", "--store", store, "--quiescent", "--against", acknowledged); !strings.Contains(out, booksBalance) {
		t.Errorf("audit behind the server:\n%s", out)
	}
	fails(t, exitFailure, []string{"I10", "the books do not balance"}, "audit", "--store", store, "--against", forged(t, acknowledged))
}

// TestSettleElsewhere: a reservation outlives the node that made it. The client finds the other
// node by itself, and the books have the charge once.
func TestSettleElsewhere(t *testing.T) {
	store := testdb.PostgreSQL(t)
	nodes, addresses := map[string]*process{}, []string{}
	var keyFile string
	for range 2 {
		p, address, file := serve(t, store, "--drain-for=0s")
		nodes[address], addresses = p, append(addresses, address)
		if keyFile == "" {
			keyFile = file
		}
	}
	must(t, "apply", "-f", writeFile(t, "catalog.yaml", string(examples.Catalog)), "--server", addresses[0], "--key-file", keyFile,
		"--secrets-dir", filepath.Dir(keyFile))
	secret, err := readSecret(filepath.Join(filepath.Dir(keyFile), "gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := purser.Dial(t.Context(), purser.Config{Addresses: addresses, Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	handle, err := client.Gate(t.Context(), purser.Request{Account: "globex", Features: []string{"chat.gpt-small"}, TTL: 2 * time.Second,
		Estimates: []purser.Estimate{purser.Need("input_tokens", 1000)}})
	if err != nil {
		t.Fatal(err)
	}
	home := client.Conn("globex").(*grpc.ClientConn).Target()
	gone := nodes[strings.TrimPrefix(home, "dns:///")]
	if code := gone.end(t); code != exitOK {
		t.Fatalf("the home ended with %d\n%s", code, gone.log)
	}
	receipt, err := handle.Commit(t.Context(), purser.Used("input_tokens", 1000))
	if err != nil || receipt.Charged != 15_000 {
		t.Fatalf("receipt = %+v, %v, want a charge of 0.015 credits", receipt, err)
	}
	for _, p := range nodes {
		p.end(t)
	}
	record := writeFile(t, "acknowledged.jsonl",
		fmt.Sprintf("{\"reservation_id\": %q, \"charged_micros\": 15000}\n", handle.Reservation().GetReservationId()))
	if out := must(t, "audit", "--store", store, "--against", record); !strings.Contains(out, booksBalance) {
		t.Errorf("audit:\n%s", out)
	}
}

// gateOnce reserves and commits, and writes what was acknowledged as a client would.
func gateOnce(t *testing.T, address, keyFile string) (file string) {
	t.Helper()
	secret, err := readSecret(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	client, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{address}, Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	handle, err := client.Gate(t.Context(), purser.Request{Account: "globex", Features: []string{"chat.gpt-large"},
		TTL:       time.Second,
		Estimates: []purser.Estimate{purser.Need("input_tokens", 1000), purser.Want("output_tokens", 400, 10)}})
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	receipt, err := handle.Commit(t.Context(), purser.Used("input_tokens", 1000), purser.Used("output_tokens", 500))
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Charged != 750_000 || receipt.Overage != 100_000 {
		t.Errorf("receipt = %+v, want 0.25 + 0.5 credits, 0.1 of them beyond the hold", receipt)
	}
	line, err := json.Marshal(map[string]any{"reservation_id": handle.Reservation().GetReservationId(), "charged_micros": receipt.Charged})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "acknowledged.jsonl", string(line)+"\n")
}

// forged is a record of one more micro than was acknowledged.
func forged(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "forged.jsonl", strings.Replace(string(b), "750000", "750001", 1))
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return string(body)
}

func TestBootstrapKey(t *testing.T) {
	store := sqliteStore(t)
	p, address, keyFile := serve(t, store)
	info, err := os.Stat(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, want 0600", info.Mode())
	}
	must(t, "keys", "list", "--server", address, "--key-file", keyFile)
	if !strings.Contains(p.out.String(), "admin key written to "+keyFile) {
		t.Errorf("output = %q, want it to name the file", p.out)
	}
	p.end(t)
	again, _, second := serve(t, store)
	again.end(t)
	if _, err := os.Stat(second); err == nil {
		t.Error("a second key was written for a store that has one")
	}
}

func TestKeysOnTheStore(t *testing.T) {
	store := sqliteStore(t)
	file := filepath.Join(t.TempDir(), "me.key")
	must(t, "keys", "create", "--role=admin", "--principal=me", "--store", store, "--out", file, "--label", "team=ops")
	p, address, _ := serve(t, store)
	out := must(t, "keys", "list", "--server", address, "--key-file", file, "--output=json")
	var keys []keyView
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys) != 1 || keys[0].Principal != "me" || keys[0].Labels["team"] != "ops" {
		t.Fatalf("keys = %+v, %v", keys, err)
	}
	fails(t, exitFailure, []string{"another process"}, "keys", "list", "--store", store)
	p.end(t)
	must(t, "keys", "revoke", keys[0].ID, "--store", store)
	p, address, _ = serve(t, store)
	fails(t, exitFailure, []string{"CREDENTIALS_INVALID"}, "keys", "list", "--server", address, "--key-file", file)
	p.end(t)
}

// TestBadDays is what goes wrong at start: each says what to do.
func TestBadDays(t *testing.T) {
	store := sqliteStore(t)
	p, address, _ := serve(t, store)
	fails(t, exitFailure, []string{"taken by another process", "--listen"}, "serve", "--store", sqliteStore(t), "--listen", address)
	fails(t, exitFailure, []string{"another process", "purser.db"}, "serve", "--store", store, "--listen=127.0.0.1:0")
	p.end(t)

	damaged := filepath.Join(t.TempDir(), "damaged.db")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, exitFailure, []string{"damaged.db"}, "serve", "--store", "sqlite:"+damaged, "--listen=127.0.0.1:0")

	foreign := testdb.PostgreSQL(t)
	testdb.Exec(t, foreign, "CREATE TABLE customers (id INT)")
	fails(t, exitFailure, []string{"tables"}, "demo", "--store", foreign)
	fails(t, exitFailure, []string{"--bootstrap-key-file"}, "serve", "--store", testdb.PostgreSQL(t), "--listen=127.0.0.1:0")

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	free.Close()
	fails(t, exitFailure, []string{nobody}, "serve", "--store", "postgresql://u@"+nobody+"/db")
	fails(t, exitFailure, []string{"TLS", "--insecure"}, "serve", "--store", sqliteStore(t), "--listen=0.0.0.0:0", "--metrics-listen=")
	fails(t, exitFailure, []string{"no API key in it"}, "keys", "list", "--key-file", writeFile(t, "empty.key", "\n"))
	fails(t, exitFailure, []string{"no store"}, "audit", "--store", sqliteStore(t))
}

func TestAuditAgainstBrokenRecord(t *testing.T) {
	store := sqliteStore(t)
	p, _, _ := serve(t, store)
	p.end(t)
	fails(t, exitFailure, []string{"a.jsonl:1: want a JSON object"}, "audit", "--store", store, "--against", writeFile(t, "a.jsonl", "{\n"))
	fails(t, exitFailure, []string{"a.jsonl:1:", "reservation id"}, "audit", "--store", store, "--against", writeFile(t, "a.jsonl", "{}\n"))
	fails(t, exitFailure, []string{"state is \"HELD\""}, "audit", "--store", store, "--against",
		writeFile(t, "a.jsonl", `{"reservation_id": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "state": "HELD"}`))
}

func TestDemo(t *testing.T) {
	for name, store := range map[string]func(*testing.T) []string{
		"temporary":  func(*testing.T) []string { return nil },
		"postgresql": func(t *testing.T) []string { return []string{"--store", testdb.PostgreSQL(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			out := must(t, append([]string{"demo"}, store(t)...)...)
			if !strings.HasSuffix(out, booksBalance+"\n") {
				t.Errorf("the last line is not %q:\n%s", booksBalance, out)
			}
			for _, want := range []string{"degraded", "partial", "CREDITS", "FEATURE_NOT_ENTITLED", "QUOTA", "p99", "seed 1", "enterprise"} {
				if !strings.Contains(out, want) {
					t.Errorf("there is no %q in the output:\n%s", want, out)
				}
			}
		})
	}
}

// TestDemoTwice runs it on a store that is kept: the second time with its own grants, beside
// the books of the first.
func TestDemoTwice(t *testing.T) {
	store := sqliteStore(t)
	short := writeFile(t, "short.csv", firstRows(300))
	for range 2 {
		out := must(t, "demo", "--store", store, "--trace", short, "--output=json")
		var got demoResult
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		if !got.OK || got.Total.Requests != 300 || got.Comparison.Client == 0 || got.Comparison.Client != got.Comparison.Events {
			t.Errorf("result = %+v, %+v", got, got.Comparison)
		}
		if n := got.Total.Allowed + got.Total.Denials(); n != 300 {
			t.Errorf("allowed and denied = %d of 300", n)
		}
	}
	if out := must(t, "audit", "--store", store, "--output=json"); !auditOK(t, out) {
		t.Errorf("audit:\n%s", out)
	}
}

func auditOK(t *testing.T, out string) bool {
	t.Helper()
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return r.OK() && r.Entries > 0
}

func firstRows(n int) string {
	return strings.Join(strings.SplitAfterN(string(examples.Trace), "\n", n+2)[:n+1], "")
}

func TestDemoKeepsServing(t *testing.T) {
	p := start(t, "demo", "--keep", "--trace", writeFile(t, "short.csv", firstRows(50)))
	address := p.await(t, `goes on serving on (\S+)`)
	keyFile := p.await(t, `admin key is in (\S+)\.`)
	web := p.await(t, `(http://\S+)/purser\.v1\.AuthorityService/GetBalance`)
	if body := get(t, web+"/readyz"); body != "ready\n" {
		t.Errorf("HTTP: %q", body)
	}
	must(t, "keys", "list", "--server", address, "--key-file", keyFile)
	p.stop()
	p.await(t, `(`+booksBalance+`)`)
	if code := p.end(t); code != exitOK {
		t.Errorf("demo ended with %d\n%s", code, p.log)
	}
	if _, err := os.Stat(keyFile); err == nil {
		t.Error("the key file is still there")
	}
}

func TestDemoBrokenTrace(t *testing.T) {
	broken := firstRows(5) + "2023-11-16 18:16:00.0,12,many\n"
	fails(t, exitFailure, []string{"broken.csv:7: GeneratedTokens is \"many\""}, "demo", "--trace", writeFile(t, "broken.csv", broken))
	fails(t, exitFailure, []string{"unknown key \"feature\""}, "demo", "--catalog", writeFile(t, "c.yaml", "feature: []\n"))
}
