// Uses an MCP server like an application, with the official Go SDK.
//
//	scenarios PLAN
//
// PLAN is JSON, documented in tests/tests/e2e/interop/clients.rs. Prints one JSON object with the
// result of each scenario. An unexpected error ends the program with exit code 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime/debug"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

// Nothing listens here: the redirect is read and never followed.
const redirectURI = "http://127.0.0.1:8976/callback"

const slow = "test_slow_work"

type call struct {
	Name      string         `json:"name"`
	Arguments map[string]any `json:"arguments"`
}

type work struct {
	Arguments map[string]any `json:"arguments"`
	Steps     int            `json:"steps"`
}

type plan struct {
	URL       string                    `json:"url"`
	Username  string                    `json:"username"`
	Password  string                    `json:"password"`
	Token     string                    `json:"token"`
	Protocol  string                    `json:"protocol"`
	Service   string                    `json:"service"`
	Control   string                    `json:"control"`
	Proxies   map[string]string         `json:"proxies"`
	Slow      work                      `json:"slow"`
	Quick     work                      `json:"quick"`
	Silent    map[string]map[string]any `json:"silent"`
	Call      call                      `json:"call"`
	Denied    call                      `json:"denied"`
	Read      string                    `json:"read"`
	Scenarios []string                  `json:"scenarios"`
}

// --- Signing in ---------------------------------------------------------------------------------

// recorder records every HTTP request in the order of the responses.
type recorder struct {
	mutex sync.Mutex
	steps []string
}

// bearer adds a token to requests.
type bearer string

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(request)
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(request)
	if err == nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.steps = append(r.steps, fmt.Sprintf("%s %s %d", request.Method, request.URL.Path, response.StatusCode))
	}
	return response, err
}

var (
	form   = regexp.MustCompile(`<form method="post" action="([^"]+)">`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
)

// signIn acts as the user's browser: it submits the sign-in form and returns the redirect's
// parameters.
func (s *scenarios) signIn(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	client := &http.Client{
		Transport:     s.http,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	page, err := client.Get(args.URL)
	if err != nil {
		return nil, err
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	if err != nil {
		return nil, err
	}
	action := form.FindSubmatch(text)
	if action == nil {
		return nil, fmt.Errorf("no sign-in form, but %s", page.Status)
	}
	target, err := page.Request.URL.Parse(html.UnescapeString(string(action[1])))
	if err != nil {
		return nil, err
	}
	fields := url.Values{"username": {s.plan.Username}, "password": {s.plan.Password}, "decision": {"allow"}}
	for _, field := range hidden.FindAllSubmatch(text, -1) {
		fields.Set(string(field[1]), html.UnescapeString(string(field[2])))
	}
	sent, err := client.PostForm(target.String(), fields)
	if err != nil {
		return nil, err
	}
	defer sent.Body.Close()
	location, err := sent.Location()
	if err != nil {
		return nil, fmt.Errorf("no redirect after sign-in, but %s", sent.Status)
	}
	query := location.Query()
	return &auth.AuthorizationResult{
		Code: query.Get("code"), State: query.Get("state"), Iss: query.Get("iss"),
	}, nil
}

// --- Connections --------------------------------------------------------------------------------

type scenarios struct {
	plan     plan
	http     *recorder
	protocol string
	service  *mcp.ClientSession
	// Whether it opens no standalone stream.
	noStream bool
	// Receives the progress of the current call.
	progress func(string)
}

// connect signs in at the mesh, and uses the plan's token elsewhere.
func (s *scenarios) connect(ctx context.Context, endpoint string) (*mcp.ClientSession, error) {
	transport := &mcp.StreamableClientTransport{Endpoint: endpoint, DisableStandaloneSSE: s.noStream}
	if endpoint != s.plan.URL {
		transport.HTTPClient = &http.Client{Transport: bearer(s.plan.Token)}
	} else {
		transport.HTTPClient = &http.Client{Transport: s.http}
		handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
			DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
				Metadata: &oauthex.ClientRegistrationMetadata{
					ClientName: "go scenarios", RedirectURIs: []string{redirectURI},
				},
			},
			RedirectURL:              redirectURI,
			AuthorizationCodeFetcher: s.signIn,
			Client:                   &http.Client{Transport: s.http},
		})
		if err != nil {
			return nil, err
		}
		transport.OAuthHandler = handler
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "go scenarios", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
			s.progress(request.Params.Message)
		},
	})
	session, err := client.Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: s.plan.Protocol})
	if err == nil && s.protocol == "" {
		s.protocol = session.InitializeResult().ProtocolVersion
	}
	return session, err
}

func (s *scenarios) connection(ctx context.Context) (*mcp.ClientSession, error) {
	if s.service == nil {
		service, err := s.connect(ctx, s.plan.Service)
		if err != nil {
			return nil, err
		}
		s.service = service
	}
	return s.service, nil
}

// --- Scenarios ----------------------------------------------------------------------------------

func text(ctx context.Context, session *mcp.ClientSession, name string, arguments any, token any) (string, error) {
	params := &mcp.CallToolParams{Name: name, Arguments: arguments}
	if token != nil {
		params.SetProgressToken(token)
	}
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return "", err
	}
	return result.Content[0].(*mcp.TextContent).Text, nil
}

func errorOf(err error) any {
	if err == nil {
		return nil
	}
	failure := map[string]any{"type": fmt.Sprintf("%T", err), "message": err.Error(), "code": nil}
	if wire := (*jsonrpc.Error)(nil); errors.As(err, &wire) {
		failure["code"] = wire.Code
	}
	return failure
}

// control triggers a fault of this client's connection.
func (s *scenarios) control(what string) (bool, error) {
	response, err := http.Post(s.plan.Control+what, "", nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	var happened bool
	return happened, json.NewDecoder(response.Body).Decode(&happened)
}

// reported calls a tool with progress, and returns its events in order.
func (s *scenarios) reported(ctx context.Context, session *mcp.ClientSession, work work) ([]string, error) {
	progress := make(chan string, 256)
	s.progress = func(message string) { progress <- message }
	worked, err := text(ctx, session, slow, work.Arguments, "reported")
	if err != nil {
		return nil, err
	}
	// The SDK delivers progress concurrently with the result, which may overtake it.
	var events []string
	for late := time.After(5 * time.Second); len(events) < work.Steps; {
		select {
		case event := <-progress:
			events = append(events, event)
		case <-late:
			return nil, fmt.Errorf("missing progress after %v", events)
		}
	}
	return append(events, worked), nil
}

func (s *scenarios) flow(ctx context.Context) (any, error) {
	session, err := s.connect(ctx, s.plan.URL)
	if err != nil {
		return nil, err
	}
	listed, err := session.ListTools(ctx, nil)
	if err != nil {
		return nil, err
	}
	var tools []string
	for _, tool := range listed.Tools {
		tools = append(tools, tool.Name)
	}
	templates, err := session.ListResourceTemplates(ctx, nil)
	if err != nil {
		return nil, err
	}
	var uris []string
	for _, template := range templates.ResourceTemplates {
		uris = append(uris, template.URITemplate)
	}
	called, err := text(ctx, session, s.plan.Call.Name, s.plan.Call.Arguments, nil)
	if err != nil {
		return nil, err
	}
	read, err := session.ReadResource(ctx, &mcp.ReadResourceParams{URI: s.plan.Read})
	if err != nil {
		return nil, err
	}
	_, denied := text(ctx, session, s.plan.Denied.Name, s.plan.Denied.Arguments, nil)
	s.http.mutex.Lock()
	defer s.http.mutex.Unlock()
	return map[string]any{
		"steps": s.http.steps, "tools": tools, "resourceTemplates": uris,
		"text": called, "read": read.Contents[0].Text, "denied": errorOf(denied),
	}, nil
}

func (s *scenarios) reports(ctx context.Context) (any, error) {
	session, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	events, err := s.reported(ctx, session, s.plan.Slow)
	return map[string]any{"events": events, "complaints": []string{}}, err
}

func (s *scenarios) cancel(ctx context.Context) (any, error) {
	session, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.progress = func(string) { cancel() }
	_, cancelled := text(ctx, session, slow, map[string]any{"milliseconds": 60_000}, "cancelled")
	stopped, err := s.control("stopped")
	return map[string]any{"error": errorOf(cancelled), "stopped": stopped}, err
}

func (s *scenarios) brokenStream(ctx context.Context) (any, error) {
	session, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.control("cut"); err != nil {
		return nil, err
	}
	return s.reported(ctx, session, s.plan.Quick)
}

func (s *scenarios) lostSession(ctx context.Context) (any, error) {
	session, err := s.connection(ctx)
	if err != nil {
		return nil, err
	}
	ended, err := s.control("end-session")
	if err != nil {
		return nil, err
	}
	_, lost := text(ctx, session, "test_simple_text", nil, nil)
	if lost != nil {
		// The SDK does not start a new session; the application must.
		s.service = nil
		if session, err = s.connection(ctx); err != nil {
			return nil, err
		}
	}
	again, err := text(ctx, session, "test_simple_text", nil, nil)
	return map[string]any{"ended": ended, "error": errorOf(lost), "again": again}, err
}

func (s *scenarios) proxies(ctx context.Context) (any, error) {
	report := map[string]any{}
	for name, endpoint := range s.plan.Proxies {
		// The SDK waits for the headers of its standalone stream, which the proxy buffers.
		s.noStream = name == "buffering"
		session, err := s.connect(ctx, endpoint)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		silent, err := text(ctx, session, slow, s.plan.Silent[name], nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		events, err := s.reported(ctx, session, s.plan.Quick)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		report[name] = map[string]any{
			"protocol": session.InitializeResult().ProtocolVersion, "silent": silent, "events": events,
		}
	}
	return report, nil
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/modelcontextprotocol/go-sdk" {
			return "go-sdk " + module.Version
		}
	}
	return "go-sdk"
}

func main() {
	s := &scenarios{http: &recorder{}, progress: func(string) {}}
	if err := json.Unmarshal([]byte(os.Args[1]), &s.plan); err != nil {
		log.Fatal(err)
	}
	known := map[string]func(context.Context) (any, error){
		"flow": s.flow, "progress": s.reports, "cancel": s.cancel, "broken_stream": s.brokenStream,
		"lost_session": s.lostSession, "proxies": s.proxies,
	}
	report := map[string]any{"client": version()}
	for _, name := range s.plan.Scenarios {
		result, err := known[name](context.Background())
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		report[name] = result
	}
	report["protocol"] = s.protocol
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}
