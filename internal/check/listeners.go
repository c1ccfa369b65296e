package check

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"syscall"
	"time"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
)

// inspectListeners reports risks of the public and the admin listener.
func inspectListeners(c *app.HubConfig, report finding.Report) {
	if path.Clean(c.Path) != strings.TrimSuffix(c.Path, "/") {
		report.Warn("config-path", "use --path "+path.Clean(c.Path), "--path %s: browsers and proxies request %s instead", c.Path, path.Clean(c.Path))
	}
	if len(c.AllowOrigin) > 0 {
		report.Note("config-origins", "serve pages and streams from one origin, through a proxy, or reopen closed streams in the page (docs/quickstart.md, Keep the stream open)",
			"for pages of another origin (--allow-origin), Firefox closes an EventSource permanently if a reconnect is refused, for example during a restart of the hub")
	}
	if c.AdminTokenFile == "" && !flags.IsLoopback(c.AdminListen) {
		access := "they can read metrics, but without a token they cannot use the API"
		if c.APITokenFile != "" {
			access = "they can read metrics, but not use the console, and of the API only what --api-token-file allows"
		}
		report.Note("config-admin", "set --admin-token-file, and block access from the internet",
			"%s (--admin-listen) is reachable from other hosts: %s", c.AdminListen, access)
	}
	if c.AdminTokenFile != "" && c.APITokenFile != "" {
		all, _ := flags.ReadToken(c.AdminTokenFile) // Config.Check reports errors
		apps, err := flags.ReadToken(c.APITokenFile)
		if err == nil && apps == all {
			report.Warn("config-tokens", "put another token into the file of --api-token-file",
				"--api-token-file and --admin-token-file contain the same token: apps can use the whole admin listener")
		}
	}
	inspectCertificate("tls-cert", c.TLSCert, c.TLSKey, report)
	inspectCertificate("redis-tls-cert", c.RedisTLSCert, c.RedisTLSKey, report)
}

// expiresSoon is how long before it expires a certificate is reported. Automatic renewals happen earlier.
const expiresSoon = 14 * 24 * time.Hour

// inspectCertificate reports until when the certificate in the file of a flag is valid. The files may be "".
func inspectCertificate(flag, certFile, keyFile string, report finding.Report) {
	pair, err := app.LoadCertificate(certFile, keyFile)
	if err != nil || pair.Leaf == nil {
		return // not set, or an error that inspectConfig has reported
	}
	switch end := pair.Leaf.NotAfter; {
	case time.Now().After(end):
		report.Fail("config-certificate", "renew it; the hub reloads the files automatically", "the certificate in --%s expired on %s", flag, end.Format(time.DateOnly))
	case time.Until(end) < expiresSoon:
		report.Warn("config-certificate", "renew it; the hub reloads the files automatically", "the certificate in --%s expires on %s", flag, end.Format(time.DateOnly))
	default:
		report.OK("config-certificate", "the certificate in --%s is valid until %s", flag, end.Format(time.DateOnly))
	}
}

// inspectPorts reports whether the ports are free or a hub is already listening on them.
func inspectPorts(c *app.HubConfig, report finding.Report) {
	inspectPort(report, "listen", c.Listen, c.Scheme())
	inspectPort(report, "admin-listen", c.AdminListen, "http")
}

func inspectPort(report finding.Report, flag, address, scheme string) {
	if strings.HasSuffix(address, ":0") || address == systemd.Address {
		return // any free port, or opened by the service manager
	}
	var listener net.Listener
	var err error
	fix := "stop the process that uses the port, or set another address"
	if path := unixsocket.Path(address); path == "" {
		listener, err = net.Listen("tcp", address)
	} else {
		if stale, _ := unixsocket.IsStale(context.Background(), path); stale { // Listen would remove it
			report.OK("config-port", "%s is the socket of a process that no longer runs, and the hub replaces it (--%s)", address, flag)
			return
		}
		listener, err = unixsocket.Listen(context.Background(), unixsocket.Address{Path: path, Mode: 0o600})
		if !errors.Is(err, unixsocket.ErrInUse) {
			fix = "correct the path of the socket, or what is in the way there"
		}
	}
	switch {
	case err == nil:
		_ = listener.Close()
		report.OK("config-port", "%s is free (--%s)", address, flag)
	case (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, unixsocket.ErrInUse)) && isHub(scheme, address):
		report.OK("config-port", "a hub is running at %s (--%s)", address, flag)
	case errors.As(err, new(*net.AddrError)), errors.As(err, new(net.UnknownNetworkError)):
		// an error that inspectConfig has reported
	default:
		report.Fail("config-port", fix, "%v", app.ListenError(flag, address, err))
	}
}

// isHub reports whether a running hub listens on address.
func isHub(scheme, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	client, host := flags.Client(address)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/livez", nil)
	if err != nil {
		return false
	}
	// The certificate is for the name that browsers use. It is not verified, because the request contains nothing secret.
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 16))
	return err == nil && answer.StatusCode == http.StatusOK && string(body) == "ok\n"
}
