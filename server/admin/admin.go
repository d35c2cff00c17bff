// Package admin is what all admin services share: repeatable writes, etags, pages, and telling
// the authority of this node about a change.
package admin

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/caller"
	"github.com/purser-io/purser/server/grpcerr"
)

// Clock tells the time.
type Clock interface{ Now() time.Time }

// Refresher takes in admin changes at once, so that the node that wrote also obeys.
type Refresher interface {
	Refresh(ctx context.Context) error
}

// Desk is where admin writes begin and end.
type Desk struct {
	Clock     Clock
	Refresher Refresher
	Logger    *slog.Logger
}

// Write is a request that changes something.
type Write interface {
	proto.Message
	GetRequestId() string
	GetValidateOnly() bool
}

// Mutation is what the store wants to know of a write. The digest is over the content: two
// requests are the same if they differ in nothing but their request id.
func (d *Desk) Mutation(ctx context.Context, w Write) (quota.Mutation, error) {
	digest, err := Digest(w)
	if err != nil {
		return quota.Mutation{}, err
	}
	m := quota.Mutation{
		RequestID:    w.GetRequestId(),
		Digest:       digest,
		ValidateOnly: w.GetValidateOnly(),
		Now:          d.Clock.Now().UnixNano(),
	}
	if p, ok := caller.From(ctx); ok {
		m.Principal = p.Name
	}
	return m, nil
}

// Digest is the SHA-256 of a message's name and its deterministic encoding without request_id.
func Digest(m proto.Message) (digest [32]byte, err error) {
	c := proto.Clone(m)
	fields := c.ProtoReflect().Descriptor()
	if f := fields.Fields().ByName("request_id"); f != nil {
		c.ProtoReflect().Clear(f)
	}
	// The name keeps apart methods whose requests happen to be encoded alike.
	b := append([]byte(fields.FullName()), 0)
	b, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, c)
	if err != nil {
		return digest, fmt.Errorf("digest request: %w", err)
	}
	return sha256.Sum256(b), nil
}

// Written has this node's authority take in what m changed. A failure is no failure of the
// write, which is durable: the poll brings the change within its time.
func (d *Desk) Written(ctx context.Context, m quota.Mutation) {
	if m.ValidateOnly {
		return
	}
	if err := d.Refresher.Refresh(ctx); err != nil {
		d.Logger.WarnContext(ctx, "take in admin change: the poll will", "error", err)
	}
}

// ETag is the etag of a revision.
func ETag(revision int64) string { return strconv.FormatInt(revision, 10) }

// ParseETag reads an etag as the caller sent it back; empty is 0, "not checked".
func ParseETag(etag string) (int64, error) {
	if etag == "" {
		return 0, nil
	}
	revision, err := strconv.ParseInt(etag, 10, 64)
	if err != nil || revision <= 0 || ETag(revision) != etag {
		return 0, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "etag",
			Description: fmt.Sprintf("%q is no etag of this server; send one as it was read, or none", etag)})
	}
	return revision, nil
}

// DefaultPageSize is used where a request states none.
const DefaultPageSize = 100

// List is a request for a page.
type List interface {
	GetPageSize() int32
	GetPageToken() string
}

// PageOf is the page that l asks for; bounds were checked before.
func PageOf(l List) (quota.Page, error) {
	p := quota.Page{Size: int(l.GetPageSize())}
	if p.Size == 0 {
		p.Size = DefaultPageSize
	}
	after, err := base64.RawURLEncoding.DecodeString(l.GetPageToken())
	if err != nil {
		return p, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "page_token",
			Description: "it is none of this server's; send the next_page_token of the page before, or none"})
	}
	p.After = string(after)
	return p, nil
}

// Token is the page token that continues behind the key after; empty if there is no more.
func Token(after string) string { return base64.RawURLEncoding.EncodeToString([]byte(after)) }

// Cut ends a page: rows were read with one more than the page's size, and key names a row.
func Cut[T any](rows []T, size int, key func(*T) string) (page []T, token string) {
	if len(rows) <= size {
		return rows, ""
	}
	return rows[:size], Token(key(&rows[size-1]))
}

// OneMore asks for a row beyond the page, which tells whether there is a next one.
func OneMore(p quota.Page) quota.Page { return quota.Page{After: p.After, Size: p.Size + 1} }

// After cuts a page out of rows that are all in memory, sorted by key.
func After[T any](rows []T, p quota.Page, key func(*T) string) (page []T, token string) {
	for len(rows) > 0 && p.After != "" && key(&rows[0]) <= p.After {
		rows = rows[1:]
	}
	return Cut(rows, p.Size, key)
}

// Time is a time for the wire; nil for 0 and for what does not happen.
func Time(ns int64) *timestamppb.Timestamp {
	if ns == 0 || ns == quota.Never {
		return nil
	}
	return timestamppb.New(time.Unix(0, ns))
}

// Nanos is a time from the wire, or otherwise if it was left out. Bounds were checked before.
func Nanos(t *timestamppb.Timestamp, otherwise int64) int64 {
	if t == nil {
		return otherwise
	}
	return t.AsTime().UnixNano()
}
