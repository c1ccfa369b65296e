package admin

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"usercast/hub"
)

// API provides the operations on users and groups. Its functions must be safe for concurrent use and are required.
type API struct {
	// Streams returns open streams at this hub, at most limit of them, and their total number.
	Streams func(of hub.Recipient, limit int) (streams []Stream, total int)
	// Disconnect makes every hub end the user's streams.
	Disconnect func(ctx context.Context, user string) (Receipt, error)
	// Publish publishes a message to the feed.
	Publish func(ctx context.Context, m Publication) (Receipt, error)
	// PublishAll publishes messages in order. It returns how many of the first ones were published. After an error, any of
	// the others may have been published as well.
	PublishAll func(ctx context.Context, m []Publication) (published int, err error)
	// Position returns the id from which a page of the user can resume. An error means that the hub is not subscribed.
	Position func(ctx context.Context, user string) (id string, err error)

	Groups         bool   // whether groups are enabled
	TopicSeparator byte   // character that a user id and a group name must not contain; default ':'
	BroadcastUser  string // the user id, in addition to "*", that no user has
	MaxPayload     int64  // bytes
	Redis          string // address of the Redis that Disconnect and Publish use, for errors
}

// A Receipt is the reply of Redis to a message or a control command.
type Receipt struct {
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
	Heard *int64 `json:"heard,omitempty"` // number of subscribers that received it, including other programs than hubs
	ID    string `json:"id,omitempty"`    // id of the entry in the Redis stream, which every hub reads
}

// A Stream is an open stream.
type Stream struct {
	User         string    `json:"user,omitempty"` // if the streams of a group are listed
	Since        time.Time `json:"since"`
	Topics       []string  `json:"topics,omitempty"` // empty: all
	Groups       []string  `json:"groups,omitempty"` // of which the stream is a member
	QueuedFrames int       `json:"queued_frames"`    // frames in the queue
	QueuedBytes  int       `json:"queued_bytes"`     // bytes of frames in the queue or being written
	LastID       string    `json:"last_id"`          // the stream is complete up to this id, including frames being written
}

const (
	// redisTimeout bounds how long a request waits for Redis.
	redisTimeout = 5 * time.Second
	// maxListed bounds the list of a group's streams.
	maxListed = 1000
)

// MountAPI adds /api/users, /api/groups and /api/messages.
func MountAPI(e *echo.Echo, o API, tokens Tokens) {
	a := api{o, names{o.Groups, cmp.Or(o.TopicSeparator, ':')}}
	g := e.Group("/api", tokens.Guard(), noStore)
	g.GET("/users/:name", a.user)
	g.DELETE("/users/:name", a.disconnect)
	g.GET("/groups/:name", a.group)
	app := tokens.GuardApp()
	e.GET("/api/users/:name/position", a.position, app, noStore)
	e.POST("/api/users/:name/messages", a.publish(hub.User), app, noStore)
	e.POST("/api/groups/:name/messages", a.publish(hub.Group), app, noStore)
	e.POST("/api/messages", a.publishAll, app, noStore)
}

type api struct {
	API
	names names
}

// names are the rules for user ids and group names.
type names struct {
	groups    bool // whether groups are enabled
	separator byte
}

// recipient reads the path's user id or group name.
func (n names) recipient(c echo.Context, kind func(name string) hub.Recipient) (hub.Recipient, error) {
	to := kind(c.Param("name"))
	if to.Group && !n.groups {
		return to, echo.NewHTTPError(http.StatusNotFound, groupsDisabled)
	}
	if c.Request().URL.RawPath != "" { // echo does not unescape in this case
		name, err := url.PathUnescape(to.Name)
		if err != nil {
			return to, echo.NewHTTPError(http.StatusBadRequest, "the "+nounOf(to)+" is not correctly percent-encoded")
		}
		to.Name = name
	}
	if why := n.unusable(to); why != "" {
		return to, echo.NewHTTPError(http.StatusBadRequest, why)
	}
	return to, nil
}

// unusable returns why a name cannot be part of a channel name, or "".
func (n names) unusable(to hub.Recipient) string {
	switch {
	case !utf8.ValidString(to.Name):
		return "the " + nounOf(to) + " is not valid UTF-8"
	case to.Name == "" || strings.IndexByte(to.Name, n.separator) >= 0:
		kind, _, _ := strings.Cut(nounOf(to), " ")
		return fmt.Sprintf("the %s must not be empty or contain %q, which separates %s and topic (--topic-separator)", nounOf(to), n.separator, kind)
	case to == hub.Group("*"):
		return "the group name * is reserved, so a stream cannot be a member of it"
	}
	return ""
}

func nounOf(to hub.Recipient) string {
	if to.Group {
		return "group name"
	}
	return "user id"
}

// groupsDisabled is the error of requests for groups without --group-prefix.
const groupsDisabled = "groups are disabled; start the hub with --group-prefix, such as group-, to enable them"

func (a api) user(c echo.Context) error {
	user, err := a.names.recipient(c, hub.User)
	if err != nil {
		return err
	}
	streams, _ := a.Streams(user, math.MaxInt)
	return c.JSON(http.StatusOK, map[string]any{"user": user.Name, "streams": streams})
}

func (a api) group(c echo.Context) error {
	group, err := a.names.recipient(c, hub.Group)
	if err != nil {
		return err
	}
	streams, total := a.Streams(group, maxListed)
	return c.JSON(http.StatusOK, map[string]any{"group": group.Name, "total": total, "streams": streams})
}

func (a api) disconnect(c echo.Context) error {
	user, err := a.names.recipient(c, hub.User)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), redisTimeout)
	defer cancel()
	receipt, err := a.Disconnect(ctx, user.Name)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadGateway, "sending the command to "+a.Redis+" failed: "+err.Error())
	}
	receipt.User = user.Name
	return c.JSON(http.StatusOK, receipt)
}

func (a api) position(c echo.Context) error {
	user, err := a.names.recipient(c, hub.User)
	if err != nil {
		return err
	}
	if user.Name == "*" || user.Name == a.BroadcastUser {
		return echo.NewHTTPError(http.StatusBadRequest, fmt.Sprintf("the user id %q stands for all users, so it does not have a position", user.Name))
	}
	id, err := a.Position(c.Request().Context(), user.Name)
	if err != nil {
		return echo.NewHTTPError(http.StatusServiceUnavailable, err.Error())
	}
	return c.JSON(http.StatusOK, map[string]string{"id": id})
}
