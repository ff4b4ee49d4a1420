package drawbridge

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// logger is the logger of a service: one JSON object per line with the names of the mesh's other
// services, or text for people.
func logger(config *Config, out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(config.LogLevel))); err != nil {
		return nil, fmt.Errorf(
			"invalid --log %q: write debug, info, warn or error",
			config.LogLevel,
		)
	}
	switch config.LogFormat {
	case "json":
	case "auto":
		if isTerminal(out) {
			return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), nil
		}
	case "pretty":
		return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})), nil
	default:
		return nil, fmt.Errorf(
			"invalid --log-format %q: write auto, json or pretty",
			config.LogFormat,
		)
	}
	rename := func(groups []string, attribute slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return attribute
		}
		switch attribute.Key {
		case slog.TimeKey:
			attribute.Key = "timestamp"
		case slog.MessageKey:
			attribute.Key = "message"
		}
		return attribute
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: rename}
	return slog.New(slog.NewJSONHandler(out, options)), nil
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func newRequestID() string {
	var id [16]byte
	// It never fails (Go 1.24).
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
