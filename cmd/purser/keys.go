package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/table"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
)

// keysCmd works on API keys.
type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Create an API key; its secret is shown once."`
	List   keysListCmd   `cmd:"" help:"List API keys, without their secrets."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke an API key; it stops working within a second."`
}

// Help is shown by --help.
func (keysCmd) Help() string {
	return `With --store the keys are changed in the store itself: how to get in when no key is left. On SQLite no server may be running then.

Examples:
  purser keys create --role gate --principal gateway --key-file purser.db.admin-key
  purser keys create --role gate --principal search --account acme --label team=search --key-file purser.db.admin-key
  purser keys create --role admin --principal me --store sqlite:purser.db --out admin.key
  purser keys list --key-file purser.db.admin-key
  purser keys revoke 0123456789abcdef --key-file purser.db.admin-key`
}

// keyTarget is where keys are: a server, or a store.
type keyTarget struct {
	Store      storeURL   `placeholder:"URL" help:"Work on the store itself, instead of through a server."`
	Connection connection `embed:"" group:"Server"`
}

// keyView is a key as it is shown.
type keyView struct {
	ID        string            `json:"id"`
	Role      string            `json:"role"`
	Principal string            `json:"principal"`
	Account   string            `json:"account,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Expires   *time.Time        `json:"expire_time,omitempty"`
	Revoked   *time.Time        `json:"revoke_time,omitempty"`
	Secret    string            `json:"secret,omitempty"`
}

// keyAdmin is what the commands need, of a server or of a store.
type keyAdmin interface {
	create(ctx context.Context, k keyView) (keyView, error)
	list(ctx context.Context) ([]keyView, error)
	revoke(ctx context.Context, id string) (keyView, error)
}

// with runs fn on the target.
func (t *keyTarget) with(e *env, fn func(keyAdmin) error) error {
	if t.Store != "" {
		store, _, err := t.Store.open(e.ctx, e.log, e.clock, 0)
		if err != nil {
			return err
		}
		return errors.Join(fn(storeKeys{store, e.clock}), store.Close())
	}
	client, err := t.Connection.dial(e.ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(serverKeys{purserv1.NewKeyServiceClient(client.Conn(""))}), client.Close(e.ctx))
}

type keysCreateCmd struct {
	Role      string            `required:"" enum:"gate,viewer,admin" help:"What the key may do: ${enum}."`
	Principal string            `required:"" placeholder:"NAME" help:"Who calls. Several keys may have the same principal; reservations belong to it."`
	Account   string            `placeholder:"ID" help:"The only account the key may name."`
	Label     map[string]string `placeholder:"KEY=VALUE" help:"Labels bound to the key; they win over those sent."`
	ExpireIn  time.Duration     `placeholder:"DURATION" help:"After how long the key stops working; default: never."`
	Out       string            `type:"path" placeholder:"FILE" help:"Write the secret there, mode 0600, instead of printing it."`
	Target    keyTarget         `embed:""`
}

// Run creates a key.
func (c *keysCreateCmd) Run(e *env) error {
	return c.Target.with(e, func(keys keyAdmin) error {
		want := keyView{Role: c.Role, Principal: c.Principal, Account: c.Account, Labels: c.Label}
		if c.ExpireIn > 0 {
			want.Expires = new(e.clock.Now().Add(c.ExpireIn))
		}
		k, err := keys.create(e.ctx, want)
		if err != nil {
			return fmt.Errorf("create key of %s: %w", c.Principal, err)
		}
		if c.Out != "" {
			if err := writeSecret(c.Out, k.Secret); err != nil {
				return fmt.Errorf("%w: the key %s was made, and nobody has its secret: revoke it", err, k.ID)
			}
			k.Secret = ""
		}
		return e.out.emit(k, func(w io.Writer) {
			printLine(w, "key %s of %s, %s", k.ID, k.Principal, k.Role)
			if c.Out != "" {
				printLine(w, "secret written to %s", c.Out)
			} else {
				printLine(w, "secret, shown once: %s", k.Secret)
			}
		})
	})
}

type keysListCmd struct {
	Target keyTarget `embed:""`
}

// Run lists the keys.
func (c *keysListCmd) Run(e *env) error {
	return c.Target.with(e, func(keys keyAdmin) error {
		list, err := keys.list(e.ctx)
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		return e.out.emit(list, func(w io.Writer) { printKeys(w, list) })
	})
}

func printKeys(w io.Writer, list []keyView) {
	var t table.Table
	for _, name := range []string{"id", "role", "principal", "account", "labels", "expires", "revoked"} {
		t.Columns = append(t.Columns, table.Column{Name: name})
	}
	for _, k := range list {
		t.Rows = append(t.Rows, []string{k.ID, k.Role, k.Principal, k.Account, resource.Labels(k.Labels), when(k.Expires), when(k.Revoked)})
	}
	t.Write(w, false)
}

func when(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

type keysRevokeCmd struct {
	ID     string    `arg:"" completion:"key" help:"Public id of the key, as keys list shows it."`
	Target keyTarget `embed:""`
}

// Run revokes a key.
func (c *keysRevokeCmd) Run(e *env) error {
	return c.Target.with(e, func(keys keyAdmin) error {
		k, err := keys.revoke(e.ctx, c.ID)
		if err != nil {
			return fmt.Errorf("revoke key %s: %w", c.ID, err)
		}
		return e.out.emit(k, func(w io.Writer) { printLine(w, "key %s of %s is revoked", k.ID, k.Principal) })
	})
}

// serverKeys works through a server.
type serverKeys struct {
	api purserv1.KeyServiceClient
}

func (s serverKeys) create(ctx context.Context, k keyView) (keyView, error) {
	request := &purserv1.CreateKeyRequest{Role: purserv1.Role(purserv1.Role_value["ROLE_"+strings.ToUpper(k.Role)]),
		Principal: k.Principal, Account: k.Account, Labels: k.Labels}
	if k.Expires != nil {
		request.ExpireTime = timestamppb.New(*k.Expires)
	}
	r, err := s.api.CreateKey(ctx, request)
	if err != nil {
		return keyView{}, err
	}
	out := fromAPIKey(r.GetKey())
	out.Secret = r.GetSecret()
	return out, nil
}

func (s serverKeys) list(ctx context.Context) ([]keyView, error) {
	out := []keyView{}
	for token := ""; ; {
		r, err := s.api.ListKeys(ctx, &purserv1.ListKeysRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, k := range r.GetKeys() {
			out = append(out, fromAPIKey(k))
		}
		if token = r.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

func (s serverKeys) revoke(ctx context.Context, id string) (keyView, error) {
	r, err := s.api.RevokeKey(ctx, &purserv1.RevokeKeyRequest{Id: id})
	return fromAPIKey(r.GetKey()), err
}

func fromAPIKey(k *purserv1.Key) keyView {
	out := keyView{ID: k.GetId(), Role: strings.ToLower(strings.TrimPrefix(k.GetRole().String(), "ROLE_")),
		Principal: k.GetPrincipal(), Account: k.GetAccount(), Labels: k.GetLabels()}
	if t := k.GetExpireTime(); t != nil {
		out.Expires = new(t.AsTime())
	}
	if t := k.GetRevokeTime(); t != nil {
		out.Revoked = new(t.AsTime())
	}
	return out
}

// storeKeys works on the store itself.
type storeKeys struct {
	store quota.KeyAdminStore
	clock clock
}

func (s storeKeys) create(ctx context.Context, k keyView) (keyView, error) {
	labels, err := label.New(k.Labels)
	if err != nil {
		return keyView{}, err
	}
	key := authz.Key{Principal: k.Principal, Account: k.Account, Labels: labels,
		Role: map[string]authz.Role{"gate": authz.RoleGate, "viewer": authz.RoleViewer, "admin": authz.RoleAdmin}[k.Role]}
	if k.Expires != nil {
		key.ExpireTime = k.Expires.UnixNano()
	}
	key, secret, err := createKey(ctx, s.store, key, s.clock.unixNano())
	out := fromKey(key)
	out.Secret = secret
	return out, err
}

func (s storeKeys) list(ctx context.Context) ([]keyView, error) {
	out := []keyView{}
	const size = 1000
	for page := (quota.Page{Size: size}); ; {
		keys, err := s.store.ListKeys(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			out = append(out, fromKey(k))
		}
		if len(keys) < size {
			return out, nil
		}
		page.After = keys[len(keys)-1].ID
	}
}

func (s storeKeys) revoke(ctx context.Context, id string) (keyView, error) {
	k, err := s.store.RevokeKey(ctx, quota.Mutation{Principal: storePrincipal, Now: s.clock.unixNano()}, id)
	return fromKey(k), err
}

func fromKey(k authz.Key) keyView {
	out := keyView{ID: k.ID, Role: k.Role.String(), Principal: k.Principal, Account: k.Account, Labels: k.Labels.Map()}
	if k.ExpireTime != authz.Never {
		out.Expires = new(time.Unix(0, k.ExpireTime).UTC())
	}
	if k.RevokeTime != 0 {
		out.Revoked = new(time.Unix(0, k.RevokeTime).UTC())
	}
	return out
}

// revoke ends a key on the store that the node runs on; nothing to revoke is fine.
func (l *local) revoke(ctx context.Context, id string) error {
	_, err := l.store.RevokeKey(ctx, quota.Mutation{Principal: storePrincipal, Now: l.k.unixNano()}, id)
	return err
}
