package apply

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func (s *Server) keys(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Keys) == 0 {
		return nil
	}
	have, err := s.ListKeys(ctx)
	if err != nil {
		return err
	}
	for _, k := range m.Keys {
		request := &purserv1.CreateKeyRequest{Principal: k.Principal, Role: purserv1.Role(purserv1.Role_value["ROLE_"+k.Role]),
			Account: k.Account, Labels: k.Labels, ExpireTime: timestamp(k.ExpireTime)}
		if k.Revoked || slices.ContainsFunc(have, func(h *purserv1.Key) bool { return sameKey(h, request) }) {
			p.Unchanged++
			continue
		}
		after := k
		after.Pos, after.Status = manifest.Pos{}, nil
		p.add(k.Pos, Action{Verb: Create, Kind: "key", ID: k.Principal, Detail: strings.ToLower(k.Role), After: after,
			do: func(ctx context.Context, a *Action) error {
				r, err := s.Keys.CreateKey(ctx, request)
				a.Secret = r.GetSecret()
				return err
			},
			check: checked(s.Keys.CreateKey, request)})
	}
	return nil
}

// sameKey ignores times but that of revocation: an expired key is still the one asked for.
func sameKey(have *purserv1.Key, want *purserv1.CreateKeyRequest) bool {
	return have.GetRevokeTime() == nil && have.GetPrincipal() == want.Principal && have.GetRole() == want.Role &&
		have.GetAccount() == want.Account && maps.Equal(have.GetLabels(), want.Labels) &&
		(want.ExpireTime == nil || proto.Equal(have.GetExpireTime(), want.ExpireTime))
}
