package drawbridge

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// tokenMetadata is the metadata key of the transaction token.
	tokenMetadata = "txn-token"
	// tokenType is the typ of a transaction token (draft-ietf-oauth-transaction-tokens).
	tokenType = "txntoken+jwt"
	// leeway is the clock skew that is tolerated.
	leeway = 5 * time.Second
)

var (
	errMissing      = errors.New("the call carries no transaction token")
	errInvalid      = errors.New("the transaction token is not valid here")
	errOtherRPC     = errors.New("the transaction token is for another RPC")
	errOtherMessage = errors.New("the transaction token is for another message")
)

// verifier verifies the transaction tokens of one service.
type verifier struct {
	audience string
	issuer   string
	keys     *keySet
	now      func() time.Time
}

// claims are the claims of a transaction token.
type claims struct {
	jwt.Claims
	RequestID string      `json:"txn"`
	Scope     string      `json:"scope"`
	Context   transaction `json:"tctx"`
	Actor     *Actor      `json:"act"`
}

// transaction is what a transaction token is for.
type transaction struct {
	Issuer        string  `json:"iss"`
	Principal     string  `json:"principal"`
	Tenant        string  `json:"tenant"`
	ClientID      string  `json:"client_id"`
	Tool          string  `json:"tool"`
	RPC           string  `json:"rpc"`
	MessageSHA256 *string `json:"message_sha256"`
	Facts         *Facts  `json:"facts"`
}

// verified is a caller, and the only message that it may send; nil: any message.
type verified struct {
	caller        *Caller
	messageSHA256 *string
}

// authenticate verifies the token in the metadata of a call to rpc, package.Service/Method.
// Its errors are gRPC statuses.
func (v *verifier) authenticate(ctx context.Context, rpc string) (*verified, error) {
	found, err := v.verify(ctx, rpc)
	if err == nil {
		return found, nil
	}
	return nil, refuse(ctx, rpc, err)
}

// refuse logs why a call is refused. The caller learns a reason, never an internal cause.
func refuse(ctx context.Context, rpc string, err error) error {
	slog.InfoContext(ctx, "rejected a call without a valid transaction token",
		"rpc", rpc, "error", err.Error())
	if errors.Is(err, errNoKeys) {
		return status.Error(codes.Unavailable, "transaction tokens cannot be verified now; retry")
	}
	for _, reason := range []error{errMissing, errOtherRPC, errOtherMessage, errAmbiguous} {
		if errors.Is(err, reason) {
			return status.Error(codes.Unauthenticated, err.Error())
		}
	}
	return status.Error(codes.Unauthenticated, errInvalid.Error())
}

var errAmbiguous = errors.New("the call carries more than one value of a credential")

func (v *verifier) verify(ctx context.Context, rpc string) (*verified, error) {
	given, _ := metadata.FromIncomingContext(ctx)
	tokens := given.Get(tokenMetadata)
	if len(tokens) > 1 || len(given.Get("authorization")) > 1 {
		// The one that is checked might not be the one that is used.
		return nil, errAmbiguous
	}
	if len(tokens) == 0 {
		return nil, errMissing
	}
	claims, err := v.claims(ctx, tokens[0])
	if err != nil {
		return nil, err
	}
	if claims.Context.RPC != rpc {
		return nil, errOtherRPC
	}
	return &verified{
		caller:        claims.caller(tokens[0]),
		messageSHA256: claims.Context.MessageSHA256,
	}, nil
}

// claims are the claims of a token that auth has signed for this service.
func (v *verifier) claims(ctx context.Context, token string) (*claims, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, errors.Join(errInvalid, err)
	}
	// INVARIANT: `ParseSigned` accepts the compact form alone, with one signature.
	header := parsed.Headers[0]
	if header.ExtraHeaders[jose.HeaderType] != tokenType || header.KeyID == "" {
		return nil, errInvalid
	}
	key, err := v.keys.key(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}
	var claims claims
	if err := parsed.Claims(key, &claims); err != nil {
		return nil, errors.Join(errInvalid, err)
	}
	expected := jwt.Expected{
		Issuer:      v.issuer,
		AnyAudience: jwt.Audience{v.audience},
		Time:        v.now(),
	}
	if err := claims.ValidateWithLeeway(expected, leeway); err != nil {
		return nil, errors.Join(errInvalid, err)
	}
	if claims.Expiry == nil || claims.Subject == "" || len(claims.Audience) != 1 {
		return nil, errInvalid
	}
	return &claims, nil
}

func (c *claims) caller(token string) *Caller {
	return &Caller{
		Subject:   c.Subject,
		Issuer:    c.Context.Issuer,
		Tenant:    c.Context.Tenant,
		Principal: c.Context.Principal,
		ClientID:  c.Context.ClientID,
		Scopes:    strings.Fields(c.Scope),
		Facts:     c.Context.Facts,
		Actor:     c.Actor,
		Item:      c.Context.Tool,
		RequestID: c.RequestID,
		Expires:   c.Expiry.Time(),
		Token:     Secret{token},
	}
}

// checkMessage checks that the token is for this message, as it was on the wire.
func (v *verified) checkMessage(message []byte) error {
	if v.messageSHA256 == nil {
		return nil
	}
	digest := sha256.Sum256(message)
	sent := base64.RawURLEncoding.EncodeToString(digest[:])
	if subtle.ConstantTimeCompare([]byte(sent), []byte(*v.messageSHA256)) != 1 {
		return errOtherMessage
	}
	return nil
}

// usableKey reports whether a published key verifies transaction tokens.
func usableKey(key *jose.JSONWebKey) bool {
	_, ed25519Key := key.Key.(ed25519.PublicKey)
	return ed25519Key && key.KeyID != "" &&
		(key.Algorithm == "" || key.Algorithm == string(jose.EdDSA)) &&
		(key.Use == "" || key.Use == "sig")
}
