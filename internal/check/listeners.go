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
)

// inspectListeners reports risks of who can connect to which listener.
func inspectListeners(c *app.HubConfig, report finding.Report) {
	if path.Clean(c.Path) != strings.TrimSuffix(c.Path, "/") {
		report.Warn("config-path", "--path "+path.Clean(c.Path), "--path %s: browsers and proxies ask for %s instead", c.Path, path.Clean(c.Path))
	}
	if len(c.AllowOrigin) > 0 {
		report.Note("config-origins", "serve pages and streams from one origin, through a proxy, or let pages open a closed stream again: docs/quickstart.md, Keep the stream open",
			"with pages of another origin (--allow-origin), Firefox closes an EventSource permanently when a reconnect is refused, as during a restart of the hub")
	}
	if c.AdminTokenFile == "" && !flags.IsLoopback(c.AdminListen) {
		report.Note("config-admin", "--admin-token-file, and no way there from the net", "%s (--admin-listen) is open to other machines: they see metrics, and without a token none of them may use the API", c.AdminListen)
	}
	if c.TLSCert != "" {
		inspectCertificate(c, report)
	}
}

// expiresSoon is how long before its end a certificate is reported: renewals are earlier.
const expiresSoon = 14 * 24 * time.Hour

func inspectCertificate(c *app.HubConfig, report finding.Report) {
	pair, err := app.LoadCertificate(c.TLSCert, c.TLSKey)
	if err != nil || pair.Leaf == nil {
		return // an error, and reported
	}
	switch end := pair.Leaf.NotAfter; {
	case time.Now().After(end):
		report.Fail("config-certificate", "renew it; the hub reads the files again by itself", "the certificate of --tls-cert ran out on %s", end.Format(time.DateOnly))
	case time.Until(end) < expiresSoon:
		report.Warn("config-certificate", "renew it; the hub reads the files again by itself", "the certificate of --tls-cert runs out on %s", end.Format(time.DateOnly))
	default:
		report.OK("config-certificate", "the certificate of --tls-cert is good until %s", end.Format(time.DateOnly))
	}
}

// inspectPorts reports whether the hub could listen, or already does.
func inspectPorts(c *app.HubConfig, report finding.Report) {
	inspectPort(report, "listen", c.Listen, c.Scheme())
	inspectPort(report, "admin-listen", c.AdminListen, "http")
}

func inspectPort(report finding.Report, flag, address, scheme string) {
	if strings.HasSuffix(address, ":0") {
		return // any free port
	}
	listener, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		_ = listener.Close()
		report.OK("config-port", "%s is free (--%s)", address, flag)
	case errors.Is(err, syscall.EADDRINUSE) && isHub(scheme, flags.Dialable(address)):
		report.OK("config-port", "a hub is running at %s (--%s)", address, flag)
	case errors.As(err, new(*net.AddrError)), errors.As(err, new(net.UnknownNetworkError)):
		// an error, and reported
	default:
		report.Fail("config-port", "stop what listens there, or give another address", "%v", app.ListenError(flag, address, err))
	}
}

// isHub reports whether what listens there is a hub that is alive.
func isHub(scheme, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/livez", nil)
	if err != nil {
		return false
	}
	// The certificate is for the name that browsers use, and nothing secret is sent to the peer.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 16))
	return err == nil && answer.StatusCode == http.StatusOK && string(body) == "ok\n"
}
