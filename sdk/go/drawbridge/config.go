package drawbridge

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config is the configuration of a tool service. Each field is an option of its command line, and
// an environment variable DRAWBRIDGE_<SERVICE>_<OPTION>, such as DRAWBRIDGE_PAYMENTS_LISTEN.
type Config struct {
	// Listen is where gRPC is served: an address and a port, or unix:/absolute/path (--listen).
	Listen string
	// AdminListen is where health, readiness and metrics are served (--admin-listen).
	AdminListen string
	// AdminAllowedHosts are names of the Host header that the admin port accepts, besides localhost
	// and every IP address (--admin-allowed-host, DRAWBRIDGE_ADMIN_ALLOWED_HOST).
	AdminAllowedHosts []string
	// AuthJWKSURL is the JWKS URL of auth's transaction tokens (--auth-jwks-url).
	AuthJWKSURL string
	// AuthIssuer is the iss of transaction tokens (--auth-issuer).
	AuthIssuer string
	// AuthSPIFFEID is the SPIFFE id of auth (--auth-spiffe-id). Empty: the service's own with
	// "auth" as its last segment.
	AuthSPIFFEID string
	// MTLS is the certificate of the service, and the peers that it accepts.
	MTLS MTLSConfig
	// RequestBytesMax is the largest request, in bytes (--request-bytes-max). A larger one is
	// refused with RESOURCE_EXHAUSTED, gRPC's own code.
	RequestBytesMax int
	// DrainDelayMS is how long the service still accepts calls after it has become not ready, in
	// milliseconds (--drain-delay-ms).
	DrainDelayMS int
	// DrainTimeoutMS is how long calls in flight may take to end after that, in milliseconds
	// (--drain-timeout-ms).
	DrainTimeoutMS int
	// LogFormat is auto (JSON unless standard error is a terminal), json or pretty (--log-format,
	// DRAWBRIDGE_LOG_FORMAT).
	LogFormat string
	// LogLevel is debug, info, warn or error (--log, DRAWBRIDGE_LOG).
	LogLevel string
}

// MTLSConfig is the certificate of a service, and the peers that it accepts.
type MTLSConfig struct {
	// CertificateFile is a PEM file of the certificate, whose only URI is the service's SPIFFE id,
	// followed by the intermediates without the root (--mtls-certificate-file). Empty: plaintext,
	// on loopback.
	CertificateFile string
	// KeyFile is a PEM file of the certificate's key (--mtls-key-file).
	KeyFile string
	// TrustBundleFile is a PEM file of the trusted authorities (--mtls-trust-bundle-file).
	TrustBundleFile string
	// Allow are the SPIFFE ids of the services that may call this one (--mtls-allow).
	Allow []string
	// AllowPlaintext serves and calls in plaintext beyond loopback too (--allow-plaintext). Only
	// where something else protects it, such as the sidecars of a service mesh.
	AllowPlaintext bool
}

// DefaultConfig is the configuration without options: gRPC on 127.0.0.1:7450, the admin port on
// 127.0.0.1:7451, and the auth of a mesh on this machine.
func DefaultConfig() Config {
	return Config{
		Listen:          "127.0.0.1:7450",
		AdminListen:     "127.0.0.1:7451",
		AuthJWKSURL:     "http://127.0.0.1:7111/.well-known/jwks.json",
		AuthIssuer:      "drawbridge-auth",
		RequestBytesMax: 4 << 20,
		DrainDelayMS:    7_000,
		DrainTimeoutMS:  15_000,
		LogFormat:       "auto",
		LogLevel:        "info",
	}
}

// flags adds the options to a flag set; their defaults are the current values.
func (c *Config) flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", c.Listen,
		"where to serve gRPC, an `address` and a port, or unix:/absolute/path")
	flags.StringVar(&c.AdminListen, "admin-listen", c.AdminListen,
		"where to serve health, readiness and metrics, an `address` and a port")
	flags.Var((*list)(&c.AdminAllowedHosts), "admin-allowed-host",
		"a `host` name that the admin port accepts; repeat, or separate by commas")
	flags.StringVar(&c.AuthJWKSURL, "auth-jwks-url", c.AuthJWKSURL,
		"the JWKS `URL` of auth's transaction tokens")
	flags.StringVar(&c.AuthIssuer, "auth-issuer", c.AuthIssuer, "the `iss` of transaction tokens")
	flags.StringVar(&c.AuthSPIFFEID, "auth-spiffe-id", c.AuthSPIFFEID,
		"the SPIFFE `id` of auth; default: the service's own with auth as its last segment")
	flags.StringVar(&c.MTLS.CertificateFile, "mtls-certificate-file", c.MTLS.CertificateFile,
		"a PEM `file` of the certificate; absent: gRPC in plaintext, on loopback")
	flags.StringVar(&c.MTLS.KeyFile, "mtls-key-file", c.MTLS.KeyFile,
		"a PEM `file` of the certificate's key")
	flags.StringVar(&c.MTLS.TrustBundleFile, "mtls-trust-bundle-file", c.MTLS.TrustBundleFile,
		"a PEM `file` of the trusted authorities")
	flags.Var((*list)(&c.MTLS.Allow), "mtls-allow",
		"the SPIFFE `id` of a service that may call; repeat, or separate by commas")
	flags.BoolVar(&c.MTLS.AllowPlaintext, "allow-plaintext", c.MTLS.AllowPlaintext,
		"serve and call in plaintext beyond loopback too")
	flags.IntVar(&c.RequestBytesMax, "request-bytes-max", c.RequestBytesMax,
		"the largest request, in `bytes`")
	flags.IntVar(&c.DrainDelayMS, "drain-delay-ms", c.DrainDelayMS,
		"how long to accept calls after becoming not ready, in `ms`: for load balancers that poll")
	flags.IntVar(&c.DrainTimeoutMS, "drain-timeout-ms", c.DrainTimeoutMS,
		"how long calls in flight may take to end after that, in `ms`")
	flags.StringVar(
		&c.LogFormat,
		"log-format",
		c.LogFormat,
		"the `format` of log lines: auto, json or pretty",
	)
	flags.StringVar(&c.LogLevel, "log", c.LogLevel, "the log `level`: debug, info, warn or error")
}

// sharedVariables are the environment variables that all services share.
var sharedVariables = map[string]string{
	"admin-allowed-host": "DRAWBRIDGE_ADMIN_ALLOWED_HOST",
	"log-format":         "DRAWBRIDGE_LOG_FORMAT",
	"log":                "DRAWBRIDGE_LOG",
}

// variableOf is the environment variable of an option.
func variableOf(service, option string) string {
	if shared, ok := sharedVariables[option]; ok {
		return shared
	}
	return "DRAWBRIDGE_" + upperSnake(service) + "_" + upperSnake(option)
}

func upperSnake(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// parse parses a command line, and takes what is not on it from the environment.
func parse(flags *flag.FlagSet, service string, arguments []string) error {
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(option *flag.Flag) { given[option.Name] = true })
	var failed error
	flags.VisitAll(func(option *flag.Flag) {
		name := variableOf(service, option.Name)
		value, isSet := os.LookupEnv(name)
		if !isSet || given[option.Name] || failed != nil {
			return
		}
		if err := flags.Set(option.Name, value); err != nil {
			failed = fmt.Errorf("invalid value %q of %s: %w", value, name, err)
		}
	})
	return failed
}

// usage prints the help.
func usage(out io.Writer, flags *flag.FlagSet, service *Service) {
	_, _ = fmt.Fprintf(out, "%s\n\nUsage: %s [options]\n\nOptions:\n", service.About, flags.Name())
	flags.VisitAll(func(option *flag.Flag) {
		value, text := flag.UnquoteUsage(option)
		_, _ = fmt.Fprintf(out, "  --%s %s\n      %s", option.Name, value, text)
		if option.DefValue != "" && option.DefValue != "false" {
			_, _ = fmt.Fprintf(out, " [default: %s]", option.DefValue)
		}
		_, _ = fmt.Fprintf(out, " [env: %s]\n", variableOf(service.Name, option.Name))
	})
}

// list is an option that may be repeated, and whose values may be separated by commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	for value := range strings.SplitSeq(text, ",") {
		if value = strings.TrimSpace(value); value != "" {
			*l = append(*l, value)
		}
	}
	return nil
}

// check finds what is wrong with a configuration, besides what its files contain.
func (c *Config) check() error {
	files := []string{c.MTLS.CertificateFile, c.MTLS.KeyFile, c.MTLS.TrustBundleFile}
	set := 0
	for _, file := range files {
		if file != "" {
			set++
		}
	}
	switch {
	case set != 0 && set != len(files):
		return errors.New(
			"mTLS requires --mtls-certificate-file, --mtls-key-file and --mtls-trust-bundle-file",
		)
	case set != 0 && len(c.MTLS.Allow) == 0:
		return errors.New("mTLS requires at least one allowed peer (--mtls-allow)")
	case set == 0 && len(c.MTLS.Allow) > 0:
		return errors.New("--mtls-allow requires --mtls-certificate-file")
	case c.RequestBytesMax <= 0:
		return errors.New("--request-bytes-max must be greater than zero")
	case c.AuthIssuer == "":
		return errors.New("--auth-issuer must not be empty")
	}
	for _, id := range append([]string{c.AuthSPIFFEID}, c.MTLS.Allow...) {
		if id == "" {
			continue
		}
		if _, err := spiffeid.FromString(id); err != nil {
			return fmt.Errorf(
				"invalid SPIFFE id %q (expected e.g. spiffe://acme.example/edge): %w",
				id,
				err,
			)
		}
	}
	return c.checkPlaintext(set != 0)
}

// checkPlaintext refuses plaintext that leaves this machine.
func (c *Config) checkPlaintext(hasCertificate bool) error {
	parsed, err := url.Parse(c.AuthJWKSURL)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return fmt.Errorf(
			"invalid --auth-jwks-url %q: write e.g. http://127.0.0.1:7111/.well-known/jwks.json",
			c.AuthJWKSURL,
		)
	}
	if isSocket(c.Listen) {
		if err := c.checkSocket(hasCertificate); err != nil {
			return err
		}
	}
	if c.MTLS.AllowPlaintext {
		return nil
	}
	if parsed.Scheme == "http" && !isLoopback(parsed.Hostname()) {
		return fmt.Errorf("--auth-jwks-url %s is plaintext beyond loopback: use https, "+
			"or allow it with --allow-plaintext", c.AuthJWKSURL)
	}
	if isSocket(c.Listen) {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf(
			"invalid --listen %q: write an address and a port, e.g. 127.0.0.1:7450, "+
				"or unix:/absolute/path",
			c.Listen,
		)
	}
	if !hasCertificate && !isLoopback(host) {
		return fmt.Errorf(
			"cannot serve %s: plaintext beyond loopback: set --mtls-certificate-file, "+
				"or allow it with --allow-plaintext",
			c.Listen,
		)
	}
	return nil
}

// checkSocket refuses a Unix-domain socket beside a certificate: its peers have no SPIFFE ids.
func (c *Config) checkSocket(hasCertificate bool) error {
	if hasCertificate {
		return fmt.Errorf("cannot serve %s with --mtls-certificate-file: --mtls-allow cannot be "+
			"enforced on a Unix-domain socket; set an address and a port", c.Listen)
	}
	_, err := socketPath(c.Listen)
	return err
}

// isLoopback reports whether a host is of this machine alone. An empty host is every address.
func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}
