package apitest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/purser-io/purser/server"
)

// overJSON is SQLite, called as curl would: the sequences have to read the same.
func overJSON() backend {
	b := onSQLite()
	b.name, b.json = "json over HTTP", true
	return b
}

// serveJSON serves s on a socket as well, and returns a connection that speaks JSON.
func (w *world) serveJSON(s *server.Server) *jsonConn {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeWeb(l) }()
	c := &jsonConn{url: "http://" + l.Addr().String(), client: &http.Client{Transport: &http.Transport{}}}
	w.t.Cleanup(func() { // before the server is stopped
		c.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.GracefulStop(ctx)
		if err := <-ended; err != nil {
			w.t.Errorf("serve HTTP: %v", err)
		}
	})
	return c
}

// jsonConn carries the calls of generated clients as JSON over POST. It reads of an error only
// what is readable as JSON.
type jsonConn struct {
	url    string
	client *http.Client
}

// NewStream implements grpc.ClientConnInterface; no sequence streams.
func (c *jsonConn) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams over JSON")
}

// Invoke implements grpc.ClientConnInterface.
func (c *jsonConn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	body, err := protojson.Marshal(args.(proto.Message))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	md, _ := metadata.FromOutgoingContext(ctx)
	for k, values := range md {
		for _, v := range values {
			r.Header.Add(k, v)
		}
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return protojson.Unmarshal(b, reply.(proto.Message))
	}
	return jsonError(b)
}

// jsonError is a Connect error as a status of gRPC. Each detail is sent twice, and both must
// say the same.
func jsonError(body []byte) error {
	var e struct {
		Code, Message string
		Details       []struct {
			Type, Value string
			Debug       json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("an error that is no JSON: %q", body)
	}
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + strings.Replace(strings.ToUpper(e.Code), "CANCELED", "CANCELLED", 1) + `"`)); err != nil {
		return err
	}
	st := &spb.Status{Code: int32(code), Message: e.Message}
	for _, d := range e.Details {
		var m proto.Message
		switch d.Type {
		case "google.rpc.ErrorInfo":
			m = &errdetails.ErrorInfo{}
		case "google.rpc.RetryInfo":
			m = &errdetails.RetryInfo{}
		case "google.rpc.BadRequest":
			m = &errdetails.BadRequest{}
		default:
			return fmt.Errorf("an unknown detail in %s", body)
		}
		if err := protojson.Unmarshal(d.Debug, m); err != nil {
			return fmt.Errorf("detail %s: %w", d.Debug, err)
		}
		raw, err := base64.RawStdEncoding.DecodeString(d.Value)
		if err != nil {
			return err
		}
		same := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(raw, same); err != nil || !proto.Equal(m, same) {
			return fmt.Errorf("detail %s is not what its value says: %v, %v", d.Debug, same, err)
		}
		detail, err := anypb.New(m)
		if err != nil {
			return err
		}
		st.Details = append(st.Details, detail)
	}
	return status.ErrorProto(st)
}
