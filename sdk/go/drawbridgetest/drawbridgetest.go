// Package drawbridgetest tests tool services without a mesh: it starts a service on free ports with
// an auth of the test, and calls it in any caller's name.
//
//	func TestPaying(t *testing.T) {
//		running := drawbridgetest.Start(t, service)
//		alice := paymentsv1.NewPaymentServiceClient(running.As("alice"))
//		…
//	}
package drawbridgetest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drawbridge.dev/sdk/go/drawbridge"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Issuer is the issuer of the callers.
const Issuer = "https://idp.example"

// Auth signs transaction tokens, and serves the keys that verify them.
type Auth struct {
	// JWKSURL is where the keys are.
	JWKSURL string

	requests atomic.Int64
	mutex    sync.Mutex
	keys     []jose.JSONWebKey
	signing  jose.JSONWebKey
	down     bool
}

// NewAuth starts an auth for the test, with one key.
func NewAuth(t testing.TB) *Auth {
	t.Helper()
	auth := &Auth{}
	auth.Rotate(t)
	server := httptest.NewServer(auth)
	t.Cleanup(server.Close)
	auth.JWKSURL = server.URL
	return auth
}

// Rotate publishes a new key and signs with it from now on.
func (a *Auth) Rotate(t testing.TB) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.signing = jose.JSONWebKey{
		Key: private, KeyID: fmt.Sprint("key-", len(a.keys)), Algorithm: string(jose.EdDSA), Use: "sig",
	}
	a.keys = append(a.keys, a.signing.Public())
}

// SetDown makes the keys unavailable, or available again.
func (a *Auth) SetDown(down bool) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.down = down
}

// Requests is how often the keys were requested.
func (a *Auth) Requests() int { return int(a.requests.Load()) }

// ServeHTTP serves the keys.
func (a *Auth) ServeHTTP(response http.ResponseWriter, _ *http.Request) {
	a.requests.Add(1)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.down {
		http.Error(response, "down", http.StatusServiceUnavailable)
		return
	}
	// The client may have gone.
	_ = json.NewEncoder(response).Encode(jose.JSONWebKeySet{Keys: a.keys})
}

// Claims are the claims of a token for one RPC of a service, package.Service/Method, in a caller's
// name. A test changes them as it needs.
func Claims(service, subject, rpc string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": "drawbridge-auth", "aud": service, "sub": subject,
		"iat": now.Unix(), "exp": now.Add(30 * time.Second).Unix(),
		"txn": "test", "scope": "mcp",
		"tctx": map[string]any{
			"iss": Issuer, "principal": subject + "@@" + url.QueryEscape(Issuer),
			"client_id": "test", "tool": "test", "rpc": rpc,
		},
	}
}

// Sign signs claims as a transaction token.
func (a *Auth) Sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	return a.SignAs(t, claims, "txntoken+jwt")
}

// SignAs signs claims as a token of another type.
func (a *Auth) SignAs(t testing.TB, claims map[string]any, tokenType jose.ContentType) string {
	t.Helper()
	a.mutex.Lock()
	defer a.mutex.Unlock()
	key := jose.SigningKey{Algorithm: jose.EdDSA, Key: a.signing}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType(tokenType))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(maps.Clone(claims)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Running is a service that runs for a test.
type Running struct {
	*drawbridge.Running
	// Auth is the auth that it trusts.
	Auth *Auth
	// Conn is a connection without tokens.
	Conn *grpc.ClientConn

	t    testing.TB
	name string
}

// Start starts a service on free ports. It stops with the test.
func Start(t testing.TB, service drawbridge.Service) *Running {
	t.Helper()
	return StartWith(t, service, func(*drawbridge.Config) {})
}

// StartWith is Start with a changed configuration.
func StartWith(
	t testing.TB, service drawbridge.Service, change func(*drawbridge.Config),
) *Running {
	t.Helper()
	config := drawbridge.DefaultConfig()
	auth := NewAuth(t)
	config.Listen, config.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	config.AuthJWKSURL = auth.JWKSURL
	change(&config)
	running, err := drawbridge.Start(service, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	plaintext := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn, err := grpc.NewClient(running.Address.String(), plaintext)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Running{Running: running, Auth: auth, Conn: conn, t: t, name: service.Name}
}

// As is a connection whose calls have a valid token of this caller.
func (r *Running) As(subject string) grpc.ClientConnInterface {
	return &callerConn{running: r, subject: subject}
}

type callerConn struct {
	running *Running
	subject string
}

func (c *callerConn) authorized(ctx context.Context, method string) context.Context {
	rpc := strings.TrimPrefix(method, "/")
	token := c.running.Auth.Sign(c.running.t, Claims(c.running.name, c.subject, rpc))
	return metadata.AppendToOutgoingContext(ctx, "txn-token", token)
}

// Invoke implements grpc.ClientConnInterface.
func (c *callerConn) Invoke(
	ctx context.Context, method string, request, response any, options ...grpc.CallOption,
) error {
	return c.running.Conn.Invoke(c.authorized(ctx, method), method, request, response, options...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *callerConn) NewStream(
	ctx context.Context, described *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.running.Conn.NewStream(c.authorized(ctx, method), described, method, options...)
}
