package drawbridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// keysFresh is how long keys are used if auth does not say, within the bounds below.
	keysFresh    = 5 * time.Minute
	keysFreshMin = 30 * time.Second
	keysFreshMax = time.Hour
	// keysStaleMax is how long stale keys are used while auth does not answer.
	keysStaleMax = time.Hour
	// refetchInterval is the shortest time between two fetches, so that unknown key ids cannot
	// cause more, and retryInterval that after a failure.
	refetchInterval = 5 * time.Second
	retryInterval   = time.Second
	// firstFetchInterval is the first delay between attempts to fetch keys ahead.
	firstFetchInterval = 50 * time.Millisecond
	fetchTimeout       = 5 * time.Second
	keysBytesMax       = 256 << 10
	keysMax            = 64
)

var (
	errUnknownKey = fmt.Errorf("%w: auth has no key with this id", errInvalid)
	errNoKeys     = errors.New("the keys of transaction tokens are unavailable")
)

// keySet is auth's key set, fetched when the first key is needed, when it is stale, and once for a
// key id that it does not have.
type keySet struct {
	url    string
	client *http.Client
	now    func() time.Time

	// fetching is held during a fetch, so that fetches are single flight.
	fetching sync.Mutex
	// mutex guards the fields below.
	mutex      sync.Mutex
	keys       map[string]any
	freshUntil time.Time
	attempted  time.Time
	failure    error
}

// key is the public key with this id.
func (s *keySet) key(ctx context.Context, id string) (any, error) {
	if key, fresh := s.cached(id); key != nil {
		if !fresh && s.fetching.TryLock() {
			go func() {
				defer s.fetching.Unlock()
				s.refresh(ctx)
			}()
		}
		return key, nil
	}
	s.fetching.Lock()
	defer s.fetching.Unlock()
	s.refresh(ctx)
	if key, _ := s.cached(id); key != nil {
		return key, nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.failure != nil {
		return nil, errors.Join(errNoKeys, s.failure)
	}
	return nil, errUnknownKey
}

// isUsable reports whether there are keys, and they are not too old to be used.
func (s *keySet) isUsable() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.keys != nil && s.now().Before(s.freshUntil.Add(keysStaleMax))
}

// fetchAhead fetches the keys before the first one is needed, until that succeeds. A key id that
// auth does not have then causes a fetch as soon as if there had been none.
func (s *keySet) fetchAhead(ctx context.Context) {
	delay := firstFetchInterval
	for ctx.Err() == nil {
		s.fetching.Lock()
		s.refresh(ctx)
		s.fetching.Unlock()
		if s.isUsable() {
			s.mutex.Lock()
			s.attempted = time.Time{}
			s.mutex.Unlock()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, retryInterval)
	}
}

// cached is a key that may be used, and whether it is fresh.
func (s *keySet) cached(id string) (key any, fresh bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.now()
	if !now.Before(s.freshUntil.Add(keysStaleMax)) {
		return nil, false
	}
	return s.keys[id], now.Before(s.freshUntil)
}

// refresh fetches the keys, unless that was just done. The caller holds `fetching`.
func (s *keySet) refresh(ctx context.Context) {
	if !s.isDue() {
		return
	}
	// A caller that goes away must not fail the fetch of the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, fresh, err := s.fetch(ctx)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	before := s.failure
	if s.failure = err; err != nil {
		if before == nil || before.Error() != err.Error() {
			slog.WarnContext(ctx, "auth's keys cannot be fetched; the cached ones stay in use",
				"error", err.Error(), "keys", len(s.keys))
		}
		return
	}
	s.keys, s.freshUntil = keys, s.now().Add(fresh)
}

// isDue reports whether the keys may be fetched now, and records the attempt.
func (s *keySet) isDue() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pause := refetchInterval
	if s.failure != nil {
		pause = retryInterval
	}
	if now := s.now(); s.attempted.IsZero() || now.Sub(s.attempted) >= pause {
		s.attempted = now
		return true
	}
	return false
}

func (s *keySet) fetch(ctx context.Context) (map[string]any, time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s answered %s", s.url, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, keysBytesMax))
	if err != nil {
		return nil, 0, err
	}
	keys, err := parseKeys(body)
	return keys, freshness(response.Header), err
}

// parseKeys reads a key set (RFC 7517 section 5), and skips keys that verify no transaction token.
func parseKeys(body []byte) (map[string]any, error) {
	var published struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &published); err != nil {
		return nil, fmt.Errorf("the key set is invalid: %w", err)
	}
	keys := map[string]any{}
	for _, text := range published.Keys[:min(len(published.Keys), keysMax)] {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) == nil && usableKey(&key) {
			keys[key.KeyID] = key.Key
		}
	}
	return keys, nil
}

// freshness is how long a response is fresh (RFC 9111 section 4.2), within bounds.
func freshness(headers http.Header) time.Duration {
	fresh := keysFresh
	for directive := range strings.SplitSeq(headers.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return keysFreshMin
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				fresh = time.Duration(seconds) * time.Second
			}
		}
	}
	return min(max(fresh, keysFreshMin), keysFreshMax)
}
