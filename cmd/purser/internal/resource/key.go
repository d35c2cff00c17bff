package resource

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func keys() Kind {
	type T = *purserv1.Key
	return &kind[T]{
		about: About{Name: "key", Plural: "keys", Aliases: []string{"k", "apikey", "apikeys"}, Removal: "revoked",
			Warning: "it stops working within a second, for ever"},
		id:   T.GetId,
		list: func(ctx context.Context, s *Server, _ string) ([]T, error) { return s.ListKeys(ctx) },
		columns: []column[T]{
			col("key", said(T.GetId)),
			col("principal", said(T.GetPrincipal)),
			col("role", said(func(k T) string { return Word(k.GetRole()) })),
			col("account", said(T.GetAccount)),
			col("labels", said(func(k T) string { return Labels(k.GetLabels()) })),
			col("state", func(s *Server, k T) string { return s.keyState(k) }),
			col("expires", said(func(k T) string { return expiry(instant(k.GetExpireTime())) })),
			col("age", func(s *Server, k T) string { return s.age(k.GetCreateTime()) }),
			wide("created", said(func(k T) string { return stamp(instant(k.GetCreateTime())) })),
		},
		document: func(m *manifest.Manifest, k T) {
			d := FromKey(k)
			d.Status = status{ID: k.GetId(), CreateTime: instant(k.GetCreateTime()), RevokeTime: instant(k.GetRevokeTime())}
			m.Keys = append(m.Keys, d)
		},
		remove: func(ctx context.Context, s *Server, k T, dry bool) error {
			_, err := s.Keys.RevokeKey(ctx, &purserv1.RevokeKeyRequest{Id: k.GetId(), ValidateOnly: dry})
			return err
		},
	}
}

func (s *Server) keyState(k *purserv1.Key) string {
	expires := instant(k.GetExpireTime())
	switch {
	case k.GetRevokeTime() != nil:
		return "REVOKED"
	case !expires.IsZero() && !expires.After(s.Now):
		return "EXPIRED"
	default:
		return "LIVE"
	}
}

// Labels are labels for people, in order.
func Labels(labels map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return strings.Join(out, " ")
}
