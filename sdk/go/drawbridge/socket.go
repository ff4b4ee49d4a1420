package drawbridge

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// socketPathBytesMax is the longest path of a Unix-domain socket, without its NUL (unix(7)).
const socketPathBytesMax = 107

// isSocket reports whether an address names a Unix-domain socket, as gRPC does.
func isSocket(address string) bool { return strings.HasPrefix(address, "unix:") }

// socketPath is the path in unix:/absolute/path or unix:///absolute/path.
func socketPath(address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host != "" || !strings.HasPrefix(parsed.Path, "/") ||
		parsed.RawQuery != "" || parsed.Fragment != "" || strings.HasSuffix(parsed.Path, "/") {
		return "", fmt.Errorf("invalid --listen %q: write unix:/absolute/path", address)
	}
	if len(parsed.Path) > socketPathBytesMax || strings.Contains(parsed.Path, "\x00") {
		return "", fmt.Errorf("invalid --listen %q: the path of a socket has at most %d bytes "+
			"without NUL", address, socketPathBytesMax)
	}
	return parsed.Path, nil
}

// listen binds an address and a port, or a Unix-domain socket.
func listen(address string) (net.Listener, error) {
	if !isSocket(address) {
		return net.Listen("tcp", address)
	}
	path, err := socketPath(address)
	if err != nil {
		return nil, err
	}
	return listenSocket(path)
}

// socketAddress is the path of a Unix-domain socket. Its text is what --listen takes.
type socketAddress string

// Network implements net.Addr.
func (socketAddress) Network() string { return "unix" }

// String implements net.Addr.
func (a socketAddress) String() string { return "unix:" + string(a) }
