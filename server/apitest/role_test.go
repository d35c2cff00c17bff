package apitest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

// allowed is who may call what, as the contract says it; everybody includes callers without a
// key. What is served and not in it fails the test.
const allowed = `
purser.v1.AuthorityService   gate admin          CheckAndReserve Commit Release Extend Session
purser.v1.AuthorityService   gate viewer admin   Check GetBalance
purser.v1.CatalogService     viewer admin        GetFeature ListFeatures GetPlan ListPlans GetPlanVersion GetRateCard ListRateCards
purser.v1.CatalogService     admin               CreateFeature UpdateFeature DeleteFeature PublishPlanVersion PublishRateCard
purser.v1.AccountService     viewer admin        GetAccount ListAccounts ListGrants ListBudgets
purser.v1.AccountService     admin               CreateAccount UpdateAccount SetSubscription CreateGrant VoidGrant PutBudget
purser.v1.AccountService     admin               DeleteBudget SuspendAccount ResumeAccount
purser.v1.KeyService         admin               CreateKey ListKeys RevokeKey
purser.v1.UsageService       viewer admin        ListUsageEvents GetRollups
purser.v1.EventService       viewer admin        WatchEvents
grpc.health.v1.Health        everybody           Check List Watch
grpc.reflection.v1.ServerReflection        gate viewer admin   ServerReflectionInfo
grpc.reflection.v1alpha.ServerReflection   gate viewer admin   ServerReflectionInfo
`

// allowedRoles reads the table: full method name -> roles.
func allowedRoles() map[string][]string {
	table := map[string][]string{}
	for line := range strings.Lines(allowed) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var roles []string
		for _, word := range words[1:] {
			switch word {
			case "everybody":
				roles = append(roles, asNobody, asGate, asViewer, asAdmin)
			case asGate, asViewer, asAdmin:
				roles = append(roles, word)
			default:
				table["/"+words[0]+"/"+word] = roles
			}
		}
	}
	return table
}

// TestRoles calls every method that is served, as everybody: those whose role is too weak are
// told so, and the others get past the door.
func TestRoles(t *testing.T) {
	w := newWorld(t, onSQLite())
	table := allowedRoles()
	for _, m := range served(t, w) {
		roles, ok := table[m.name]
		if !ok {
			t.Errorf("%s is served, and the table does not say for whom", m.name)
		}
		delete(table, m.name)
		for _, who := range []string{asNobody, asGate, asViewer, asAdmin} {
			err := knock(w, who, m)
			info, _, _ := details(err)
			want, reason := codes.PermissionDenied, "CALLER_NOT_ALLOWED"
			if who == asNobody {
				want, reason = codes.Unauthenticated, "CREDENTIALS_MISSING"
			}
			refused := status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated
			switch {
			case slices.Contains(roles, who) == refused:
				t.Errorf("%s by %q: refused %v; want %v: %v", m.name, who, refused, !refused, err)
			case refused && (status.Code(err) != want || info.GetReason() != reason || info.GetMetadata()["not_applied"] != "true"):
				t.Errorf("%s by %q: %v %v; want %v %s, definite", m.name, who, err, info, want, reason)
			case refused && who != asNobody && (info.GetMetadata()["role"] != who || !strings.Contains(err.Error(), m.name)):
				t.Errorf("%s by %q: %v %v; it does not say which role may not call what", m.name, who, err, info)
			}
		}
	}
	for name := range table {
		t.Errorf("%s is in the table and not served", name)
	}
	w.audited()
}

// servedMethod is a method as reflection tells of it.
type servedMethod struct {
	name    string
	streams bool
}

// served asks the server itself what it serves.
func served(t *testing.T, w *world) (methods []servedMethod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.as(asViewer), patience)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(w.conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range resp.GetListServicesResponse().GetService() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatalf("%s: %v", s.GetName(), err)
		}
		list := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range list.Len() {
			m := list.Get(i)
			methods = append(methods, servedMethod{"/" + s.GetName() + "/" + string(m.Name()), m.IsStreamingClient() || m.IsStreamingServer()})
		}
	}
	if len(methods) < 30 {
		t.Fatalf("only %d methods are served: %v", len(methods), methods)
	}
	return methods
}

// knock calls a method with an empty request: past the door it is mostly invalid.
func knock(w *world, who string, m servedMethod) error {
	ctx, cancel := context.WithTimeout(w.as(who), patience)
	defer cancel()
	if !m.streams {
		return w.conn.Invoke(ctx, m.name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, m.name)
	if err != nil {
		return err
	}
	// A refusal may come before the request is sent; the answer says which it is.
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if md, err := stream.Header(); err == nil && md != nil {
		return nil // past the door: a stream that only the server ends may have nothing to say yet
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
