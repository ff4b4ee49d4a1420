package drawbridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// reloadInterval is how often the files of the certificate are read.
const reloadInterval = time.Second

// identity is the service's certificate and the authorities that it trusts, as in its files. It is
// a source of both for go-spiffe.
type identity struct {
	files   MTLSConfig
	current atomic.Pointer[material]
}

type material struct {
	svid     *x509svid.SVID
	bundle   *x509bundle.Bundle
	contents [3]string
}

// openIdentity loads the files. It is nil without a certificate.
func openIdentity(files MTLSConfig) (*identity, error) {
	if files.CertificateFile == "" {
		return nil, nil
	}
	opened := &identity{files: files}
	loaded, err := opened.load()
	if err != nil {
		return nil, fmt.Errorf("cannot set up mTLS: %w", err)
	}
	opened.current.Store(loaded)
	return opened, nil
}

func (i *identity) load() (*material, error) {
	var loaded material
	names := []string{i.files.CertificateFile, i.files.KeyFile, i.files.TrustBundleFile}
	for index, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		loaded.contents[index] = string(content)
	}
	if current := i.current.Load(); current != nil && current.contents == loaded.contents {
		return current, nil
	}
	svid, err := x509svid.Parse([]byte(loaded.contents[0]), []byte(loaded.contents[1]))
	if err != nil {
		return nil, fmt.Errorf("invalid certificate %s or key %s: %w", names[0], names[1], err)
	}
	bundle, err := x509bundle.Parse(svid.ID.TrustDomain(), []byte(loaded.contents[2]))
	if err != nil {
		return nil, fmt.Errorf("invalid trust bundle %s: %w", names[2], err)
	}
	if bundle.Empty() {
		return nil, fmt.Errorf("the trust bundle %s contains no authority", names[2])
	}
	if current := i.current.Load(); current != nil && current.svid.ID != svid.ID {
		return nil, fmt.Errorf("the certificate belongs to %s, but this service is %s",
			svid.ID, current.svid.ID)
	}
	loaded.svid, loaded.bundle = svid, bundle
	return &loaded, nil
}

// follow reads the files until the context ends: new connections use the current ones, open ones
// are unaffected. Invalid files change nothing.
func (i *identity) follow(ctx context.Context, note func(error)) {
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		loaded, err := i.load()
		note(err)
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			slog.Error(
				"the files of mTLS cannot be reloaded; the earlier ones stay in use",
				"error",
				failed,
			)
		case err == nil && i.current.Swap(loaded) != loaded:
			slog.Info("the files of mTLS were reloaded")
			failed = ""
		case err == nil:
			failed = ""
		}
	}
}

// GetX509SVID implements x509svid.Source.
func (i *identity) GetX509SVID() (*x509svid.SVID, error) { return i.current.Load().svid, nil }

// GetX509BundleForTrustDomain implements x509bundle.Source: the authorities of the file are trusted
// for the peers that are allowed, whatever their trust domain.
func (i *identity) GetX509BundleForTrustDomain(
	domain spiffeid.TrustDomain,
) (*x509bundle.Bundle, error) {
	return x509bundle.FromX509Authorities(domain, i.current.Load().bundle.X509Authorities()), nil
}

// server is the TLS config for the peers that are allowed.
func (i *identity) server() (*tls.Config, error) {
	var allowed []spiffeid.ID
	for _, text := range i.files.Allow {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, err
		}
		allowed = append(allowed, id)
	}
	config := tlsconfig.MTLSServerConfig(i, i, tlsconfig.AuthorizeOneOf(allowed...))
	restrict(config)
	return config, nil
}

// client is the TLS config for one peer.
func (i *identity) client(peer spiffeid.ID) *tls.Config {
	config := tlsconfig.MTLSClientConfig(i, i, tlsconfig.AuthorizeID(peer))
	restrict(config)
	return config
}

func restrict(config *tls.Config) {
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{"h2"}
	// A resumed session presents no certificate.
	config.SessionTicketsDisabled = true
}

// sibling is the id of another service beside this one.
func (i *identity) sibling(service string) (spiffeid.ID, error) {
	own := i.current.Load().svid.ID
	return spiffeid.FromPath(own.TrustDomain(), path.Join(path.Dir(own.Path()), service))
}

// authClient is the HTTP client for auth's keys: by mTLS if the service has a certificate, because
// a peer that could serve other keys could impersonate any caller.
func authClient(config *Config, own *identity) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	if own != nil {
		peer, err := own.sibling("auth")
		if config.AuthSPIFFEID != "" {
			peer, err = spiffeid.FromString(config.AuthSPIFFEID)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot fetch auth's keys: %w", err)
		}
		transport.TLSClientConfig = own.client(peer)
		transport.ForceAttemptHTTP2 = true
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("auth's keys must not be redirected")
		},
	}, nil
}
