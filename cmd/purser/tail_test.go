package main

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/purser-io/purser/examples"
)

// TestTailFollowsANode: decisions and settlements appear while they are made, for people and
// for machines; a filter keeps the rest away, and the end of the node is told.
func TestTailFollowsANode(t *testing.T) {
	node, address, keyFile := serve(t, sqliteStore(t), "--drain-for=0s")
	server := []string{"--server", address, "--key-file", keyFile}
	with := func(args ...string) []string { return append(args, server...) }
	must(t, with("apply", "-f", writeFile(t, "catalog.yaml", string(examples.Catalog)), "--secrets-dir", filepath.Dir(keyFile))...)

	people, machines := start(t, with("tail")...), start(t, with("tail", "ada", "--denied", "-o", "json")...)
	people.followed(t)
	machines.followed(t)
	token := strings.TrimSpace(must(t, with("reserve", "globex", "chat.gpt-small", "--estimate", "input_tokens=1000", "-o", "name")...))
	must(t, with("commit", token, "--usage", "input_tokens=1000")...)
	if r := purserCmd(t, with("reserve", "ada", "chat.gpt-large", "--estimate", "input_tokens=1000")...); r.code == exitOK {
		t.Fatalf("ada was given the large model:\n%s", r.out)
	}

	for _, want := range []string{`(RESERVED   globex  chat\.gpt-small  held 0\.015 input_tokens=1000)\n`,
		`(COMMITTED  globex  chat\.gpt-small  charged 0\.015 input_tokens=1000)`, `(DENIED     ada  chat\.gpt-large  FEATURE_NOT_ENTITLED: .*)\n`} {
		people.await(t, want)
	}
	var event struct {
		Kind, Account string
		Denial        struct{ Reason string }
	}
	if err := json.Unmarshal([]byte(machines.await(t, `(\{.*\})\n`)), &event); err != nil {
		t.Fatal(err)
	}
	if event.Kind != "EVENT_KIND_DENIED" || event.Account != "ada" || event.Denial.Reason != "DENIAL_REASON_FEATURE_NOT_ENTITLED" {
		t.Errorf("event = %+v", event)
	}
	if strings.Contains(people.out.String(), "\x1b[") {
		t.Errorf("colours without a terminal:\n%s", people.out)
	}
	if code := people.end(t); code != exitOK {
		t.Errorf("tail ended by its user: exit %d\n%s", code, people.log)
	}
	node.end(t)
	if code := <-machines.done; code != exitFailure || !strings.Contains(machines.log.String(), "draining") {
		t.Errorf("tail of a node that drained: exit %d\n%s", code, machines.log)
	}
	machines.done <- exitFailure // for the cleanup
}

// followed waits until the stream is open: what happens from here on is in it.
func (p *process) followed(t *testing.T) {
	t.Helper()
	if p.log.await(regexp.MustCompile(`(following .*)\n`)) == nil {
		t.Fatalf("tail ended:\n%s", p.log)
	}
}
