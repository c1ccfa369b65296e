package check

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dustin/go-humanize/english"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
)

// inspectGroups reports the groups of the stream at --url, if groups are enabled. id is the identity of its
// user, or the zero value if the user is not known.
func (c *Check) inspectGroups(ctx context.Context, id auth.Identity, report finding.Report) {
	const name = "url-groups"
	switch {
	case c.GroupPrefix == "":
	case c.Auth == app.AuthHeader:
		switch c.passesOnGroups(ctx) {
		case yes:
			report.Fail(name, "let the proxy remove "+auth.GroupsHeader+" from requests, or set it in each request", "the proxy passes on %s of the browser: a browser can choose its groups", auth.GroupsHeader)
		case no:
			report.OK(name, "the proxy does not pass on %s of the browser", auth.GroupsHeader)
		}
	case id.User == "" || c.User != "": // not known
	case len(id.Groups) == 0:
		source := map[string]string{
			app.AuthForward:  "let the session check set " + auth.GroupsHeader,
			app.AuthJWT:      "set --jwt-groups-claim to the claim with the groups",
			app.AuthInsecure: "use --url …&group=<group>",
		}[c.Auth]
		report.Note(name, "if the user should be a member of a group, "+source, "the user of this stream is not a member of any group")
	default:
		report.OK(name, "the user of this stream is a member of %s: %s", english.Plural(len(id.Groups), "group", ""), listed(id.Groups))
	}
}

// listed returns the first of the names, quoted.
func listed(names []string) string {
	const most = 5
	var b strings.Builder
	for i, name := range names[:min(len(names), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%.100q", name)
	}
	if len(names) > most {
		b.WriteString(", …")
	}
	return b.String()
}

// A verdict is the result of an experiment.
type verdict int

const (
	unclear verdict = iota
	yes
	no
)

// passesOnGroups sends a request with a group that the hub rejects, and reports whether the hub received that group. This
// is unclear if the request is not that of a browser, or is rejected for another reason.
func (c *Check) passesOnGroups(ctx context.Context) verdict {
	if len(c.header.Values(c.UserHeader)) > 0 {
		return unclear
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout.T)
	defer cancel()
	r := (&http.Request{Method: http.MethodGet, URL: c.target, Header: c.header.Clone()}).WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set(auth.GroupsHeader, "*")
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", proxypath.UserAgent)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return unclear
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(io.LimitReader(resp.Body, 4<<10)); lines.Scan(); {
		switch text := lines.Text(); {
		case resp.StatusCode == http.StatusOK && text == "event: ping": // in the opening block; a temporary rejection has another event
			return no
		case resp.StatusCode != http.StatusOK && (strings.Contains(text, "invalid group") || strings.Contains(text, auth.GroupsHeader)):
			return yes
		}
	}
	return unclear
}
