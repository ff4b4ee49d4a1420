package drawbridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

const (
	concurrentStreamsMax = 1024
	headerListBytesMax   = 64 << 10
	keepaliveInterval    = 20 * time.Second
	handshakeTimeout     = 10 * time.Second
	// stopTimeout is how long calls in flight may take to end in Stop.
	stopTimeout = 5 * time.Second
)

var namespace = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// Service is a tool service.
type Service struct {
	// Name is its namespace in the contract: the prefix of its tools, its name in policies, and the
	// audience of its transaction tokens.
	Name string
	// About is the first line of its help.
	About string
	// Listen and AdminListen are the defaults of --listen and --admin-listen. Empty: 127.0.0.1:7450
	// and 127.0.0.1:7451.
	Listen, AdminListen string
	// Contract is the encoded FileDescriptorSet that drawbridge-gen generates.
	Contract []byte
	// Flags adds the service's own options. Each is also a variable, DRAWBRIDGE_<SERVICE>_<OPTION>.
	Flags func(*flag.FlagSet)
	// Register registers the gRPC service, after the options are parsed.
	Register func(grpc.ServiceRegistrar) error
	// Options are further options of the gRPC server, such as a stats handler for traces. Its
	// interceptors run before the caller is verified.
	Options []grpc.ServerOption
	// Dependencies are what the handlers need. The service is ready while the required ones are up.
	Dependencies []Dependency
	// OnDrained is called when the service stops, after its last call has ended: it releases what
	// the handlers used.
	OnDrained func()
}

// Main runs a service until SIGINT or SIGTERM, drains it, and exits: with 0 when it has stopped,
// with 2 when the command line is invalid, with 1 when it cannot serve or a second signal ended it.
func Main(service Service) {
	os.Exit(run(service, os.Args[1:]))
}

func run(service Service, arguments []string) int {
	config, err := service.Parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 2
	}
	log, err := logger(&config, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 2
	}
	slog.SetDefault(log)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	running, err := Start(service, config)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	slog.Info("serving", "address", running.Address.String(), "admin", running.Admin.String())
	<-signals
	slog.Info("draining; a second signal ends the process at once")
	drained := make(chan struct{})
	go func() {
		milliseconds := func(count int) time.Duration { return time.Duration(count) * time.Millisecond }
		running.Drain(milliseconds(config.DrainDelayMS), milliseconds(config.DrainTimeoutMS))
		close(drained)
	}()
	select {
	case <-drained:
		return 0
	case <-signals:
		fmt.Fprintln(os.Stderr, "error: ended by a second signal, before the calls in flight had ended")
		return 1
	}
}

// Parse reads the configuration from a command line, what is not on it from the environment, and
// sets the service's own options. It prints the help for --help, and returns [flag.ErrHelp].
func (s *Service) Parse(arguments []string) (Config, error) {
	config := DefaultConfig()
	if s.Listen != "" {
		config.Listen = s.Listen
	}
	if s.AdminListen != "" {
		config.AdminListen = s.AdminListen
	}
	flags := flag.NewFlagSet(strings.ReplaceAll(s.Name, "_", "-"), flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	config.flags(flags)
	if s.Flags != nil {
		s.Flags(flags)
	}
	err := parse(flags, s.Name, arguments)
	if errors.Is(err, flag.ErrHelp) {
		usage(os.Stdout, flags, s)
	}
	return config, err
}

// Running is a running service.
type Running struct {
	// Address is where gRPC is served.
	Address net.Addr
	// Admin is where health, readiness and metrics are served.
	Admin net.Addr

	server   *grpc.Server
	listener net.Listener
	admin    *http.Server
	health   *health.Server
	ready    *readiness
	// watching ends when the service stops, and with it what runs beside its calls.
	watching context.Context
	end      context.CancelFunc
	// release calls the service's OnDrained, once.
	release func()
}

// Start starts a service. It serves until [Running.Stop].
func Start(service Service, config Config) (*Running, error) {
	if !namespace.MatchString(service.Name) {
		return nil, fmt.Errorf(
			"invalid service name %q (expected its namespace, such as payments)",
			service.Name,
		)
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	own, err := openIdentity(config.MTLS)
	if err != nil {
		return nil, err
	}
	client, err := authClient(&config, own)
	if err != nil {
		return nil, err
	}
	metrics := newCallMetrics()
	running := &Running{
		health: health.NewServer(), ready: newReadiness(metrics.registry), release: func() {},
	}
	if service.OnDrained != nil {
		running.release = sync.OnceFunc(service.OnDrained)
	}
	options, err := serverOptions(&config, own)
	if err != nil {
		return nil, err
	}
	running.server = grpc.NewServer(append(options, service.Options...)...)
	running.watching, running.end = context.WithCancel(context.Background())
	keys := &keySet{url: config.AuthJWKSURL, client: client, now: time.Now}
	needed := append([]Dependency{authKeys(keys)}, service.Dependencies...)
	for index := range needed {
		if err := running.ready.expect(&needed[index]); err != nil {
			running.end()
			return nil, err
		}
	}
	services := &registrar{
		server: running.server,
		verifier: &verifier{
			audience: service.Name,
			issuer:   config.AuthIssuer,
			keys:     keys,
			now:      time.Now,
		},
		metrics: metrics,
	}
	if err := running.register(service, services); err != nil {
		running.end()
		return nil, err
	}
	if err := running.serve(&config, metrics); err != nil {
		running.end()
		return nil, err
	}
	if own != nil {
		go own.follow(running.watching, func(err error) { running.ready.note("mtls", err) })
	}
	go keys.fetchAhead(running.watching)
	for _, dependency := range needed {
		go running.ready.monitor(running.watching, dependency)
	}
	running.ready.set(serving, required, "")
	return running, nil
}

// authKeys is the condition that calls can be verified. Once the service has auth's keys, it uses
// them for an hour without auth.
func authKeys(keys *keySet) Dependency {
	return Dependency{Name: "auth_keys", Check: func(context.Context) error {
		if !keys.isUsable() {
			return errors.New("have not been fetched, or are too old")
		}
		return nil
	}}
}

func serverOptions(config *Config, own *identity) ([]grpc.ServerOption, error) {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newFrameCodec()),
		grpc.MaxRecvMsgSize(config.RequestBytesMax),
		grpc.MaxConcurrentStreams(concurrentStreamsMax),
		grpc.MaxHeaderListSize(headerListBytesMax),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveInterval}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: time.Second, PermitWithoutStream: true,
		}),
	}
	if own == nil {
		return options, nil
	}
	tls, err := own.server()
	if err != nil {
		return nil, err
	}
	return append(options, grpc.Creds(credentials.NewTLS(tls))), nil
}

// register registers the service, health and reflection, which are public.
func (r *Running) register(service Service, services *registrar) error {
	if err := service.Register(services); err != nil {
		return fmt.Errorf("cannot set up the service %s: %w", service.Name, err)
	}
	if len(services.services) == 0 {
		return fmt.Errorf("the service %s registers no gRPC service", service.Name)
	}
	if err := serveReflection(r.server, service.Contract, services.services); err != nil {
		return err
	}
	healthv1.RegisterHealthServer(r.server, &endingHealth{Server: r.health, stopping: r.watching})
	names := append(services.services, "")
	r.ready.follow(func(ready bool) {
		status := healthv1.HealthCheckResponse_NOT_SERVING
		if ready {
			status = healthv1.HealthCheckResponse_SERVING
		}
		for _, name := range names {
			r.health.SetServingStatus(name, status)
		}
	})
	return nil
}

// serve binds both addresses, and serves.
func (r *Running) serve(config *Config, metrics *callMetrics) error {
	listener, err := listen(config.Listen)
	if err != nil {
		return fmt.Errorf("cannot serve gRPC: %w", err)
	}
	adminListener, err := net.Listen("tcp", config.AdminListen)
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("cannot serve the admin port: %w", err)
	}
	r.listener, r.Address, r.Admin = listener, listener.Addr(), adminListener.Addr()
	r.admin = &http.Server{
		Handler:           admin(r.ready, metrics, config.AdminAllowedHosts),
		ReadHeaderTimeout: handshakeTimeout,
		IdleTimeout:       time.Minute,
	}
	go func() {
		if err := r.server.Serve(listener); err != nil {
			slog.Error("the gRPC server ended", "error", err.Error())
		}
	}()
	go func() {
		if err := r.admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the admin port ended", "error", err.Error())
		}
	}()
	return nil
}

// Stop stops the service in a test: no new calls, and calls in flight end within five seconds.
func (r *Running) Stop() { r.Drain(0, stopTimeout) }

// Drain stops the service: not ready, a delay in which it still accepts calls so that load
// balancers notice, no new calls, and calls in flight end within the timeout.
func (r *Running) Drain(delay, timeout time.Duration) {
	r.ready.set(serving, required, "stopping")
	r.health.Shutdown()
	time.Sleep(delay)
	r.end()
	drained := make(chan struct{})
	go func() {
		r.server.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(timeout):
		slog.Warn("the drain timeout passed; dropping the remaining calls")
		r.server.Stop()
	}
	r.release()
	// A server that stops before it serves leaves it open.
	_ = r.listener.Close()
	// Scrapes in progress are not worth a wait.
	_ = r.admin.Close()
}

// endingHealth ends its watches when the service stops: they would hold their connections open, and
// with them the drain, until its deadline.
type endingHealth struct {
	*health.Server
	stopping context.Context
}

// Watch implements healthv1.HealthServer.
func (h *endingHealth) Watch(
	request *healthv1.HealthCheckRequest,
	stream healthv1.Health_WatchServer,
) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.stopping, cancel)()
	return h.Server.Watch(request, &endingWatch{Health_WatchServer: stream, ctx: ctx})
}

type endingWatch struct {
	healthv1.Health_WatchServer
	ctx context.Context
}

// Context ends with the service.
func (w *endingWatch) Context() context.Context { return w.ctx }
