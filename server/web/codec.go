package web

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// message is what crosses connect-go: bytes as they came on the way in, a message of the
// contract on the way out. It is decoded behind connect-go, by the gRPC handler, which knows
// the type; so what cannot be decoded is refused with our reason, and not with its.
type message struct {
	codec *codec // of data; nil if the message was empty
	data  []byte
	out   proto.Message
}

// decode reads a request into m. An error says what is wrong and where.
func (in *message) decode(m proto.Message) error {
	if in.codec == nil {
		return nil // an empty frame: the message with no field set
	}
	if len(in.data) == 0 && in.codec.json {
		return malformed("the body is empty; a request without fields is {}")
	}
	if err := in.codec.unmarshal(in.data, m); err != nil {
		return undecodable(m, err)
	}
	return nil
}

// codec is one encoding of messages, as connect-go wants it.
type codec struct {
	name      string
	json      bool
	marshal   func(proto.Message) ([]byte, error)
	unmarshal func([]byte, proto.Message) error
}

// codecs are JSON, by the rules of protobuf's JSON mapping, and protobuf. JSON fields that the
// contract does not have are refused: a misspelt bound that is dropped would hold or charge
// something else than was asked.
func codecs() []*codec {
	return []*codec{
		{name: "json", json: true, marshal: protojson.Marshal, unmarshal: protojson.Unmarshal},
		{name: "proto", marshal: proto.Marshal, unmarshal: proto.Unmarshal},
	}
}

// Name implements connect.Codec.
func (c *codec) Name() string { return c.name }

// Marshal implements connect.Codec. connect-go itself sends statuses of gRPC with it.
func (c *codec) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case *message:
		return c.marshal(v.out)
	case proto.Message:
		return c.marshal(v)
	}
	return nil, fmt.Errorf("marshal: %T is no message", v)
}

// Unmarshal implements connect.Codec; data is not kept.
func (c *codec) Unmarshal(data []byte, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("unmarshal: %T is no message", v)
	}
	m.codec, m.data = c, bytes.Clone(data)
	return nil
}

// What the decoders say: with a prefix, behind which stands a blank of one kind or another, and
// mostly with the name of a field.
var (
	decoderPrefix = regexp.MustCompile(`^proto:[\s\x{00a0}]*`)
	decoderField  = regexp.MustCompile(`field "?([A-Za-z0-9_.]+)`)
)

func undecodable(m proto.Message, err error) error {
	said := decoderPrefix.ReplaceAllString(err.Error(), "")
	name := string(m.ProtoReflect().Descriptor().FullName())
	text := fmt.Sprintf("the body is no %s: %s", name, said)
	refusal := &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true, Message: strings.ToValidUTF8(text, "?")}
	if field := decoderField.FindStringSubmatch(said); field != nil {
		return &grpcerr.InvalidError{Cause: refusal, Violations: []grpcerr.Violation{{Field: field[1], Description: refusal.Message}}}
	}
	return refusal
}

// malformed refuses what cannot be read.
func malformed(text string) error {
	return &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true, Message: text}
}

// oversized refuses what is over the bound of its method.
func oversized(method string, most int64) error {
	return &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true,
		Message: fmt.Sprintf("the message is too large; %s takes at most %d bytes, counted before and behind compression", method, most),
		Meta:    map[string]string{"max_bytes": fmt.Sprint(most)}}
}
