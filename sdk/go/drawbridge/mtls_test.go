package drawbridge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"drawbridge.dev/sdk/go/drawbridgetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// authority signs certificates with SPIFFE ids.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true,
		NotAfter: time.Now().
			Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate = a.sign(template, template, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(
	template, parent *x509.Certificate,
	key *ecdsa.PrivateKey,
) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate
}

// certificate is the certificate of a service.
func (a *authority) service(id string) (*x509.Certificate, *ecdsa.PrivateKey) {
	uri, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	key := newKey(a.t)
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.certificate, key), key
}

// write writes the files of a service into a folder.
func (a *authority) write(folder, id string) drawbridge.MTLSConfig {
	certificate, key := a.service(id)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	files := drawbridge.MTLSConfig{
		CertificateFile: filepath.Join(folder, "certificate.pem"),
		KeyFile:         filepath.Join(folder, "key.pem"),
		TrustBundleFile: filepath.Join(folder, "bundle.pem"),
	}
	for name, block := range map[string]pem.Block{
		files.CertificateFile: {Type: "CERTIFICATE", Bytes: certificate.Raw},
		files.KeyFile:         {Type: "PRIVATE KEY", Bytes: private},
		files.TrustBundleFile: {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(&block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return files
}

// tlsOf is the TLS config of a service.
func (a *authority) tlsOf(id string) *tls.Config {
	certificate, key := a.service(id)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}},
		// The test's server is whatever it has started.
		InsecureSkipVerify: true,
	}
}

// call calls an RPC as a peer.
func call(t *testing.T, address string, peer *tls.Config, token string) (serial string, err error) {
	t.Helper()
	peer = peer.Clone()
	peer.VerifyConnection = func(state tls.ConnectionState) error {
		serial = state.PeerCertificates[0].SerialNumber.String()
		return nil
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(peer)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = testv1.NewTestServiceClient(conn).UnaryCall(with(t, token), &testv1.SimpleRequest{})
	return serial, err
}

func TestPeersAreAcceptedByTheirSPIFFEIDsAndFilesAreReloaded(t *testing.T) {
	trusted, untrusted := newAuthority(t), newAuthority(t)
	auth := drawbridgetest.NewAuth(t)
	keys := httptest.NewUnstartedServer(auth)
	keys.TLS = trusted.tlsOf("spiffe://acme.example/auth")
	keys.TLS.ClientAuth = tls.RequireAnyClientCert
	keys.EnableHTTP2 = true
	keys.StartTLS()
	t.Cleanup(keys.Close)

	described, _ := service(t)
	config := drawbridge.DefaultConfig()
	config.Listen, config.AdminListen, config.AuthJWKSURL = "127.0.0.1:0", "127.0.0.1:0", keys.URL
	folder := t.TempDir()
	config.MTLS = trusted.write(folder, "spiffe://acme.example/greeter")
	config.MTLS.Allow = []string{"spiffe://acme.example/edge"}
	running, err := drawbridge.Start(described, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	address := running.Address.String()
	token := auth.Sign(t, drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall"))
	edge := trusted.tlsOf("spiffe://acme.example/edge")

	first, err := call(t, address, edge, token)
	if err != nil {
		t.Fatal(err)
	}
	for why, peer := range map[string]*tls.Config{
		"not allowed":          trusted.tlsOf("spiffe://acme.example/code"),
		"another trust domain": trusted.tlsOf("spiffe://evil.example/edge"),
		"of another authority": untrusted.tlsOf("spiffe://acme.example/edge"),
		"without certificate":  {InsecureSkipVerify: true},
	} {
		if _, err := call(t, address, peer, token); status.Code(err) != codes.Unavailable {
			t.Errorf("a peer that is %s: %v", why, err)
		}
	}

	trusted.write(folder, "spiffe://acme.example/greeter")
	for {
		serial, err := call(t, address, edge, token)
		if err != nil {
			t.Fatal(err)
		}
		if serial != first {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	// The certificate of another service changes nothing but readiness's notes.
	trusted.write(folder, "spiffe://acme.example/other")
	for {
		response, err := http.Get("http://" + running.Admin.String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		size := response.ContentLength
		_ = response.Body.Close()
		if size > int64(len("{\"ready\":true}\n")) && response.StatusCode == http.StatusOK {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := call(t, address, edge, token); err != nil {
		t.Fatal(err)
	}
}

func TestAuthsKeysAreTakenFromAuthAlone(t *testing.T) {
	trusted := newAuthority(t)
	auth := drawbridgetest.NewAuth(t)
	impostor := httptest.NewUnstartedServer(auth)
	impostor.TLS = trusted.tlsOf("spiffe://acme.example/code")
	impostor.TLS.ClientAuth = tls.RequireAnyClientCert
	impostor.EnableHTTP2 = true
	impostor.StartTLS()
	t.Cleanup(impostor.Close)

	described, _ := service(t)
	config := drawbridge.DefaultConfig()
	config.Listen, config.AdminListen, config.AuthJWKSURL = "127.0.0.1:0", "127.0.0.1:0", impostor.URL
	config.MTLS = trusted.write(t.TempDir(), "spiffe://acme.example/greeter")
	config.MTLS.Allow = []string{"spiffe://acme.example/edge"}
	running, err := drawbridge.Start(described, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	token := auth.Sign(t, drawbridgetest.Claims("greeter", "alice", testService+"/UnaryCall"))
	edge := trusted.tlsOf("spiffe://acme.example/edge")
	_, err = call(t, running.Address.String(), edge, token)
	if status.Code(err) != codes.Unavailable || auth.Requests() != 0 {
		t.Fatal(err, auth.Requests())
	}
}
