package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// A Reason is why a stream failed to open or ended early. Reasons are keys in the report. A Reason is also an error.
type Reason string

// Reasons of connections. Others are made by the functions below.
const (
	reasonClosed      Reason = "closed by the server"
	reasonReset       Reason = "connection reset"
	reasonRefused     Reason = "connection refused"
	reasonFailed      Reason = "connection failed"
	reasonTimeout     Reason = "timeout"
	reasonPorts       Reason = "out of local ports"
	reasonDescriptors Reason = "out of file descriptors"

	reasonUnknownCA   Reason = "certificate signed by unknown authority"
	reasonWrongName   Reason = "certificate for another name"
	reasonCertificate Reason = "certificate not valid"

	reasonNoTLS            Reason = "server does not use TLS"
	reasonNoHTTP1          Reason = "server does not support HTTP/1.1"
	reasonNoHTTP2          Reason = "server does not support HTTP/2"
	reasonNoCleartextHTTP2 Reason = "server does not support cleartext HTTP/2"
	reasonNotHTTP          Reason = "response is not HTTP"
	reasonNotStream        Reason = "response is not an event stream"
)

// statusReason is the reason for a response with another status than 200.
func statusReason(code int) Reason { return Reason(fmt.Sprintf("status %d", code)) }

// busyReason is the reason for a stream that the hub rejects with the event busy.
func busyReason(reason string) Reason { return Reason("busy: " + reason) }

// byeReason is the reason for a stream that the hub ends with the event bye.
func byeReason(reason string) Reason { return Reason("bye: " + reason) }

// noResponse is the reason for a request whose connection ends before the response.
func noResponse(r Reason) Reason { return "no response: " + r }

// advice is what to do about streams that fail to open.
var advice = map[Reason]string{
	busyReason("user-limit"): "start the hub with --max-clients-per-user 0, or use more --users",
	busyReason("clients"):    "the hub is at capacity: raise its --max-clients or its limit of file descriptors",
	reasonRefused:            "check that a hub is listening on this address",
	reasonPorts:              "add --from 127.0.0.1 --from 127.0.0.2, or use --http2",
	reasonDescriptors:        "raise the limit (ulimit -n), open fewer streams, or use --http2",
	reasonNoTLS:              "use http://",
	reasonNoCleartextHTTP2:   "use https://, or omit --http2",
	reasonUnknownCA:          "set SSL_CERT_FILE to the PEM file of the CA, or use --insecure",
	reasonWrongName:          "use the name in the certificate in --url, or use --insecure",
	reasonNotStream:          "check that --url is the URL of the stream",

	statusReason(401): "pass credentials with --header, with {user} in the value",
	statusReason(404): "check that --url is the URL of the stream",
}

func (r Reason) Error() string { return string(r) }

// reasonFor returns the reason for an error of a connection.
func reasonFor(err error) Reason {
	var reason Reason
	switch {
	case errors.As(err, &reason):
		return reason
	case errors.Is(err, io.EOF):
		return reasonClosed
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return reasonReset
	case errors.Is(err, syscall.ECONNREFUSED):
		return reasonRefused
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return reasonPorts
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return reasonDescriptors
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return reasonTimeout
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return reasonUnknownCA
	case errors.As(err, new(x509.HostnameError)):
		return reasonWrongName
	case errors.As(err, new(x509.CertificateInvalidError)):
		return reasonCertificate
	case errors.As(err, new(tls.RecordHeaderError)):
		return reasonNoTLS
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return Reason("TLS alert: " + strings.TrimPrefix(op.Err.Error(), "tls: "))
	}
	return reasonFailed
}
