package admin

import (
	"context"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

// maxOnlineUsers is the maximum number of users in one request. At most 64 KiB of headers fit into a request.
const maxOnlineUsers = 1000

// Presence provides the users who are online on any hub. Its functions must be safe for concurrent use. If they are nil, hubs
// do not record this.
type Presence struct {
	// Online returns which of the users are online, in the same order.
	Online func(ctx context.Context, users []string) ([]string, error)
	// Count returns how many users are online.
	Count func(ctx context.Context) (int, error)
	Redis string // address of the Redis that both read, for errors
}

// MountOnline adds /api/online.
func MountOnline(e *echo.Echo, p Presence, tokens Tokens) {
	e.GET("/api/online", p.get, tokens.GuardApp(), noStore)
}

func (p Presence) get(c echo.Context) error {
	if p.Online == nil {
		return echo.NewHTTPError(http.StatusNotFound, "this hub does not record which users are online; set --presence")
	}
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, "the query string is malformed")
	}
	users := query["user"]
	if len(users) > maxOnlineUsers {
		return echo.NewHTTPError(http.StatusBadRequest, "at most 1000 users are allowed in one request")
	}
	distinct := make([]string, 0, len(users))
	seen := make(map[string]bool, len(users))
	for _, user := range users {
		if !utf8.ValidString(user) {
			return echo.NewHTTPError(http.StatusBadRequest, "a user id is not valid UTF-8")
		}
		if !seen[user] {
			seen[user] = true
			distinct = append(distinct, user)
		}
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), redisTimeout)
	defer cancel()
	if len(users) == 0 {
		n, err := p.Count(ctx)
		if err != nil {
			return p.failed(err)
		}
		return c.JSON(http.StatusOK, map[string]int{"users": n})
	}
	online, err := p.Online(ctx, distinct)
	if err != nil {
		return p.failed(err)
	}
	return c.JSON(http.StatusOK, map[string][]string{"online": online})
}

func (p Presence) failed(err error) error {
	return echo.NewHTTPError(http.StatusBadGateway, "reading from "+p.Redis+" failed: "+err.Error())
}
