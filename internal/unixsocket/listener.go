package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// ErrInUse means that another process listens on the socket.
var ErrInUse = errors.New("another process listens on this socket; stop it, or choose another path")

// A Listener listens on a Unix socket. Its Close removes the socket's file, unless it has been replaced.
type Listener struct {
	*net.UnixListener
	path string
	file fs.FileInfo // nil: the file belongs to another program
	once sync.Once
}

// Listen creates the socket and listens on it. It replaces the socket of a process that no longer runs. It returns
// ErrInUse if a process listens on it, and does not replace other files.
func Listen(ctx context.Context, a Address) (*Listener, error) {
	// Otherwise, of two processes that find an old socket at the same time, one could remove the new socket of the other.
	defer lock(filepath.Dir(a.Path))()
	l, err := bind(ctx, a)
	if errors.Is(err, syscall.EADDRINUSE) {
		stale, failure := IsStale(ctx, a.Path)
		if stale {
			failure = os.Remove(a.Path)
		}
		if failure != nil {
			return nil, failure
		}
		l, err = bind(ctx, a)
	}
	switch dir := filepath.Dir(a.Path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the directory %s does not exist; create it, or set RuntimeDirectory= in a systemd unit", dir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to create a socket in %s; choose a directory that belongs to the user of the process", dir)
	}
	return l, err
}

// On returns a Listener for a socket that another program has opened. Its file is not removed.
func On(l *net.UnixListener) *Listener { return &Listener{UnixListener: l, path: l.Addr().String()} }

func bind(ctx context.Context, a Address) (*Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// On Linux, the mode of the unbound socket limits that of its file, so that the file never has more
		// permissions than requested.
		return raw.Control(func(fd uintptr) { restrict(fd, a.Mode) })
	}}
	l, err := lc.Listen(ctx, "unix", a.Path)
	if err != nil {
		return nil, err
	}
	unix := l.(*net.UnixListener)
	file, err := os.Lstat(a.Path)
	if err == nil {
		err = os.Chmod(a.Path, a.Mode) // bind has applied the umask
	}
	if err != nil {
		_ = unix.Close()
		return nil, err
	}
	unix.SetUnlinkOnClose(false)
	return &Listener{UnixListener: unix, path: a.Path, file: file}, nil
}

// IsStale reports whether path is the socket of a process that no longer listens. It returns ErrInUse if a process listens
// on it, an error for other files, and false without an error if the file does not exist.
func IsStale(ctx context.Context, path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode().Type() != fs.ModeSocket:
		return false, errors.New("the file exists and is not a socket; remove it, or choose another path")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return false, ErrInUse
	case errors.Is(err, syscall.EAGAIN): // its queue of connections is full
		return false, ErrInUse
	case !errors.Is(err, syscall.ECONNREFUSED):
		return false, fmt.Errorf("the socket exists, and whether a process listens on it is unknown: %w", err)
	}
	return true, nil
}

// Close stops listening and removes the file. Connections stay open.
func (l *Listener) Close() error {
	l.once.Do(func() {
		if l.file == nil {
			return
		}
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

// Addr returns an address in the form that Parse accepts.
func (l *Listener) Addr() net.Addr { return addr(prefix + l.path) }

// PeerAddr is the net.Addr of Peer.
func PeerAddr() net.Addr { return addr(Peer) }

type addr string

func (addr) Network() string  { return "unix" }
func (a addr) String() string { return string(a) }
