package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	goredis "github.com/redis/go-redis/v9"
)

// fault is why Redis cannot be used, in words for whoever has to mend it. Texts
// of errors hold ports and names that differ from try to try; reason does not.
type fault struct {
	reason  string // one word, the same for the same cause
	problem string // what happened
	advice  string // what to do about it
	err     error  // as it came; nil for what we found out ourselves
}

func (f *fault) Error() string { return f.problem + ": " + f.advice }
func (f *fault) Unwrap() error { return f.err }

// Faults that are found rather than met.
var (
	faultSilent = &fault{reason: "silent", problem: "redis does not answer", advice: "is it frozen, overloaded, or cut off?"}
	faultMoved  = &fault{reason: "moved", problem: "the address leads to another primary now, or its role changed", advice: "nothing: subscribing there"}
	faultNoEcho = &fault{reason: "moved", problem: "what is published at the address does not reach the subscription", advice: "nothing: subscribing again"}
)

// fault puts an error into words. Live says that a subscription stood when it
// came, rather than that one could not be made.
func (s *Server) fault(err error, live bool) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	if isReply(err) {
		f = s.replyFault(err)
	} else {
		f = s.connFault(err, live)
	}
	f.err = s.redact(err)
	return f
}

// replyFault is for what Redis answers.
func (s *Server) replyFault(err error) *fault {
	var reply *replyError
	has := func(prefix string) bool { return goredis.HasErrorPrefix(err, prefix) }
	switch {
	case has("NOAUTH"):
		return &fault{reason: "password", problem: "redis asks for a password and none is given", advice: "give one in a password file or in the URL"}
	case has("AUTH <password> called without"), has("Client sent AUTH, but no password is set"):
		return &fault{reason: "password", problem: "a password is given, but redis has none set", advice: "set requirepass in redis, or remove the password here"}
	case goredis.IsAuthError(err), has("invalid password"), has("invalid username-password"):
		return &fault{reason: "password", problem: "redis refuses user or password", advice: "correct them here or, with ACL SETUSER, there"}
	case has("DENIED"):
		return &fault{reason: "protected", problem: "redis is in protected mode and refuses other machines", advice: "set a password or a bind address in redis"}
	case goredis.IsMaxClientsError(err):
		return &fault{reason: "full", problem: "redis has no room for another connection", advice: "raise maxclients in redis"}
	case has("This instance has cluster support disabled"):
		return &fault{reason: "cluster", problem: "this redis is no node of a cluster", advice: "redis:// instead of redis+cluster://?"}
	case has("MOVED "), has("ASK "):
		return &fault{reason: "cluster", problem: "the key is on another node of the cluster", advice: "use redis+cluster:// instead of redis://, or wait until the key's slot has moved"}
	case errors.As(err, &reply) && (has("unknown command") || has("unknown subcommand") || has("Unknown subcommand")):
		return &fault{reason: "command", problem: "this server does not have the command " + reply.command, advice: "use Redis 6.2 or later, or Valkey, and allow the command there (rename-command)"}
	case goredis.IsLoadingError(err):
		return &fault{reason: "loading", problem: "redis is loading its data", advice: "nothing: trying again until it has"}
	}
	return &fault{reason: "error", problem: "redis answers with an error", advice: "see the error"}
}

// denied is the fault of an error that may be a refusal for lack of a right. A fault that says
// already what to do about it stays: it may be of another command than the one that was meant.
func (s *Server) denied(err error, doing, grant string) *fault {
	var known *fault
	if errors.As(err, &known) {
		return known
	}
	f := s.fault(err, false)
	if goredis.IsPermissionError(err) {
		f.reason = "right"
		f.problem = "user " + s.userName() + " may not " + doing
		f.advice = "ACL SETUSER " + s.userName() + " " + grant
	}
	return f
}

// connFault is for what happens to a connection, or keeps it from being made.
func (s *Server) connFault(err error, live bool) *fault {
	var dns *net.DNSError
	var op *net.OpError
	dialling := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, errTLS):
		return tlsFault(err)
	case errors.As(err, &dns):
		return &fault{reason: "name", problem: "the name of the redis host does not resolve", advice: "correct the name, or mend the resolver"}
	case errors.Is(err, syscall.ECONNREFUSED), s.network == "unix" && errors.Is(err, os.ErrNotExist):
		return &fault{reason: "refused", problem: "connection refused", advice: "is redis running, and at this address?"}
	case errors.Is(err, os.ErrPermission):
		return &fault{reason: "refused", problem: "no permission to connect", advice: "set unixsocketperm in redis, or mend the firewall"}
	case dialling:
		return &fault{reason: "unreachable", problem: "the redis host cannot be reached", advice: "is it up, and does a firewall stand between?"}
	case isTimeout(err):
		silent := *faultSilent // what it is given is its own
		return &silent
	case live && isHangUp(err):
		return &fault{reason: "closed", problem: "redis closed the connection", advice: "was it restarted, CLIENT KILL used, or client-output-buffer-limit pubsub exceeded?"}
	case isHangUp(err):
		return &fault{reason: "closed", problem: "the connection was closed before redis answered", advice: "does this port expect TLS (rediss://), or is it not redis?"}
	}
	return &fault{reason: "error", problem: "the connection failed", advice: "see the error"}
}

func tlsFault(err error) *fault {
	var (
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
	)
	f := &fault{reason: "tls", problem: "the TLS handshake failed", advice: "see the error"}
	switch {
	case errors.As(err, &plain):
		f.advice = "the port does not speak TLS: redis:// instead of rediss://?"
	case errors.As(err, &authority):
		f.advice = "the certificate's authority is unknown: name its CA file"
	case errors.As(err, &name):
		f.advice = "the certificate is for another name: use that name in the URL"
	case isTimeout(err):
		f.advice = "no answer came: does the port speak TLS?"
	}
	return f
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isHangUp(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func (s *Server) userName() string {
	if s.user == "" {
		return "default"
	}
	return s.user
}
