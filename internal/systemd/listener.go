package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
)

// Address, as the address of a listener, means the socket that the service manager has opened.
const Address = "systemd"

// PassesSocket reports whether the service manager has passed a socket to this process that Listener has not returned yet.
func PassesSocket() bool { return os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) }

// Listener returns the socket that the service manager has passed to this process: see sd_listen_fds(3). It can be called
// only once. The socket stays open in the service manager.
func Listener() (net.Listener, error) {
	files := activation.Files(true)
	defer func() {
		for _, f := range files {
			_ = f.Close() // net.FileListener duplicates it
		}
	}()
	switch len(files) {
	case 0:
		return nil, errors.New("the service manager has passed no socket; start the hub through a systemd unit that has a socket unit (docs/install.md)")
	case 1:
	default:
		return nil, fmt.Errorf("the service manager has passed %d sockets; use a socket unit with a single ListenStream= line", len(files))
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("the socket of the service manager is not a listening stream socket; use ListenStream= and Accept=no: %w", unwrapped(err))
	}
	return l, nil
}

// unwrapped returns the error of the system call, without the name of the file.
func unwrapped(err error) error {
	if call := new(os.SyscallError); errors.As(err, &call) {
		return call
	}
	return err
}
