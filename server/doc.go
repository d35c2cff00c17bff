// Package server is gRPC and HTTP in and out: it builds the server with its interceptors, services,
// health, reflection and metrics. It is the only place, with the packages below it, that
// converts protobuf. It has no flags and no globals; nothing runs before [Server.Serve]
// and [Server.ServeWeb].
package server
