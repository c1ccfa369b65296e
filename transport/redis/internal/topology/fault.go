package topology

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

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
)

// A Fault is why Redis cannot be used, and what to do about it. Texts
// of errors hold ports and names that differ from try to try; Reason does not.
type Fault struct {
	Reason  string // one word, the same for the same cause
	Problem string // what happened
	Advice  string // what to do about it
	Err     error  // the original error; nil if there is none
}

func (f *Fault) Error() string { return f.Problem + ": " + f.Advice }
func (f *Fault) Unwrap() error { return f.Err }

// Faults that are not made of an error.
var (
	FaultSilent = &Fault{Reason: "silent", Problem: "redis does not answer", Advice: "is it frozen, overloaded, or cut off?"}
	FaultMoved  = &Fault{Reason: "moved", Problem: "the address leads to another primary now, or its role changed", Advice: "nothing: subscribing there"}
	FaultNoEcho = &Fault{Reason: "moved", Problem: "what is published at the address does not reach the subscription", Advice: "nothing: subscribing again"}
)

// newFault describes an error, or returns the Fault that it already is.
func newFault(err error, live, unix bool) (f *Fault, known bool) {
	if errors.As(err, &f) {
		return f, true
	}
	var wrong *resp.Error
	switch {
	case errors.As(err, &wrong):
		return BadReply(wrong.Error()), true
	case acl.IsReply(err):
		return replyFault(err), false
	}
	return connFault(err, live, unix), false
}

// BadReply is the fault of a reply that cannot be right. What must hold nothing of what was
// received but types and lengths.
func BadReply(what string) *Fault {
	return &Fault{
		Reason:  "reply",
		Problem: "redis sent a reply that cannot be right",
		Advice:  "check that the address is that of a Redis, and what is in between; connecting again",
		Err:     errors.New(what),
	}
}

// replyFault is for error replies.
func replyFault(err error) *Fault {
	var reply *resp.ReplyError
	has := func(prefix string) bool { return goredis.HasErrorPrefix(err, prefix) }
	switch {
	case has("NOAUTH"):
		return &Fault{Reason: "password", Problem: "redis asks for a password and none is given", Advice: "give one in a password file or in the URL"}
	case has("AUTH <password> called without"), has("Client sent AUTH, but no password is set"):
		return &Fault{Reason: "password", Problem: "a password is given, but redis has none set", Advice: "set requirepass in redis, or remove the password here"}
	case goredis.IsAuthError(err), has("invalid password"), has("invalid username-password"):
		return &Fault{Reason: "password", Problem: "redis refuses user or password", Advice: "correct them here or, with ACL SETUSER, there"}
	case has("DENIED"):
		return &Fault{Reason: "protected", Problem: "redis is in protected mode and refuses other machines", Advice: "set a password or a bind address in redis"}
	case goredis.IsMaxClientsError(err):
		return &Fault{Reason: "full", Problem: "redis has no room for another connection", Advice: "raise maxclients in redis"}
	case has("This instance has cluster support disabled"):
		return &Fault{Reason: "cluster", Problem: "this redis is no node of a cluster", Advice: "redis:// instead of redis+cluster://?"}
	case has("MOVED "), has("ASK "):
		return &Fault{Reason: "cluster", Problem: "the key is on another node of the cluster", Advice: "use redis+cluster:// instead of redis://, or wait until the key's slot has moved"}
	case errors.As(err, &reply) && (has("unknown command") || has("unknown subcommand") || has("Unknown subcommand")):
		return &Fault{Reason: "command", Problem: "this server does not have the command " + reply.Command, Advice: "use Redis 6.2 or later, or Valkey, and allow the command there (rename-command)"}
	case goredis.IsLoadingError(err):
		return &Fault{Reason: "loading", Problem: "redis is loading its data", Advice: "nothing: trying again until it has"}
	}
	return &Fault{Reason: "error", Problem: "redis answers with an error", Advice: "see the error"}
}

// connFault is for what happens to a connection, or keeps it from being made.
func connFault(err error, live, unix bool) *Fault {
	var dns *net.DNSError
	var op *net.OpError
	dialling := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, errTLS):
		return tlsFault(err)
	case errors.As(err, &dns):
		return &Fault{Reason: "name", Problem: "the name of the redis host does not resolve", Advice: "correct the name, or mend the resolver"}
	case errors.Is(err, syscall.ECONNREFUSED), unix && errors.Is(err, os.ErrNotExist):
		return &Fault{Reason: "refused", Problem: "connection refused", Advice: "is redis running, and at this address?"}
	case errors.Is(err, os.ErrPermission):
		return &Fault{Reason: "refused", Problem: "no permission to connect", Advice: "set unixsocketperm in redis, or mend the firewall"}
	case dialling:
		return &Fault{Reason: "unreachable", Problem: "the redis host cannot be reached", Advice: "is it up, and does a firewall stand between?"}
	case IsTimeout(err):
		silent := *FaultSilent // what it is given is its own
		return &silent
	case live && IsHangUp(err):
		return &Fault{Reason: "closed", Problem: "redis closed the connection", Advice: "was it restarted, CLIENT KILL used, or client-output-buffer-limit pubsub exceeded?"}
	case IsHangUp(err):
		return &Fault{Reason: "closed", Problem: "the connection was closed before redis answered", Advice: "does this port expect TLS (rediss://), or is it not redis?"}
	}
	return &Fault{Reason: "error", Problem: "the connection failed", Advice: "see the error"}
}

func tlsFault(err error) *Fault {
	var (
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
	)
	f := &Fault{Reason: "tls", Problem: "the TLS handshake failed", Advice: "see the error"}
	switch {
	case errors.As(err, &plain):
		f.Advice = "the port does not speak TLS: redis:// instead of rediss://?"
	case errors.As(err, &authority):
		f.Advice = "the certificate's authority is unknown: name its CA file"
	case errors.As(err, &name):
		f.Advice = "the certificate is for another name: use that name in the URL"
	case IsTimeout(err):
		f.Advice = "no answer came: does the port speak TLS?"
	}
	return f
}

// IsTimeout reports whether something did not happen in time.
func IsTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// IsHangUp reports whether the other end closed the connection, or this one did.
func IsHangUp(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
