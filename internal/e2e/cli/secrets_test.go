package cli

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Runs the program at debug level through all kinds of errors: neither its output nor its responses
// contain a secret, cookie, token or payload.
func TestNoSecretLeavesTheProgram(t *testing.T) {
	t.Parallel()
	const (
		redisPassword = "secret-redis-password"
		adminToken    = "secret-admin-token"
		apiToken      = "secret-api-token"
		hubPassword   = "secret-hub-password" // with which the hub authenticates to the app
		cookie        = "secret-cookie"
		bearer        = "secret-bearer"
		queryToken    = "secret-query-token"
		payload       = "secret-payload"
		lastID        = "secret-last-id"
	)
	secrets := []string{redisPassword, adminToken, apiToken, hubPassword, cookie, bearer, queryToken, payload, lastID}
	sessions := hubtest.StartSessionApp(t)
	inURL, _ := url.Parse(sessions.URL)
	inURL.User = url.UserPassword("hub", hubPassword)
	for _, feed := range []string{app.FeedPubSub, app.FeedStream} {
		t.Run(feed, func(t *testing.T) {
			server := redistest.Start(t, "--requirepass", redisPassword)
			publisher := hubtest.NewPublisher(t, server.Addr())
			publisher.Do(t, "AUTH", redisPassword)
			var output strings.Builder // the program's output and responses
			p := hubtest.StartProgram(t, []string{"USERCAST_FORWARD_URL=" + inURL.String()}, "serve", "--auth", "forward", "--auth-cache", "0", "--auth-timeout", "1s",
				"--feed", feed, "--redis", server.URL(), "--redis-password-file", hubtest.SecretFile(t, redisPassword),
				"--admin-token-file", hubtest.SecretFile(t, adminToken), "--api-token-file", hubtest.SecretFile(t, apiToken), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-level", "debug", "--retry", "10ms")
			public, private := p.Addresses(t)
			hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })
			send := func(topic string) {
				if feed == app.FeedStream {
					publisher.Do(t, "XADD", app.DefaultStreamKey, "*", "ch", "user-"+cookie+topic, "data", payload)
					publisher.Do(t, "XADD", app.DefaultStreamKey, "*", "ctl", `{"op":"`+payload)
					publisher.Do(t, "XADD", app.DefaultStreamKey, "*", "ch", payload, "data", payload)
					return
				}
				publisher.Publish(t, "user-"+cookie+topic, payload)
				publisher.Publish(t, "usercast:user-control", `{"op":"`+payload+`","user":"`+cookie)
				publisher.Publish(t, "user-:"+payload, payload)
			}
			headers := []string{"Authorization: Bearer " + bearer, "Last-Event-ID: " + lastID, "Cookie: a=" + cookie + "; session=42"}
			stream, err := ssetest.Open(public, "token="+queryToken, headers...)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			stream.WantGap(t, "unknown-id")
			send("")
			bye, err := ssetest.Open(public, "", headers...)
			if err != nil {
				t.Fatal(err)
			}
			bye.Close()

			// All kinds of rejections, errors of the app, and admin requests.
			for _, status := range []int64{0, 302, 403, 500} {
				sessions.Status.Store(status)
				for _, query := range []string{"", "?token=" + queryToken, "?event=" + queryToken, "?%zz" + queryToken} {
					output.WriteString(hubtest.Request(t, "GET", "http://"+public+"/events"+query, "Cookie: session=*; b="+cookie, headers[0], headers[1]).Body)
				}
			}
			output.WriteString(hubtest.Request(t, "GET", "http://"+public+"/"+queryToken, headers...).Body)
			sessions.CloseClientConnections()
			sessions.Status.Store(0)
			for _, authorization := range []string{"Bearer " + adminToken, "Bearer " + apiToken, "Bearer " + bearer} {
				for _, path := range []string{"/metrics", "/readyz", "/api/stats", "/api/users/42", "/api/users/42/position", "/debug/pprof/", "/debug/pprof/cmdline",
					"/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs?debug=1"} {
					output.WriteString(hubtest.Request(t, "GET", "http://"+private+path, "Authorization: "+authorization).Body)
				}
			}
			r, err := http.NewRequest("POST", "http://"+private+"/api/users/42/messages", strings.NewReader(payload))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+adminToken)
			if resp, err := hubtest.Client.Do(r); err != nil || resp.StatusCode != 200 {
				t.Errorf("post: %v, %v", resp, err)
			} else {
				resp.Body.Close()
			}
			stream.Want(t, payload) // the hub held the payload
			server.Restart()        // errors of the connection to Redis
			output.WriteString(hubtest.Request(t, "DELETE", "http://"+private+"/api/users/42", "Authorization: Bearer "+adminToken).Body)
			p.Signal(syscall.SIGINT)
			if code := p.Wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			output.WriteString(p.Stdout.String() + p.Stderr.String())
			if len(p.Stderr.Lines("level=DEBUG")) == 0 || len(p.Stderr.Lines("stream ended")) == 0 {
				t.Error("the log has no debug messages or no ended stream")
			}
			for _, s := range secrets {
				for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), url.QueryEscape(s)} {
					if i := strings.Index(output.String(), form); i >= 0 {
						t.Errorf("the output contains %q: %q", s, output.String()[max(0, i-200):i+len(form)])
					}
				}
			}
		})
	}
}

// No secret is logged at any level, including in errors.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	const secret, wrong, token = "correct-horse-battery", "wrong-horse-battery", "staple-token"
	server := redistest.Start(t, "--requirepass", secret)
	inURL := strings.Replace(server.URL(), "redis://", "redis://:"+secret+"@", 1)
	wrongURL := strings.Replace(server.URL(), "redis://", "redis://:"+wrong+"@", 1)
	for _, test := range []struct {
		name  string
		args  []string
		works bool
	}{
		{"in the URL", []string{"--redis", inURL}, true},
		{"in a file", []string{"--redis", server.URL(), "--redis-password-file", hubtest.SecretFile(t, secret)}, true},
		{"wrong, in the URL", []string{"--redis", wrongURL}, false},
		{"wrong, in a file", []string{"--redis", server.URL(), "--redis-password-file", hubtest.SecretFile(t, wrong)}, false},
		{"wrong, with a user", []string{"--redis", strings.Replace(wrongURL, ":"+wrong, "somebody:"+wrong, 1)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := hubtest.StartProgram(t, nil, append([]string{"serve", "--auth", "insecure", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
				"--log-level", "debug", "--admin-token-file", hubtest.SecretFile(t, token)}, test.args...)...)
			public, private := p.Addresses(t)
			if test.works {
				hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })
				stream, err := ssetest.Open(public, "user=42", "Cookie: session="+secret, "Authorization: Bearer "+secret)
				if err != nil {
					t.Fatal(err)
				}
				stream.Close()
				hubtest.Eventually(t, "the stream's end is logged", func() bool { return len(p.Stderr.Lines("stream ended")) == 1 })
			} else {
				hubtest.Eventually(t, "the error is logged", func() bool { return len(p.Stderr.Lines("level=WARN", "reason=password")) == 1 })
			}
			for auth, code := range map[string]int{"Bearer " + token: 200, "Bearer " + wrong: 401} {
				if a := hubtest.Request(t, "GET", "http://"+private+"/debug/pprof/", "Authorization: "+auth); a.Status != code {
					t.Errorf("%s: %d, want %d", auth, a.Status, code)
				}
			}
			hubtest.Request(t, "GET", "http://"+public+"/events?user=4:2&token="+secret, "Cookie: session="+secret)
			p.Signal(syscall.SIGINT)
			if code := p.Wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if n := len(p.Stderr.Lines("level=WARN", "command line")); (n == 1) != strings.Contains(test.args[1], "@") || n > 1 {
				t.Errorf("%d warnings about a password on the command line", n)
			}
			for _, s := range []string{secret, wrong, token} {
				if strings.Contains(p.Stdout.String()+p.Stderr.String(), s) {
					t.Errorf("the output contains %q", s)
				}
			}
		})
	}
	for redisURL, warns := range map[string]bool{inURL: true, wrongURL: true, server.URL(): false} {
		if _, _, stderr := hubtest.RunCommand(t, "publish", "--redis", redisURL, "42", "x"); strings.Contains(stderr, "warning: ") != warns {
			t.Errorf("publish warns about a password: %q", stderr)
		}
	}
	// Errors that make a command exit immediately do not contain secrets either.
	for _, args := range [][]string{
		{"publish", "--redis", wrongURL, "42", "x"},
		{"publish", "--redis", "redis://:" + wrong + "@127.0.0.1:notaport", "42", "x"},
		{"publish", "--redis", "redis://:" + wrong + "/x@127.0.0.1", "42", "x"},
		{"publish", "--redis", "http://:" + wrong + "@127.0.0.1", "42", "x"},
		{"serve", "--redis", "redis://:" + wrong + "%@127.0.0.1"},
		{"serve", "--redis-passwrd=" + wrong},
	} {
		code, stdout, stderr := hubtest.RunCommand(t, args...)
		if code == 0 || stderr == "" || strings.Contains(stdout+stderr, wrong) {
			t.Errorf("%q: exit code %d, %q", args, code, stdout+stderr)
		}
	}
}
