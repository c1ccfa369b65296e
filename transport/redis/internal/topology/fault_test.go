package topology

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"usercast/transport/redis/internal/resp"
)

func TestFaultTexts(t *testing.T) {
	t.Parallel()
	tcp, err := Parse("redis://127.0.0.1:6379", Options{})
	if err != nil {
		t.Fatal(err)
	}
	unix, err := Parse("unix:///nope.sock", Options{})
	if err != nil {
		t.Fatal(err)
	}
	named, cluster := parse(t, "redis://h:secret@host", Options{}), parse(t, "rediss+cluster://h1,h2", Options{})
	reply := func(text string) error { return &resp.ReplyError{Command: "PUBLISH", Text: text} }
	for _, c := range []struct {
		server      *Server
		err         error
		error, text string
	}{
		{tcp, reply("READONLY You can't write against a read only replica."),
			"this server is a replica and rejects writes; use the address of the primary",
			"this server is a replica and rejects writes (READONLY You can't write against a read only replica.)"},
		{tcp, reply("MISCONF Redis is configured to save"), "Redis returned an error: MISCONF Redis is configured to save", "Redis returned an error: MISCONF Redis is configured to save"},
		{tcp, reply("OOM command not allowed when used memory > 'maxmemory'."), "Redis has reached maxmemory and rejects writes; raise maxmemory in Redis, or remove other data; retrying", ""},
		{tcp, reply("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'."),
			"Redis has reached maxmemory and rejects writes; raise maxmemory in Redis, or remove other data; retrying", ""},
		{tcp, reply("ODD \x1b[31m" + strings.Repeat("é", 200)), "Redis returned an error: ODD \uFFFD[31m" + strings.Repeat("é", 95) + "…", ""},
		{tcp, syscall.ECONNREFUSED, "connection refused; check that Redis is running and listens on this address", "connection refused (connection refused)"},
		{unix, os.ErrNotExist, "the Redis socket does not exist; check that Redis is running and that unixsocket in its configuration is this path", ""},
		{named, reply("WRONGPASS invalid username-password pair or user is disabled."),
			"Redis rejected the user or password; correct them; if the URL of a service contains a user that Redis does not know, remove it, as in redis://:password@host", ""},
		{parse(t, "redis://host", Options{Password: "secret"}), reply("WRONGPASS invalid username-password pair or user is disabled."),
			"Redis rejected the user or password; correct the configured user and password, or change them in Redis with ACL SETUSER; a running hub reads --redis-password-file again after SIGHUP or with --reload-every", ""},
		{tcp, reply("CLUSTERDOWN The cluster is down"), "the cluster is down, or a slot is not covered; check CLUSTER INFO and CLUSTER NODES; retrying", ""},
		{parse(t, "rediss+sentinel://host/main", Options{}), &announcedError{"10.0.0.7:6379", fmt.Errorf("%w: %w", errTLS, os.ErrDeadlineExceeded)},
			"the TLS handshake timed out: 10.0.0.7:6379, which the Sentinels report for the primary; check that the port uses TLS; if it does not, use redis+sentinel://", ""},
		{parse(t, "rediss+sentinel://host/main", Options{}), &announcedError{"10.0.0.7:6379", fmt.Errorf("%w: %w", errTLS, x509.UnknownAuthorityError{})},
			"the certificate of the server is signed by an unknown CA: 10.0.0.7:6379, which the Sentinels report for the primary; set --redis-tls-ca to the file with the CA certificate; for a self-signed certificate that changes, append ?skip_verify=true to the URL", ""},
		{named, reply("ERR wrong number of arguments for 'auth' command"),
			"this server does not support user names; remove the user from the URL, as in redis://:password@host", ""},
		{tcp, io.EOF, "the connection was closed before Redis replied; check that the port belongs to Redis, not to a proxy without pub/sub; if it expects TLS, use rediss://", ""},
		{cluster, io.EOF, "the connection was closed before Redis replied; check that the port belongs to Redis, not to a proxy without pub/sub", ""},
		{cluster, reply("ERR This instance has cluster support disabled"), "this Redis is not a cluster node; use rediss:// instead of rediss+cluster://", ""},
		{cluster, fmt.Errorf("%w: %w", errTLS, tls.RecordHeaderError{Msg: "odd"}),
			"the port does not use TLS; use redis+cluster:// instead of rediss+cluster://; if only the announced ports do not use TLS, set tls-cluster yes in Redis", ""},
		{cluster, &announcedError{"10.0.0.7:6379", syscall.ECONNREFUSED},
			"connection refused: 10.0.0.7:6379, which the cluster announces; check that it is up; if this host cannot reach that address, set cluster-announce-ip or cluster-announce-hostname in Redis", ""},
		{cluster, &announcedError{"10.0.0.7:6379", fmt.Errorf("%w: %w", errTLS, x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}}, Host: "10.0.0.7"})},
			"the certificate of the server is not for the address 10.0.0.7:6379, which the cluster announces; announce the host name of the certificate: set cluster-announce-hostname in Redis", ""},
		{cluster, fmt.Errorf("%w: %w", errTLS, x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 7)}}, Host: "h"}),
			"the certificate of the server is for another host name (a.example, 10.0.0.7); use that name in the URL", ""},
		{cluster, fmt.Errorf("%w: %w", errTLS, x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}),
			"the certificate of the server does not contain a host name (subjectAltName); issue a certificate with its host name, or append ?skip_verify=true to the URL", ""},
		{cluster, fmt.Errorf("%w: %w", errTLS, x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}),
			"the certificate of the server has expired or is not valid yet; renew it, and check the clocks of both hosts", ""},
		{tcp, errors.New("odd"), "the connection failed: odd", "the connection failed: odd"},
	} {
		f := c.server.Fault(c.err, false)
		if got := f.Error(); got != c.error {
			t.Errorf("error of %v: %q, want %q", c.err, got, c.error)
		}
		if got := f.Text(); c.text != "" && got != c.text {
			t.Errorf("text of %v: %q, want %q", c.err, got, c.text)
		}
	}
}
