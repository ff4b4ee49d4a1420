//go:build !linux

package drawbridge

import (
	"errors"
	"net"
)

func listenSocket(string) (net.Listener, error) {
	return nil, errors.New("a Unix-domain socket is served on Linux alone: set an address and a port")
}
