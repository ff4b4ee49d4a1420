package drawbridge

import "log/slog"

// Secret is a text that is neither printed nor logged.
type Secret struct{ text string }

// Expose returns the text.
func (s Secret) Expose() string { return s.text }

// String returns a placeholder.
func (s Secret) String() string { return "[redacted]" }

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
