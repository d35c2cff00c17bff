// Package web serves the gRPC services over HTTP: as JSON and protobuf over POST (Connect),
// gRPC-Web, Connect streams and gRPC itself, on HTTP/1.1 and HTTP/2. Each call runs the
// method's own gRPC handler within the same interceptors as on the gRPC port, so both ports
// have the same answers; connect-go knows the protocols, this package carries calls across.
//
// Whatever is refused before a handler runs (path, method, content type, size, framing,
// encoding, unknown fields) is refused with a reason in google.rpc.ErrorInfo as well, and is
// definite: nothing was applied. docs/http.md is the page for callers.
package web
