package topology

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
)

// A Fault describes why Redis cannot be used, and what to do. The texts of errors contain ports and names
// that may differ between attempts; Reason does not.
type Fault struct {
	Reason  string // one word, the same for the same cause
	Problem string // what happened
	Advice  string // what to do; "" if only the original error says it
	Err     error  // the original error, or nil
}

// Error is the text for people who cannot see the log: the problem, then what to do.
func (f *Fault) Error() string {
	if f.Advice == "" {
		return f.Text()
	}
	return f.Problem + "; " + f.Advice
}

// Text is the problem with the original error.
func (f *Fault) Text() string {
	switch {
	case f.Err == nil:
		return f.Problem
	case f.Advice == "":
		return f.Problem + ": " + Shown(f.Err)
	}
	return f.Problem + " (" + Shown(f.Err) + ")"
}

// maxShown is the maximum length of the text of an original error.
const maxShown = 200

// Shown returns the text of an error without the arguments of an unknown command, which Redis repeats, and without
// control characters.
func Shown(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args beginning with")
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func (f *Fault) Unwrap() error { return f.Err }

// Faults that are not derived from an error.
var (
	FaultUnresponsive = &Fault{Reason: "silent", Problem: "Redis does not respond", Advice: "check whether it is stalled, overloaded or unreachable"}
	FaultMoved        = &Fault{Reason: "moved", Problem: "the address now leads to another primary, or its role has changed", Advice: "no action needed, resubscribing"}
	FaultNoEcho       = &Fault{Reason: "moved", Problem: "messages published to this address do not reach the subscription", Advice: "no action needed, resubscribing"}
)

// newFault describes an error. known is true if the error is a Fault or a bad reply.
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

// BadReply returns the Fault of an invalid reply. what may contain types and lengths of the reply, but no
// content.
func BadReply(what string) *Fault {
	return &Fault{
		Reason:  "reply",
		Problem: "Redis sent an invalid reply",
		Advice:  "check that the address belongs to Redis and that no proxy alters replies; reconnecting",
		Err:     errors.New(what),
	}
}

// replyFault is for error replies.
func replyFault(err error) *Fault {
	var reply *resp.ReplyError
	has := func(prefix string) bool { return goredis.HasErrorPrefix(err, prefix) }
	switch {
	case has("NOAUTH"):
		return &Fault{Reason: "password", Problem: "Redis requires a password, but none is configured", Advice: "set --redis-password-file, or a password in the URL"}
	case has("AUTH <password> called without"), has("Client sent AUTH, but no password is set"):
		return &Fault{Reason: "password", Problem: "a password is configured, but Redis does not require one", Advice: "set requirepass in Redis, or remove the configured password; for a Sentinel, use redis+sentinel://"}
	case has("wrong number of arguments for 'auth'"):
		return &Fault{Reason: "password", Problem: "this server does not support user names", Advice: "remove the user from the URL, as in redis://:password@host"}
	case goredis.IsAuthError(err), has("invalid password"), has("invalid username-password"):
		return &Fault{Reason: "password", Problem: "Redis rejected the user or password", Advice: "correct the configured user and password, or change them in Redis with ACL SETUSER"}
	case has("CLUSTERDOWN"):
		return &Fault{Reason: "cluster", Problem: "the cluster is down, or a slot is not covered", Advice: "check CLUSTER INFO and CLUSTER NODES; retrying"}
	case has("DENIED"):
		return &Fault{Reason: "protected", Problem: "Redis is in protected mode and rejects other hosts", Advice: "set a password or a bind address in Redis"}
	case goredis.IsMaxClientsError(err):
		return &Fault{Reason: "full", Problem: "Redis has reached maxclients", Advice: "raise maxclients in Redis"}
	case has("This instance has cluster support disabled"):
		return &Fault{Reason: "cluster", Problem: "this Redis is not a cluster node", Advice: "use redis:// instead of redis+cluster://"}
	case has("MOVED "), has("ASK "):
		return &Fault{Reason: "cluster", Problem: "the key is on another node of the cluster", Advice: "use redis+cluster:// instead of redis://, or wait until the key's slot has moved"}
	case errors.As(err, &reply) && (has("unknown command") || has("unknown subcommand") || has("Unknown subcommand")):
		return &Fault{Reason: "command", Problem: "this server does not support the command " + reply.Command, Advice: "use Redis 6.2 or later, or Valkey, and check that rename-command does not disable the command"}
	case has("READONLY"):
		return &Fault{Reason: "error", Problem: "this server is a replica and rejects writes", Advice: "use the address of the primary"}
	case has("BUSY "):
		return &Fault{Reason: "busy", Problem: "Redis is running a long script", Advice: "wait until it ends, or stop it with SCRIPT KILL; retrying"}
	case has("OOM "), strings.Contains(err.Error(), "OOM command not allowed"): // the latter in a script
		return &Fault{Reason: "memory", Problem: "Redis has reached maxmemory and rejects writes", Advice: "raise maxmemory in Redis, or remove other data; retrying"}
	case goredis.IsLoadingError(err):
		return &Fault{Reason: "loading", Problem: "Redis is loading its dataset", Advice: "no action needed, retrying until it has finished"}
	}
	return &Fault{Reason: "error", Problem: "Redis returned an error"}
}

// connFault is for errors of a connection, or of making it.
func connFault(err error, live, unix bool) *Fault {
	var dns *net.DNSError
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, errSentinel):
		return &Fault{Reason: "sentinel", Problem: "this server is a Sentinel, not a Redis"}
	case errors.Is(err, errTLS):
		return tlsFault(err)
	case errors.As(err, &dns):
		return &Fault{Reason: "name", Problem: "the Redis host name does not resolve", Advice: "correct the name, or fix DNS resolution"}
	case unix && errors.Is(err, os.ErrNotExist):
		return &Fault{Reason: "refused", Problem: "the Redis socket does not exist", Advice: "check that Redis is running and that unixsocket in its configuration is this path"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Fault{Reason: "refused", Problem: "connection refused", Advice: "check that Redis is running and listens on this address"}
	case errors.Is(err, os.ErrPermission):
		return &Fault{Reason: "refused", Problem: "no permission to connect", Advice: "for a socket, set unixsocketperm in Redis; for TCP, check the firewall"}
	case dialing:
		return &Fault{Reason: "unreachable", Problem: "the Redis host is unreachable", Advice: "check that it is up and that no firewall blocks the connection"}
	case IsTimeout(err):
		unresponsive := *FaultUnresponsive // a copy, because the caller sets Err
		return &unresponsive
	case live && IsHangUp(err):
		return &Fault{Reason: "closed", Problem: "Redis closed the connection", Advice: "check for a restart, CLIENT KILL, or an exceeded client-output-buffer-limit pubsub"}
	case IsHangUp(err):
		return &Fault{Reason: "closed", Problem: "the connection was closed before Redis replied", Advice: "check that the port belongs to Redis, not to a proxy without pub/sub; if it expects TLS, use rediss://"}
	}
	return &Fault{Reason: "error", Problem: "the connection failed"}
}

func tlsFault(err error) *Fault {
	var (
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		client    *errClientCertificate
	)
	f := &Fault{Reason: "tls", Problem: "the TLS handshake failed"}
	switch {
	case errors.As(err, &client) && client.sent != nil && client.sent.Leaf != nil && time.Now().After(client.sent.Leaf.NotAfter):
		f.Problem = "the server rejected the client certificate, which expired on " + client.sent.Leaf.NotAfter.Format(time.DateOnly)
		f.Advice = "renew the files in --redis-tls-cert and --redis-tls-key; the hub reads them again at the next attempt"
	case errors.As(err, &client) && client.sent != nil:
		f.Problem, f.Advice = "the server rejected the client certificate", "set --redis-tls-cert and --redis-tls-key to a certificate that is valid and signed by a CA that the server trusts (tls-ca-cert-file in Redis)"
	case errors.As(err, &client):
		f.Problem, f.Advice = "the server requires a client certificate", "set --redis-tls-cert and --redis-tls-key, or tls-auth-clients no in Redis"
	case errors.As(err, &plain):
		f.Problem, f.Advice = "the port does not use TLS", "use redis:// instead of rediss://"
	case errors.As(err, &authority):
		f.Problem, f.Advice = "the certificate of the server is signed by an unknown CA", "set --redis-tls-ca to the file with the CA certificate; for a self-signed certificate that changes, append ?skip_verify=true to the URL"
	case errors.As(err, &name):
		f.Problem, f.Advice = "the certificate of the server is for another host name", "use that name in the URL"
		if names := certificateNames(name.Certificate); names != "" {
			f.Problem += " (" + names + ")"
		} else {
			f.Problem = "the certificate of the server does not contain a host name (subjectAltName)"
			f.Advice = "issue a certificate with its host name, or append ?skip_verify=true to the URL"
		}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Problem, f.Advice = "the certificate of the server has expired or is not valid yet", "renew it, and check the clocks of both hosts"
	case IsTimeout(err):
		f.Problem, f.Advice = "the TLS handshake timed out", "check that the port uses TLS"
	}
	return f
}

// certificateNames lists the hosts for which a certificate is valid.
func certificateNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return Shown(errors.New(strings.Join(names, ", ")))
}

// announcedError is an error of a connection to an address that is not in the URL, but announced by the Sentinels
// or the cluster.
type announcedError struct {
	addr string
	err  error
}

func (e *announcedError) Error() string { return e.err.Error() }
func (e *announcedError) Unwrap() error { return e.err }

// advise adapts the text of a fault to the URL of the server.
func (s *Server) advise(f *Fault, err error) {
	var (
		announced *announcedError
		plain     tls.RecordHeaderError
		name      x509.HostnameError
	)
	scheme := ""
	switch {
	case s.sentinels != nil:
		scheme = "+sentinel"
	case s.cluster != nil:
		scheme = "+cluster"
	}
	switch {
	case errors.Is(err, errSentinel):
		f.Advice = "use " + s.sentinelURL()
	case f.Reason == "password" && acl.IsReply(err) && s.login.user != "" && goredis.IsAuthError(err):
		f.Advice = "correct them; if the URL of a service contains a user that Redis does not know, remove it, as in redis://:password@host"
	case errors.As(err, &plain):
		f.Advice = "use redis" + scheme + ":// instead of rediss" + scheme + "://"
		if s.cluster != nil {
			f.Advice += "; if only the announced ports do not use TLS, set tls-cluster yes in Redis"
		}
	case f.Reason == "cluster" && s.tls != nil:
		f.Advice = strings.Replace(strings.Replace(f.Advice, "redis://", "rediss://", 1), "redis+cluster://", "rediss+cluster://", 1)
	case f.Reason == "closed" && s.tls != nil:
		f.Advice, _, _ = strings.Cut(f.Advice, "; if it expects TLS")
	case f.Reason == "closed" && scheme != "":
		f.Advice = strings.Replace(f.Advice, "rediss://", "rediss"+scheme+"://", 1)
	}
	if s.passwordFile && goredis.IsAuthError(err) && !goredis.HasErrorPrefix(err, "NOAUTH") {
		f.Advice += "; a running hub reads --redis-password-file again after SIGHUP or with --reload-every"
	}
	if !errors.As(err, &announced) {
		return
	}
	source, address, hostName := "the cluster announces", "cluster-announce-ip or cluster-announce-hostname in Redis", "cluster-announce-hostname in Redis"
	if s.sentinels != nil {
		source, address = "the Sentinels report for the primary", "replica-announce-ip in Redis and the address in sentinel monitor"
		hostName = "replica-announce-ip in Redis, and sentinel resolve-hostnames yes and sentinel announce-hostnames yes in the Sentinels"
	}
	switch {
	case errors.As(err, &name):
		f.Problem = "the certificate of the server is not for the address " + announced.addr + ", which " + source
		f.Advice = "announce the host name of the certificate: set " + hostName
	case f.Reason == "name", f.Reason == "unreachable", f.Reason == "refused":
		f.Problem += ": " + announced.addr + ", which " + source
		f.Advice = "check that it is up; if this host cannot reach that address, set " + address
	case errors.Is(err, errTLS):
		f.Problem += ": " + announced.addr + ", which " + source
		if IsTimeout(err) && s.sentinels != nil {
			f.Advice += "; if it does not, use redis+sentinel://"
		}
	}
}

// sentinelURL returns the URL to use if the servers in the current one are Sentinels.
func (s *Server) sentinelURL() string {
	addrs := []string{s.addr}
	if s.cluster != nil {
		addrs = s.cluster.seeds
	}
	return s.scheme() + "+sentinel://" + strings.Join(addrs, ",") + "/NAME with the name of the primary, which SENTINEL MASTERS lists"
}

// IsTimeout reports whether err is a timeout.
func IsTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// IsHangUp reports whether err means that either end has closed the connection.
func IsHangUp(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
