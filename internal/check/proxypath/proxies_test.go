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
	often  = 500 * time.Millisecond // ping interval
	rarely = 10 * time.Second
)

// nginx returns a server with these lines in its location. The lines of before precede the server.
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

func apache(directives string) func(*testing.T, string) string {
	return func(t *testing.T, hub string) string {
		return proxytest.Apache(t, "<VirtualHost *>\nProxyPreserveHost On\nProxyPass /events http://"+hub+"/events\n"+directives+"\n</VirtualHost>\n")
	}
}

func lighttpd(settings string) func(*testing.T, string) string {
	return func(t *testing.T, hub string) string {
		host, port, _ := strings.Cut(hub, ":")
		return proxytest.Lighttpd(t, "", nil, settings+"\nproxy.server = ( \"\" => (( \"host\" => \""+host+"\", \"port\" => "+port+" )) )\n")
	}
}

const patientHAProxy = "timeout client 60s\ntimeout server 60s\noption abortonclose\n"

// Right and wrong settings of real proxies, and the findings about them.
func TestProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	// Inspections run concurrently because they mostly wait.
	var inspections sync.WaitGroup
	found := make(map[string]*findings)
	cases := map[string]struct {
		proxy func(*testing.T, string) string
		ping  time.Duration
		want  func(*testing.T, findings)
	}{
		"none": {func(_ *testing.T, hub string) string { return hub }, often, good},

		"nginx, right":                {nginx("", "proxy_pass http://{hub};"), often, good},
		"nginx, buffering":            {nginx("", "proxy_pass http://{hub}; proxy_ignore_headers X-Accel-Buffering;"), often, finds(finding.Fail, "url-buffered", "proxy_buffering off")},
		"nginx, buffering to the end": {nginx("", "proxy_pass http://{hub}; proxy_ignore_headers X-Accel-Buffering; proxy_read_timeout 2200ms;"), rarely, finds(finding.Fail, "url-buffered", "already ended")},
		"nginx, gzip":                 {nginx("gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;", "proxy_pass http://{hub};"), often, finds(finding.Fail, "url-compressed", "gzip off")},
		"nginx, idle timeout":         {nginx("", "proxy_pass http://{hub}; proxy_read_timeout 1s;"), rarely, finds(finding.Fail, "url-idle-cut", "without traffic")},
		"nginx, other path":           {nginx("", "proxy_pass http://{hub}/stream;"), often, finds(finding.Fail, "url-path", "proxy_pass")},
		"nginx, no rule":              {nginx("", "return 404;"), often, finds(finding.Fail, "url-path", "not routed to the hub")},
		"nginx, no hub":               {nginx("", "proxy_pass http://127.0.0.1:1;"), often, finds(finding.Fail, "url-no-hub", "502")},
		"nginx, fallback":             {nginx("", `default_type text/event-stream; add_header Cache-Control "no-store, no-transform"; return 200 "retry: 3000\n\n";`), often, finds(finding.Fail, "url-no-hub", "fallback response")},
		"nginx, expires":              {nginx("", "proxy_pass http://{hub}; proxy_hide_header Cache-Control; expires 1h;"), often, finds(finding.Warn, "url-headers", "Cache-Control")},
		"nginx, page":                 {nginx("", `default_type text/html; return 200 "<p>hello";`), often, finds(finding.Fail, "url-no-hub", "HTML")},
		"nginx, other type":           {nginx("", `proxy_pass http://{hub}; proxy_hide_header Content-Type; add_header Content-Type text/plain;`), often, finds(finding.Fail, "url-content-type", "text/plain")},
		"nginx, redirect":             {nginx("", "return 301 https://$http_host$request_uri;"), often, finds(finding.Fail, "url-redirect", "has moved")},
		"nginx, redirect to itself":   {nginx("", "return 302 http://$http_host$request_uri;"), often, finds(finding.Fail, "url-redirect", "redirect loop")},
		"nginx, login page":           {nginx("", "return 302 /login;"), often, finds(finding.Fail, "url-redirect", "login page")},

		"caddy, right":       {caddy("", "reverse_proxy {hub}"), often, good},
		"caddy, encode gzip": {caddy("", "encode gzip\nreverse_proxy {hub}"), often, good}, // honors no-transform
		"caddy, buffering":   {caddy("", "reverse_proxy {hub} {\nbuffer_responses\n}"), often, finds(finding.Fail, "url-buffered", "buffer_responses")},
		"caddy, age":         {caddy("{\nservers {\ntimeouts {\nwrite 2s\n}\n}\n}\n", "reverse_proxy {hub}"), often, finds(finding.Fail, "url-age-cut", "write timeout")},
		"caddy, idle":        {caddy("", "reverse_proxy {hub} {\ntransport http {\nread_timeout 1s\n}\n}"), rarely, finds(finding.Fail, "url-idle-cut", "read_timeout")},

		"apache, right":     {apache(""), often, good},
		"apache, deflate":   {apache("SetOutputFilter DEFLATE"), often, finds(finding.Fail, "url-compressed", "SetEnv no-gzip 1")},
		"apache, no-gzip":   {apache("SetOutputFilter DEFLATE\nSetEnv no-gzip 1"), often, good},
		"apache, timeout":   {apache("ProxyTimeout 1"), rarely, finds(finding.Fail, "url-idle-cut", "ProxyTimeout")},
		"apache, few pings": {apache(""), rarely, finds(finding.Warn, "url-leave", "Apache")},

		"lighttpd, right":        {lighttpd("server.stream-response-body = 1"), often, good},
		"lighttpd, buffering":    {lighttpd(""), often, finds(finding.Fail, "url-buffered", "server.stream-response-body")},
		"lighttpd, idle timeout": {lighttpd("server.stream-response-body = 1\nserver.max-write-idle = 1"), rarely, finds(finding.Fail, "url-idle-cut", "server.max-write-idle")},

		"haproxy, right":           {haproxy(patientHAProxy, ""), often, good},
		"haproxy, buffers request": {haproxy(patientHAProxy+"option http-buffer-request\n", ""), often, good},                             // the request has no body
		"haproxy, compression":     {haproxy(patientHAProxy, "compression algo gzip\ncompression type text/event-stream\n"), often, good}, // honors no-transform
		"haproxy, no abortonclose": {haproxy("timeout client 60s\ntimeout server 60s\n", ""), rarely, finds(finding.Warn, "url-leave", "option abortonclose")},
		"haproxy, server timeout":  {haproxy("timeout client 60s\ntimeout server 1s\n", ""), rarely, finds(finding.Fail, "url-idle-cut", "timeout server")},
		"haproxy, client timeout":  {haproxy("timeout client 1s\ntimeout server 60s\noption abortonclose\n", ""), often, good}, // does not close streams on its own
	}
	for name, c := range cases {
		site := newSite(t, c.ping)
		addr := c.proxy(t, site.addr)
		f := new(findings)
		found[name] = f
		inspections.Go(func() {
			*f = site.inspect(t, "http://"+addr+"/events?user=42", func(u *proxypath.Target) {
				u.Timeout = 3 * time.Second // how long to wait for buffered data
				u.Watch = 3 * time.Second   // longer than all timeouts of the proxies
			})
		})
	}
	inspections.Wait()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.want(t, *found[name]) })
	}
}

func good(t *testing.T, f findings) { f.wantGood(t) }

func finds(level finding.Level, name, text string) func(*testing.T, findings) {
	return func(t *testing.T, f findings) { f.want(t, level, name, text) }
}
