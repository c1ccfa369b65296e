package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"usercast/internal/redistest"
)

// Whoever is asked who is there is asked by check, too, as a stranger.
func TestCheckAsksForAStranger(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		auth, flag string
		answer     http.HandlerFunc
		want       string
	}{
		{authForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "1") }, `fail  URL says that a request without any cookie is user "1"`},
		{authForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "ok    URL answers, and says no"},
		{authForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "fail  URL does not say who is asking: the app answered 500"},
		{authJWT, "--jwt-jwks-url", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
		}, "ok    the key set of --jwt-jwks-url can be fetched"},
		{authJWT, "--jwt-jwks-url", http.NotFound, "fail  --jwt-jwks-url: the keys that tokens are signed with cannot be fetched"},
	} {
		server := httptest.NewServer(c.answer)
		stdout, _, _ := runCheck(t, anywhere("redis://127.0.0.1:1", "--auth", c.auth, c.flag, server.URL)...)
		server.Close()
		if !strings.Contains(stdout, "\nlog-in\n  "+strings.ReplaceAll(c.want, "URL", server.URL)) {
			t.Errorf("want %q in\n%s", c.want, stdout)
		}
	}
}

// What is published has a topic that the log-in may see.
func TestCheckPublishesWhatTheUserMaySee(t *testing.T) {
	server := redistest.Start(t)
	topics := make(chan string, 1) // of the next answers
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		t := <-topics
		topics <- t
		w.Header().Set("X-User-ID", "42")
		w.Header().Set("X-User-Topics", t)
	}))
	defer app.Close()
	flags := []string{"--auth", "forward", "--auth-cache", "0", "--forward-url", app.URL, "--ping-interval", "50ms"}
	h := startHub(t, server, flags...)
	flags = append(flags, "--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "100ms", "--url", "http://"+h.PublicAddr()+"/events")
	t.Setenv("USERCAST_HEADER", "Cookie: session=42")
	for list, want := range map[string]string{"news, chat": "3 events, published", "": "this user may see no topic at all"} {
		topics <- list
		stdout, _, code := runCheck(t, flags...)
		<-topics
		if code != 0 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "pings came through") {
			t.Errorf("topics %q: exit code %d, no %q in\n%s", list, code, want, stdout)
		}
	}
}
