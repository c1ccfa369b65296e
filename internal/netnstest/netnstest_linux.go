// Package netnstest provides a peer on another network for tests: a network namespace that is connected by a
// pair of virtual interfaces (veth). The connection can be interrupted, so that the peer drops off without a FIN or
// a reset. Everything is removed when the test ends.
package netnstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"usercast/internal/need"
)

// A Network is a namespace and a veth pair between it and this machine.
type Network struct {
	tb                testing.TB
	name              string // of the namespace
	near, far         string // interface names of the two ends
	nearAddr, farAddr netip.Addr
}

// New creates a network. It skips the test if permissions or iproute2 are missing.
func New(tb testing.TB) *Network {
	tb.Helper()
	need.Program(tb, "ip")
	id := fmt.Sprintf("%08x", rand.Uint32())
	n := &Network{tb: tb, name: "netnstest-" + id, near: "nt" + id + "n", far: "nt" + id + "f"}
	if err := run("netns", "add", n.name); err != nil {
		need.Missing(tb, "the permission to create a network namespace", "run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN")
	}
	tb.Cleanup(func() {
		// The interface first: a socket that is still open would keep the namespace.
		for _, args := range [][]string{{"link", "del", n.near}, {"netns", "del", n.name}} {
			if err := run(args...); err != nil {
				tb.Error(err)
			}
		}
	})
	n.nearAddr = freeNet(tb)
	n.farAddr = n.nearAddr.Next()
	n.do("link", "add", n.near, "type", "veth", "peer", "name", n.far, "netns", n.name)
	n.do("addr", "add", n.nearAddr.String()+"/30", "dev", n.near)
	n.do("-n", n.name, "addr", "add", n.farAddr.String()+"/30", "dev", n.far)
	n.do("link", "set", n.near, "up")
	// After Unplug, the peer becomes unreachable within the timeouts of tests, and sockets fail
	// with this error. The default would be 3 s.
	n.do("ntable", "change", "name", "arp_cache", "dev", n.near, "retrans", "100")
	n.do("-n", n.name, "link", "set", n.far, "up")
	return n
}

// Host returns the address of this machine on the network.
func (n *Network) Host() string { return n.nearAddr.String() }

// In runs f on a thread inside the namespace. A socket that f creates stays in it.
func (n *Network) In(f func()) {
	n.tb.Helper()
	errs := make(chan error)
	go func() { errs <- n.in(f) }()
	if err := <-errs; err != nil {
		n.tb.Fatal(err)
	}
}

func (n *Network) in(f func()) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	away, err := os.Open("/var/run/netns/" + n.name)
	if err != nil {
		return err
	}
	defer away.Close()
	// If the thread does not return to its namespace, it ends with this goroutine.
	runtime.LockOSThread()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace: %w", err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave the namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// Unplug disables the interface at the far end.
func (n *Network) Unplug() {
	n.tb.Helper()
	n.do("-n", n.name, "link", "set", n.far, "down")
}

// Mute drops all packets from the far end. The near end does not notice this.
func (n *Network) Mute() {
	n.tb.Helper()
	n.do("-n", n.name, "route", "add", "blackhole", n.nearAddr.String()+"/32")
}

func (n *Network) do(args ...string) {
	n.tb.Helper()
	if err := run(args...); err != nil {
		n.tb.Fatal(err)
	}
}

func run(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = errors.New(strings.TrimSpace(string(out)))
	}
	return fmt.Errorf("ip %s: %w", strings.Join(args, " "), err)
}

// freeNet returns the first host address of a /30 network in 10.0.0.0/8 that no interface of this machine
// uses.
func freeNet(tb testing.TB) netip.Addr {
	tb.Helper()
	taken, err := net.InterfaceAddrs()
	if err != nil {
		tb.Fatal(err)
	}
next:
	for range 100 {
		r := rand.Uint32()
		addr := netip.AddrFrom4([4]byte{10, byte(r >> 16), byte(r >> 8), byte(r)&^3 | 1})
		for _, a := range taken {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Contains(addr) {
				continue next
			}
		}
		return addr
	}
	tb.Fatal("no free network in 10.0.0.0/8")
	return netip.Addr{}
}
