package drawbridge

import (
	"context"
	"time"
)

// Caller is the verified caller of an RPC.
type Caller struct {
	// Subject is who is calling, at the issuer Issuer. The two identify the caller together.
	Subject string
	// Issuer is the subject's issuer.
	Issuer string
	// Tenant is the subject's tenant; empty without one.
	Tenant string
	// Principal is issuer, subject and tenant in one text, for databases and for Vault.
	Principal string
	// ClientID is the OAuth client through which the subject calls.
	ClientID string
	// Scopes are the scopes of the subject's token.
	Scopes []string
	// Facts are what policies read of the subject; nil if they were too large.
	Facts *Facts
	// Actor is the service that acts for the subject; nil if the subject itself calls.
	Actor *Actor
	// Item is the name of the tool, resource or prompt.
	Item string
	// RequestID is the id of the request that caused the call.
	RequestID string
	// Expires is when the transaction token expires.
	Expires time.Time
	// Token is the transaction token, to act for the caller at auth or at Vault.
	Token Secret
}

// Actor is a service that acts for a subject (RFC 8693 section 4.1).
type Actor struct {
	// Issuer is its issuer.
	Issuer string `json:"iss"`
	// Subject is its subject at that issuer.
	Subject string `json:"sub"`
	// Previous is the previous actor for the same subject; nil if the subject itself called.
	Previous *Actor `json:"act"`
}

// Facts are attributes from the subject's own token.
type Facts struct {
	// Groups are the subject's groups.
	Groups []string `json:"groups"`
	// Roles are the subject's roles.
	Roles []string `json:"roles"`
	// Email is the person's email address.
	Email string `json:"email"`
	// MFA reports whether the person authenticated with more than one factor.
	MFA bool `json:"mfa"`
	// Workload reports whether the subject is a program that calls in its own name.
	Workload bool `json:"workload"`
}

type callerKey struct{}

// CallerFrom returns the caller of the RPC with this context. It is nil in no handler of a tool
// service, and nil elsewhere.
func CallerFrom(ctx context.Context) *Caller {
	caller, _ := ctx.Value(callerKey{}).(*Caller)
	return caller
}
