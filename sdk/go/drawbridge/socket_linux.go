package drawbridge

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// ownUserListener accepts connections of this user and of root. A socket has no TLS: the peer's user
// stands in its place.
type ownUserListener struct {
	*net.UnixListener
	path string
}

// listenSocket listens for processes of this user and of root. The file, of mode 0600, is removed
// when the listener is closed.
func listenSocket(path string) (net.Listener, error) {
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Two services that replace one stale socket would each remove the other's, so one locks the
	// folder until it listens.
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", folder.Name(), err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return &ownUserListener{listener, path}, nil
}

// checkFolder refuses a folder in which others could replace the socket.
func checkFolder(path string) error {
	found, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner := found.Sys().(*syscall.Stat_t).Uid
	switch {
	case !found.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case int(owner) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user: use a folder of this user", path)
	case found.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others can write to %s: run chmod go-w %s", path, path)
	}
	return nil
}

// removeStale removes a socket on which nothing listens, and nothing else.
func removeStale(path string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: choose another path, or remove it", path)
	}
	connection, err := net.Dial("unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		slog.Info("replacing a stale socket", "path", path)
		return os.Remove(path)
	case err == nil:
		_ = connection.Close()
	case !errors.Is(err, syscall.EAGAIN):
		return err
	}
	return fmt.Errorf("%s is in use: another process listens there", path)
}

// Accept implements net.Listener.
func (l *ownUserListener) Accept() (net.Conn, error) {
	for {
		connection, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		user, err := userOf(connection)
		if err == nil && isPeerAllowed(user, os.Geteuid()) {
			return connection, nil
		}
		slog.Warn("rejected a connection of another user", "user", user, "error", err)
		_ = connection.Close()
	}
}

// Addr implements net.Listener.
func (l *ownUserListener) Addr() net.Addr { return socketAddress(l.path) }

// isPeerAllowed reports whether a process of a user may connect to one of another.
func isPeerAllowed(peer, own int) bool { return peer == own || peer == 0 }

// userOf is the user of the process at the other end.
func userOf(connection *net.UnixConn) (int, error) {
	raw, err := connection.SyscallConn()
	if err != nil {
		return -1, err
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return -1, err
	}
	if failed != nil {
		return -1, failed
	}
	return int(peer.Uid), nil
}
