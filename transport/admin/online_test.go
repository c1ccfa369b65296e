package admin_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"usercast/transport/admin"
)

// online serves GET /api/online for users who are online.
func online(err error, users ...string) *echo.Echo {
	e := admin.NewEcho()
	admin.MountOnline(e, admin.Presence{
		Online: func(_ context.Context, asked []string) ([]string, error) {
			list := []string{}
			for _, user := range asked {
				if slices.Contains(users, user) {
					list = append(list, user)
				}
			}
			return list, err
		},
		Count: func(context.Context) (int, error) { return len(users), err },
		Redis: "redis.example:6379",
	}, tokens("", ""))
	return e
}

func TestOnlineUsers(t *testing.T) {
	t.Parallel()
	e := online(nil, "42", "a&b", "ü")
	tooMany := "/api/online?" + strings.Repeat("user=42&", 1001)
	for _, test := range []struct {
		target string
		code   int
		body   string
	}{
		{"/api/online", 200, `{"users":3}`},
		{"/api/online?user=42&user=43", 200, `{"online":["42"]}`},
		{"/api/online?user=43", 200, `{"online":[]}`},
		{"/api/online?user=%C3%BC&user=a%26b&user=42", 200, `{"online":["ü","a\u0026b","42"]}`},
		{"/api/online?user=42&user=%C3%BC&user=42&user=43&user=%C3%BC", 200, `{"online":["42","ü"]}`},
		{"/api/online?user=", 200, `{"online":[]}`},
		{tooMany, 400, `{"error":"at most 1000 users are allowed in one request"}`},
		{strings.Replace(tooMany, "user=42&", "", 1), 200, `{"online":["42"]}`},
		{"/api/online?user=%ff", 400, `{"error":"a user id is not valid UTF-8"}`},
		{"/api/online?user=%zz", 400, `{"error":"the query string is malformed"}`},
	} {
		answer := ask(e, "GET", test.target, nil)
		if got := strings.TrimSpace(answer.Body.String()); answer.Code != test.code || got != test.body {
			t.Errorf("%.40s: %d %.200s, want %d %.200s", test.target, answer.Code, got, test.code, test.body)
		}
		if got := answer.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%.40s: Cache-Control %q", test.target, got)
		}
	}
}

func TestOnlineWithoutRedis(t *testing.T) {
	t.Parallel()
	e := online(errors.New("connection refused"))
	for _, target := range []string{"/api/online", "/api/online?user=42"} {
		answer := ask(e, "GET", target, nil)
		if want := "reading from redis.example:6379 failed: connection refused"; answer.Code != 502 || !strings.Contains(answer.Body.String(), want) {
			t.Errorf("%s: %d %s", target, answer.Code, answer.Body)
		}
	}
}

func TestOnlineWithoutPresence(t *testing.T) {
	t.Parallel()
	e := admin.NewEcho()
	admin.MountOnline(e, admin.Presence{}, tokens("", ""))
	answer := ask(e, "GET", "/api/online?user=42", nil)
	if answer.Code != 404 || !strings.Contains(answer.Body.String(), "set --presence") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}
