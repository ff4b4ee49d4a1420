package drawbridge

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// published is auth's key set in a test, on a clock that the test sets.
type published struct {
	set      jose.JSONWebKeySet
	isDown   bool
	requests atomic.Int64
	clock    time.Time
	keys     *keySet
}

func publish(t *testing.T, ids ...string) *published {
	t.Helper()
	auth := &published{clock: time.Now()}
	server := httptest.NewServer(
		http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			auth.requests.Add(1)
			if auth.isDown {
				http.Error(response, "down", http.StatusServiceUnavailable)
				return
			}
			if err := json.NewEncoder(response).Encode(auth.set); err != nil {
				t.Error(err)
			}
		}),
	)
	t.Cleanup(server.Close)
	for _, id := range ids {
		auth.add(t, id)
	}
	now := func() time.Time { return auth.clock }
	auth.keys = &keySet{url: server.URL, client: server.Client(), now: now}
	return auth
}

func (p *published) add(t *testing.T, id string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.set.Keys = append(p.set.Keys, jose.JSONWebKey{Key: public, KeyID: id, Algorithm: "EdDSA"})
}

func (p *published) check(t *testing.T, id string, expected error, requests int64) {
	t.Helper()
	key, err := p.keys.key(t.Context(), id)
	if !errors.Is(err, expected) || (key == nil) != (expected != nil) {
		t.Fatalf("%s: %v, %v", id, key, err)
	}
	if made := p.requests.Load(); made != requests {
		t.Fatalf("%s: %d requests", id, made)
	}
}

func TestKeysAreCachedAndAnUnknownIDFetchesThemOnce(t *testing.T) {
	auth := publish(t, "a")
	auth.check(t, "a", nil, 1)
	auth.check(t, "a", nil, 1)
	auth.add(t, "b")
	auth.check(t, "b", errUnknownKey, 1)
	auth.clock = auth.clock.Add(refetchInterval)
	auth.check(t, "b", nil, 2)
	auth.check(t, "c", errUnknownKey, 2)
	auth.clock = auth.clock.Add(refetchInterval)
	auth.check(t, "c", errUnknownKey, 3)
}

func TestStaleKeysAreUsedWhileAuthDoesNotAnswerButNotForever(t *testing.T) {
	auth := publish(t, "a")
	auth.check(t, "a", nil, 1)
	auth.isDown = true
	auth.clock = auth.clock.Add(keysFresh + keysStaleMax - time.Second)
	if key, err := auth.keys.key(t.Context(), "a"); key == nil || err != nil {
		t.Fatal(key, err)
	}
	// The fetch in the background has ended when this lock is free.
	auth.keys.fetching.Lock()
	auth.keys.fetching.Unlock() //nolint:staticcheck // Waits.
	auth.clock = auth.clock.Add(2 * time.Second)
	if key, err := auth.keys.key(t.Context(), "a"); key != nil || !errors.Is(err, errNoKeys) {
		t.Fatal(key, err)
	}
	auth.isDown = false
	auth.clock = auth.clock.Add(retryInterval)
	if key, err := auth.keys.key(t.Context(), "a"); key == nil || err != nil {
		t.Fatal(key, err)
	}
}

func TestAWithdrawnKeyIsNotUsed(t *testing.T) {
	auth := publish(t, "a", "b")
	auth.check(t, "a", nil, 1)
	auth.set.Keys = auth.set.Keys[1:]
	auth.clock = auth.clock.Add(keysFresh + keysStaleMax)
	auth.check(t, "a", errUnknownKey, 2)
	auth.check(t, "b", nil, 2)
}

func TestKeysThatVerifyNoTransactionTokenAreSkipped(t *testing.T) {
	keys, err := parseKeys([]byte(`{"keys": [
		{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "good"},
		{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
		{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "enc", "use": "enc"},
		{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
		 "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "kid": "ec"},
		{"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}, "nonsense"]}`))
	if err != nil || len(keys) != 1 || keys["good"] == nil {
		t.Fatal(keys, err)
	}
}

func TestFreshnessFollowsCacheControlWithinBounds(t *testing.T) {
	for directives, expected := range map[string]time.Duration{
		"": keysFresh, "public, Max-Age=120": 2 * time.Minute, "max-age=1": keysFreshMin,
		"max-age=86400": keysFreshMax, "max-age=600, no-store": keysFreshMin, "max-age=-1": keysFresh,
	} {
		if fresh := freshness(http.Header{"Cache-Control": {directives}}); fresh != expected {
			t.Errorf("%q: %v", directives, fresh)
		}
	}
}
