package examples_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/internal/testnode"
)

// program builds an example and runs it against a node; it returns where it serves.
func program(t *testing.T, name string) (*testnode.Node, string) {
	t.Helper()
	node, err := testnode.Start(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", binary, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "PURSER="+node.Address, "PURSER_KEY="+node.Key, "LISTEN="+address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		report, err := node.Audit(context.Background())
		if err != nil || !report.OK() {
			t.Errorf("audit: %+v, %v", report, err)
		}
	})
	return node, address
}

// spent checks what an account has paid.
func spent(t *testing.T, node *testnode.Node, account string, want int64) {
	t.Helper()
	if got, err := node.Spent(t.Context(), account); err != nil || got != want {
		t.Errorf("%s has paid %d micros, %v; want %d", account, got, err, want)
	}
}

func TestGateHTTP(t *testing.T) {
	node, address := program(t, "gatehttp")
	ask := func(account string) (int, string) {
		request, err := http.NewRequest(http.MethodGet, "http://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Account", account)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				if n == 1500 {
					t.Fatal(err)
				}
				<-tick.C // it is not up yet
				continue
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return response.StatusCode, string(body)
		}
	}
	status, body := ask(testnode.Rich)
	words := int64(strings.Count(body, "word"))
	if status != http.StatusOK || words < 50 || words > 200 {
		t.Errorf("a rich account is answered with %d and %d words", status, words)
	}
	spent(t, node, testnode.Rich, words*3000)
	if status, body := ask(testnode.Suspended); status != http.StatusForbidden || !strings.Contains(body, "ACCOUNT_SUSPENDED") {
		t.Errorf("a suspended account is answered with %d %s", status, body)
	}
}

func TestGateGRPC(t *testing.T) {
	node, address := program(t, "gategrpc")
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(account string) (messages int64, err error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "account", account)
		stream, err := testpb.NewTestServiceClient(conn).StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return 0, err
		}
		for {
			if _, err := stream.Recv(); err == io.EOF {
				return messages, nil
			} else if err != nil {
				return messages, err
			}
			messages++
		}
	}
	nobody, err := testpb.NewTestServiceClient(conn).StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{}, grpc.WaitForReady(true))
	if err == nil {
		_, err = nobody.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call that does not say who calls gets %v", err)
	}
	messages, err := ask(testnode.Rich)
	if err != nil || messages < 50 || messages > 200 {
		t.Errorf("a rich account gets %d messages, then %v", messages, err)
	}
	spent(t, node, testnode.Rich, messages*3000)
	if _, err := ask(testnode.Suspended); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a suspended account gets %v", err)
	}
}
