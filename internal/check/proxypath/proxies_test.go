package proxypath_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
	"usercast/internal/proxytest"
)

const (
	often  = 500 * time.Millisecond // pings
	rarely = 10 * time.Second
)

// nginx wraps the lines of a location in a server; what is above it in the file is before.
func nginx(before, location string) func(*testing.T, string) string {
	return func(t *testing.T, hub string) string {
		return proxytest.Nginx(t, before+`
server {
    listen `+proxytest.Listen+`;
    location = /events {
        proxy_set_header Host $http_host;
        `+strings.ReplaceAll(location, "{hub}", hub)+`
    }
}`)
	}
}

func caddy(options, site string) func(*testing.T, string) string {
	return func(t *testing.T, hub string) string {
		return proxytest.Caddy(t, options+"http://"+proxytest.Listen+" {\n"+strings.ReplaceAll(site, "{hub}", hub)+"\n}\n")
	}
}

func haproxy(defaults, backend string) func(*testing.T, string) string {
	return func(t *testing.T, hub string) string {
		return proxytest.HAProxy(t, `
defaults
    mode http
    timeout connect 5s
`+defaults+`
frontend web
    bind `+proxytest.Listen+`
    default_backend usercast
backend usercast
`+backend+`
    server hub `+hub+`
`)
	}
}

const patientHAProxy = "timeout client 60s\ntimeout server 60s\noption abortonclose\n"

// Right and wrong settings of real proxies, and what is said of them.
func TestProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	// Looked at all at once: it is waiting for the most part.
	var looking sync.WaitGroup
	found := make(map[string]*findings)
	cases := map[string]struct {
		proxy func(*testing.T, string) string
		ping  time.Duration
		want  func(*testing.T, findings)
	}{
		"none": {func(_ *testing.T, hub string) string { return hub }, often, good},

		"nginx, right":                {nginx("", "proxy_pass http://{hub};"), often, good},
		"nginx, buffering":            {nginx("", "proxy_pass http://{hub}; proxy_ignore_headers X-Accel-Buffering;"), often, says(finding.Fail, "url-buffered", "proxy_buffering off")},
		"nginx, buffering to the end": {nginx("", "proxy_pass http://{hub}; proxy_ignore_headers X-Accel-Buffering; proxy_read_timeout 2200ms;"), rarely, says(finding.Fail, "url-buffered", "when it was over")},
		"nginx, gzip":                 {nginx("gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;", "proxy_pass http://{hub};"), often, says(finding.Fail, "url-compressed", "gzip off")},
		"nginx, idle timeout":         {nginx("", "proxy_pass http://{hub}; proxy_read_timeout 1s;"), rarely, says(finding.Fail, "url-idle-cut", "of silence")},
		"nginx, other path":           {nginx("", "proxy_pass http://{hub}/stream;"), often, says(finding.Fail, "url-path", "proxy_pass")},
		"nginx, no rule":              {nginx("", "return 404;"), often, says(finding.Fail, "url-path", "leads elsewhere")},
		"nginx, no hub":               {nginx("", "proxy_pass http://127.0.0.1:1;"), often, says(finding.Fail, "url-no-hub", "502")},
		"nginx, away answer":          {nginx("", `default_type text/event-stream; add_header Cache-Control "no-store, no-transform"; return 200 "retry: 3000\n\n";`), often, says(finding.Fail, "url-no-hub", "answers for the hub")},
		"nginx, expires":              {nginx("", "proxy_pass http://{hub}; proxy_hide_header Cache-Control; expires 1h;"), often, says(finding.Warn, "url-headers", "Cache-Control")},
		"nginx, page":                 {nginx("", `default_type text/html; return 200 "<p>hello";`), often, says(finding.Fail, "url-no-hub", "HTML")},
		"nginx, other type":           {nginx("", `proxy_pass http://{hub}; proxy_hide_header Content-Type; add_header Content-Type text/plain;`), often, says(finding.Fail, "url-content-type", "text/plain")},
		"nginx, redirect":             {nginx("", "return 301 https://$http_host$request_uri;"), often, says(finding.Fail, "url-redirect", "elsewhere")},
		"nginx, redirect to itself":   {nginx("", "return 302 http://$http_host$request_uri;"), often, says(finding.Fail, "url-redirect", "goes round")},
		"nginx, log-in page":          {nginx("", "return 302 /login;"), often, says(finding.Fail, "url-redirect", "log-in page")},

		"caddy, right":       {caddy("", "reverse_proxy {hub}"), often, good},
		"caddy, encode gzip": {caddy("", "encode gzip\nreverse_proxy {hub}"), often, good}, // heeds no-transform
		"caddy, buffering":   {caddy("", "reverse_proxy {hub} {\nbuffer_responses\n}"), often, says(finding.Fail, "url-buffered", "buffer_responses")},
		"caddy, age":         {caddy("{\nservers {\ntimeouts {\nwrite 2s\n}\n}\n}\n", "reverse_proxy {hub}"), often, says(finding.Fail, "url-age-cut", "write timeout")},
		"caddy, idle":        {caddy("", "reverse_proxy {hub} {\ntransport http {\nread_timeout 1s\n}\n}"), rarely, says(finding.Fail, "url-idle-cut", "read_timeout")},

		"haproxy, right":           {haproxy(patientHAProxy, ""), often, good},
		"haproxy, buffers request": {haproxy(patientHAProxy+"option http-buffer-request\n", ""), often, good},                             // which has no body
		"haproxy, compression":     {haproxy(patientHAProxy, "compression algo gzip\ncompression type text/event-stream\n"), often, good}, // heeds no-transform
		"haproxy, no abortonclose": {haproxy("timeout client 60s\ntimeout server 60s\n", ""), rarely, says(finding.Warn, "url-leave", "option abortonclose")},
		"haproxy, server timeout":  {haproxy("timeout client 60s\ntimeout server 1s\n", ""), rarely, says(finding.Fail, "url-idle-cut", "timeout server")},
		"haproxy, client timeout":  {haproxy("timeout client 1s\ntimeout server 60s\noption abortonclose\n", ""), often, good}, // alone it cuts nothing
	}
	for name, c := range cases {
		site := newSite(t, c.ping)
		addr := c.proxy(t, site.addr)
		f := new(findings)
		found[name] = f
		looking.Go(func() {
			*f = site.look(t, "http://"+addr+"/events?user=42", func(u *proxypath.Target) {
				u.Timeout = 3 * time.Second // what is held back is waited for so long
				u.Watch = 3 * time.Second   // what is to cut, has by then
			})
		})
	}
	looking.Wait()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.want(t, *found[name]) })
	}
}

func good(t *testing.T, f findings) { f.wantGood(t) }

func says(level finding.Level, name, text string) func(*testing.T, findings) {
	return func(t *testing.T, f findings) { f.want(t, level, name, text) }
}
