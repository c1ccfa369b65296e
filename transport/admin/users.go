package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

// Users provides the operations of the API on a user. Its functions must be safe for concurrent use. All fields are
// required.
type Users struct {
	// Streams returns the user's open streams at this hub.
	Streams func(user string) []Stream
	// Disconnect makes every hub end the user's streams.
	Disconnect func(ctx context.Context, user string) (Receipt, error)
	// Publish publishes a message to the feed.
	Publish        func(ctx context.Context, user, topic, payload string) (Receipt, error)
	TopicSeparator byte   // character that a user id must not contain; default ':'
	MaxPayload     int64  // bytes
	Redis          string // address of the Redis that Disconnect and Publish use, for errors
}

// A Receipt is the reply of Redis to a message or a control command.
type Receipt struct {
	User  string `json:"user"`
	Heard *int64 `json:"heard,omitempty"` // number of subscribers that received it, including other programs than hubs
	ID    string `json:"id,omitempty"`    // id of the entry in the Redis stream, which every hub reads
}

// A Stream is an open stream of a user.
type Stream struct {
	Since        time.Time `json:"since"`
	Topics       []string  `json:"topics,omitempty"` // empty: all
	QueuedFrames int       `json:"queued_frames"`    // frames in the queue
	QueuedBytes  int       `json:"queued_bytes"`     // bytes of frames in the queue or being written
	LastID       string    `json:"last_id"`          // the stream is complete up to this id, including frames being written
}

// redisTimeout bounds how long a request waits for Redis.
const redisTimeout = 5 * time.Second

// MountUsers adds /api/users behind a Guard.
func MountUsers(e *echo.Echo, u Users, token func() string) {
	u.TopicSeparator = cmp.Or(u.TopicSeparator, ':')
	g := e.Group("/api/users", Guard(token), noStore)
	g.GET("/:user", u.get)
	g.DELETE("/:user", u.disconnect)
	g.POST("/:user/messages", u.post)
}

// userOf reads the path's user id.
func userOf(c echo.Context, separator byte) (string, error) {
	id := c.Param("user")
	if c.Request().URL.RawPath != "" { // echo does not unescape in this case
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return "", echo.NewHTTPError(http.StatusBadRequest, "the user id is not correctly percent-encoded")
		}
	}
	if !utf8.ValidString(id) {
		return "", echo.NewHTTPError(http.StatusBadRequest, "the user id is not valid UTF-8")
	}
	if id == "" || strings.IndexByte(id, separator) >= 0 {
		return "", echo.NewHTTPError(http.StatusBadRequest, fmt.Sprintf("the user id must not be empty or contain %q, which separates user and topic (--topic-separator)", separator))
	}
	return id, nil
}

// topic returns the topic in the query, which may be "".
func topic(c echo.Context) (string, error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return "", echo.NewHTTPError(http.StatusBadRequest, "the query string is malformed")
	}
	if len(query["topic"]) > 1 {
		return "", echo.NewHTTPError(http.StatusBadRequest, "a message can have only one topic")
	}
	return query.Get("topic"), nil
}

func (u Users) get(c echo.Context) error {
	id, err := userOf(c, u.TopicSeparator)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"user": id, "streams": u.Streams(id)})
}

func (u Users) disconnect(c echo.Context) error {
	id, err := userOf(c, u.TopicSeparator)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), redisTimeout)
	defer cancel()
	receipt, err := u.Disconnect(ctx, id)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadGateway, "sending the command to "+u.Redis+" failed: "+err.Error())
	}
	receipt.User = id
	return c.JSON(http.StatusOK, receipt)
}

func (u Users) post(c echo.Context) error {
	id, err := userOf(c, u.TopicSeparator)
	if err != nil {
		return err
	}
	topic, err := topic(c)
	if err != nil {
		return err
	}
	payload, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, u.MaxPayload))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return echo.NewHTTPError(http.StatusRequestEntityTooLarge, "the message is larger than --max-payload")
	}
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, "the request body is incomplete")
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), redisTimeout)
	defer cancel()
	receipt, err := u.Publish(ctx, id, topic, string(payload))
	if err != nil {
		return echo.NewHTTPError(http.StatusBadGateway, "publishing to "+u.Redis+" failed: "+err.Error())
	}
	receipt.User = id
	return c.JSON(http.StatusOK, receipt)
}
