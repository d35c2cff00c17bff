package endtoend

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/purser-io/purser/clients/go"
)

// TestPlainTextStaysOnThisMachine: keys are not sent in the open unless somebody says so.
func TestPlainTextStaysOnThisMachine(t *testing.T) {
	t.Parallel()
	badStart(t, sqliteStore(t), []string{"reached from outside", "--tls-cert", "--insecure"}, "--listen=0.0.0.0:0")
	n := newNode(t, sqliteStore(t), "--listen=0.0.0.0:0", "--insecure").serve()
	n.terminate()
}

// TestTLS serves every address with a self-made certificate: who trusts it is served, who
// does not, or speaks plain text, is not.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := selfSigned(t)
	n := newNode(t, sqliteStore(t), "--tls-cert", cert, "--tls-key", key)
	n.args = append(n.args, "--listen", strings.Replace(n.address, "127.0.0.1", "0.0.0.0", 1))
	n.serve()
	info, err := os.Stat(n.adminKey)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the admin key's file has mode %v, want 0600", info.Mode())
	}
	must(t, "keys", "list", "--server", n.address, "--key-file", n.adminKey, "--tls-ca", cert)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(readFile(t, cert))) {
		t.Fatal("no certificate in its file")
	}
	for _, c := range []struct {
		config *tls.Config
		want   string
	}{{&tls.Config{RootCAs: pool}, "ACCOUNT_UNKNOWN"}, {&tls.Config{}, "unknown authority"}, {nil, "Unavailable"}} {
		client := dial(t, readFile(t, n.adminKey), func(p *purser.Config) { p.TLS, p.NoWait, p.Attempts = c.config, true, 1 }, n.address)
		if _, err := client.Gate(t.Context(), hundred("nobody")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("reserve with TLS settings %+v: %v, want %q", c.config, err, c.want)
		}
	}
	n.terminate()
	wrong := filepath.Join(t.TempDir(), "wrong.pem")
	if err := os.WriteFile(wrong, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	badStart(t, sqliteStore(t), []string{"certificate"}, "--tls-cert", cert, "--tls-key", wrong)
}

// selfSigned writes a certificate for loopback and its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "purser test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
