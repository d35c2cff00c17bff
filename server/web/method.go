package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	"github.com/purser-io/purser/quota"
)

// compressMinBytes is the shortest answer that is compressed: below, it costs more than it
// saves.
const compressMinBytes = 1024

// handlerOptions are those that do not depend on the method.
func handlerOptions() []connect.HandlerOption {
	options := []connect.HandlerOption{connect.WithCompressMinBytes(compressMinBytes)}
	for _, c := range codecs() {
		options = append(options, connect.WithCodec(c))
	}
	return options
}

// method is one method of a service, over HTTP.
type method struct {
	*door
	name    string // "/package.Service/Method"
	kind    connect.StreamType
	most    int64 // bytes of a message
	settles bool
	stats   []stats.Handler
	now     func() time.Time
	accept  []string // content types
	rpc     http.Handler
}

func newMethod(c *Config, d *door, service, name string, kind connect.StreamType) *method {
	m := &method{door: d, name: "/" + service + "/" + name, kind: kind, stats: c.Stats, now: c.Now}
	m.most = int64(c.MessageBytes(m.name, kind != connect.StreamTypeUnary))
	m.settles = c.Settles(m.name)
	connectPrefix := "application/"
	if kind != connect.StreamTypeUnary {
		connectPrefix = "application/connect+"
	}
	for _, c := range codecs() {
		m.accept = append(m.accept, connectPrefix+c.name)
	}
	for _, protocol := range []string{"application/grpc", "application/grpc-web"} {
		m.accept = append(m.accept, protocol)
		for _, c := range codecs() {
			m.accept = append(m.accept, protocol+"+"+c.name)
		}
	}
	return m
}

// options are those of connect-go. It knows no bound on messages: body and inflater hold it.
func (m *method) options() []connect.HandlerOption {
	bounded := connect.WithCompression("gzip",
		func() connect.Decompressor {
			return &inflater{most: m.most, refuse: func(err error) error { return m.refusal(context.Background(), err) }}
		},
		newCompressor)
	return append(handlerOptions(), bounded)
}

// refusal is an error for the wire.
func (m *method) refusal(ctx context.Context, err error) *connect.Error {
	if errors.Is(err, errOversized) {
		err = oversized(m.name, m.most)
	}
	return toConnect(m.refuse(ctx, m.name, err))
}

// ServeHTTP implements http.Handler: it refuses what is no call of this method, and has
// connect-go serve the rest.
func (m *method) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if code, err := m.examine(w.Header(), r); err != nil {
		m.shut(w, r, m.name, code, err)
		return
	}
	out := &response{ResponseWriter: w}
	r = r.WithContext(m.context(r))
	r.Body = m.body(r, out)
	if m.kind != connect.StreamTypeUnary { // it lasts as long as both sides want
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
	}
	m.rpc.ServeHTTP(out, r)
}

// context is the call's, with what gRPC's handlers look for.
func (m *method) context(r *http.Request) context.Context {
	ctx := r.Context()
	if m.settles {
		// The call is bounded by its deadline; what was used is charged though nobody waits.
		ctx = context.WithoutCancel(ctx)
	}
	md := make(metadata.MD, len(r.Header))
	for k, values := range r.Header {
		k = strings.ToLower(k)
		for _, v := range values {
			if strings.HasSuffix(k, "-bin") {
				raw, err := connect.DecodeBinaryHeader(v)
				if err != nil {
					continue // no header of ours
				}
				v = string(raw)
			}
			md[k] = append(md[k], v)
		}
	}
	p := &peer.Peer{}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.Addr = net.TCPAddrFromAddrPort(a)
	}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	return peer.NewContext(metadata.NewIncomingContext(ctx, md), p)
}

// body bounds what is read. The encoding of a body without frames is undone here, so that what
// is too large in either form has the same answer.
func (m *method) body(r *http.Request, out *response) io.ReadCloser {
	refuse := func(err error) error {
		if errors.Is(err, errOversized) {
			out.failure = http.StatusRequestEntityTooLarge
		}
		return m.refusal(r.Context(), err)
	}
	contentType := r.Header.Get("Content-Type")
	b := &body{ReadCloser: r.Body, most: m.most, refuse: refuse,
		framed: strings.HasPrefix(contentType, "application/grpc") || strings.HasPrefix(contentType, "application/connect+"),
		single: m.kind&connect.StreamTypeClient == 0,
	}
	b.compressed = encodingOf(r.Header, b.framed) != ""
	if !b.framed && b.compressed {
		r.Header.Del("Content-Encoding")
		f := &inflater{most: m.most, refuse: refuse}
		_ = f.Reset(b)
		return struct {
			io.Reader
			io.Closer
		}{f, b}
	}
	return b
}

// encodingHeaders name the compression of the messages: of gRPC and gRPC-Web, of Connect
// streams, of single Connect calls.
var encodingHeaders = []string{"Grpc-Encoding", "Connect-Content-Encoding", "Content-Encoding"}

// encodingOf is the encoding named in the headers that are read for a body; "" if there is none.
func encodingOf(h http.Header, framed bool) string {
	for _, name := range encodingHeaders {
		if v := h.Get(name); v != "" && v != "identity" && framed == (name != "Content-Encoding") {
			return v
		}
	}
	return ""
}

// encoding is what may be named as compression.
var encoding = regexp.MustCompile(`^(gzip|identity)$`)

// shapes of headers that hold no text.
var shapes = []struct {
	name  string
	shape *regexp.Regexp
	says  string
}{
	{"Connect-Protocol-Version", regexp.MustCompile(`^1$`), "1 is known"},
	{"Connect-Timeout-Ms", regexp.MustCompile(`^[0-9]{1,10}$`), "it is a number of milliseconds, at most ten digits"},
	{"Grpc-Timeout", regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`), "it is a number, at most eight digits, and a unit: H, M, S, m, u or n"},
	{"Grpc-Encoding", encoding, "gzip and identity are known"},
	{"Connect-Content-Encoding", encoding, "gzip and identity are known"},
	{"Content-Encoding", encoding, "gzip and identity are known"},
}

// examine refuses what is no call of this method, with an HTTP status, and makes the content
// type canonical. It may add headers to the answer.
func (m *method) examine(answer http.Header, r *http.Request) (int, error) {
	if r.Method != http.MethodPost {
		answer.Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, malformed(fmt.Sprintf("%s is called by POST, not by %s", m.name, r.Method))
	}
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := parameters["charset"]; err != nil || !slices.Contains(m.accept, kind) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		answer.Set("Accept-Post", strings.Join(m.accept, ", "))
		return http.StatusUnsupportedMediaType, malformed(fmt.Sprintf("%s does not take the content type %.64q; it takes %s",
			m.name, r.Header.Get("Content-Type"), strings.Join(m.accept, ", ")))
	}
	r.Header.Set("Content-Type", kind)
	if m.kind == connect.StreamTypeBidi && r.ProtoMajor < 2 {
		answer.Set("Connection", "close") // a client that awaits both directions would hang
		// Streams have their errors behind the messages, and every content type taken here is one's.
		return http.StatusOK, notServed(m.name+" is a stream in both directions, which needs HTTP/2", nil)
	}
	for _, h := range shapes {
		for _, v := range r.Header.Values(h.name) {
			text := fmt.Sprintf("the header %s is %.64q; %s", h.name, v, h.says)
			switch {
			case h.shape.MatchString(v):
			case h.shape == encoding: // gRPC and Connect want UNIMPLEMENTED, and to be told what is known
				answer.Set(strings.NewReplacer("Content-", "", "Encoding", "Accept-Encoding").Replace(h.name), "gzip")
				return http.StatusUnsupportedMediaType, notServed(text, nil)
			default:
				return http.StatusBadRequest, malformed(text)
			}
		}
	}
	if m.kind == connect.StreamTypeUnary && r.ContentLength > m.most+5 {
		return http.StatusRequestEntityTooLarge, oversized(m.name, m.most)
	}
	return 0, nil
}

// unary makes the handler of a method with one request and one answer.
func (m *method) unary(impl any, handler grpc.MethodHandler, chain grpc.UnaryServerInterceptor) http.Handler {
	return connect.NewUnaryHandler(m.name, func(ctx context.Context, req *connect.Request[message]) (*connect.Response[message], error) {
		ctx, seen := m.observe(ctx, false, false)
		t := &transport{name: m.name}
		var bad error
		out, err := handler(impl, grpc.NewContextWithServerTransportStream(ctx, t), func(in any) error {
			bad = decodeInto(req.Msg, in)
			seen.received(ctx, in, len(req.Msg.data))
			return bad
		}, chain)
		if bad != nil {
			err = m.refuse(ctx, m.name, bad) // before the interceptors
		}
		if err != nil {
			seen.end(ctx, err)
			failed := toConnect(err)
			t.copyTo(failed.Meta(), failed.Meta())
			return nil, failed
		}
		seen.sent(ctx, out)
		seen.end(ctx, nil)
		answer, err := answerOf(out)
		if err != nil {
			return nil, m.refusal(ctx, err)
		}
		resp := connect.NewResponse(answer)
		t.copyTo(resp.Header(), resp.Trailer())
		return resp, nil
	}, m.options()...)
}

// stream makes the handler of a method that streams.
func (m *method) stream(impl any, desc *grpc.StreamDesc, chain grpc.StreamServerInterceptor) http.Handler {
	info := &grpc.StreamServerInfo{FullMethod: m.name, IsClientStream: desc.ClientStreams, IsServerStream: desc.ServerStreams}
	serve := func(ctx context.Context, conn connect.StreamingHandlerConn, first *message) error {
		ctx, seen := m.observe(ctx, desc.ClientStreams, desc.ServerStreams)
		s := &stream{method: m, conn: conn, first: first, one: first != nil, seen: seen}
		s.ctx = grpc.NewContextWithServerTransportStream(ctx, &streamTransport{s})
		err := chain(impl, s, info, desc.Handler)
		seen.end(ctx, err)
		if err != nil {
			return toConnect(err)
		}
		return nil
	}
	if m.kind == connect.StreamTypeServer {
		return connect.NewServerStreamHandler(m.name, func(ctx context.Context, req *connect.Request[message], out *connect.ServerStream[message]) error {
			return serve(ctx, out.Conn(), req.Msg)
		}, m.options()...)
	}
	return connect.NewBidiStreamHandler(m.name, func(ctx context.Context, both *connect.BidiStream[message, message]) error {
		return serve(ctx, both.Conn(), nil)
	}, m.options()...)
}

// streamType is connect-go's word for a stream; one that only the client sends is served as
// one in both directions.
func streamType(d *grpc.StreamDesc) connect.StreamType {
	if !d.ClientStreams {
		return connect.StreamTypeServer
	}
	return connect.StreamTypeBidi
}

var errNoMessage = &quota.Error{Reason: quota.ReasonInternal, Message: "the handler answered with no message"}
