package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"usercast/hub"
)

// A Publication is a message to publish.
type Publication struct {
	To             hub.Recipient
	Topic, Payload string
}

const (
	maxBatch      = 1000             // messages in one request
	maxBatchBytes = 16 << 20         // bytes of its body
	batchTimeout  = 30 * time.Second // bounds how long a batch waits for Redis
)

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

// body reads the request's body.
func body(c echo.Context, limit int64, tooLarge string) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, limit))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, echo.NewHTTPError(http.StatusRequestEntityTooLarge, tooLarge)
	}
	if err != nil {
		return nil, echo.NewHTTPError(http.StatusBadRequest, "the request body is incomplete")
	}
	return b, nil
}

// publish returns the handler for the messages of a user or a group.
func (a api) publish(kind func(name string) hub.Recipient) echo.HandlerFunc {
	return func(c echo.Context) error {
		to, err := a.names.recipient(c, kind)
		if err != nil {
			return err
		}
		topic, err := topic(c)
		if err != nil {
			return err
		}
		payload, err := body(c, a.MaxPayload, "the message is larger than --max-payload")
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Request().Context(), redisTimeout)
		defer cancel()
		receipt, err := a.Publish(ctx, Publication{to, topic, string(payload)})
		if err != nil {
			return echo.NewHTTPError(http.StatusBadGateway, "publishing to "+a.Redis+" failed: "+err.Error())
		}
		if receipt.User = to.Name; to.Group {
			receipt.User, receipt.Group = "", to.Name
		}
		return c.JSON(http.StatusOK, receipt)
	}
}

// publishAll publishes the messages of a body with one JSON object per line. It publishes none if a line is invalid.
func (a api) publishAll(c echo.Context) error {
	lines, err := body(c, maxBatchBytes, fmt.Sprintf("the request body is larger than %d MiB", maxBatchBytes>>20))
	if err != nil {
		return err
	}
	var messages []Publication
	n := 0
	for line := range bytes.Lines(lines) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(messages) == maxBatch {
			return echo.NewHTTPError(http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d messages", maxBatch))
		}
		m, status, why := a.parse(line)
		if why != "" {
			return echo.NewHTTPError(status, fmt.Sprintf("line %d: %s; no message was published", n, why))
		}
		messages = append(messages, m)
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), batchTimeout)
	defer cancel()
	var result struct {
		Error     string `json:"error,omitempty"`
		Published int    `json:"published"`
	}
	status := http.StatusOK
	if result.Published, err = a.PublishAll(ctx, messages); err != nil {
		status, result.Error = http.StatusBadGateway, "publishing to "+a.Redis+" failed: "+err.Error()
	}
	return respond(c, status, result)
}

// A batchLine is a line of a batch.
type batchLine struct {
	User  name            `json:"user"`
	Group name            `json:"group"`
	Topic json.RawMessage `json:"topic"`
	Data  json.RawMessage `json:"data"`
}

// A name is the user or the group of a line: a string or an integer, as in a token.
type name struct{ text *string } // nil: absent or null

var errName = errors.New("neither a string nor an integer")

func (n *name) UnmarshalJSON(b []byte) error {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber() // a float64 could change digits
	if err := decoder.Decode(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		n.text = nil
	case string:
		n.text = &v
	case json.Number:
		text := v.String()
		if strings.ContainsAny(text, ".eE") || text == "-0" {
			return errName
		}
		n.text = &text
	default:
		return errName
	}
	return nil
}

// decode returns the object on a line, or what is wrong with it.
func decode(line []byte) (object batchLine, why string) {
	if !utf8.Valid(line) { // package json would replace the bytes, also in names
		return object, "the text is not valid UTF-8"
	}
	if line[0] != '{' {
		return object, "not a JSON object; send one JSON object per line, without an array around them"
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields() // a misspelled topic must not be lost
	switch err := decoder.Decode(&object); {
	case errors.Is(err, errName):
		return object, "user and group must be strings or integers"
	case err != nil && strings.HasPrefix(err.Error(), unknownField):
		return object, "unknown field " + strings.TrimPrefix(err.Error(), unknownField) + "; the fields are user or group, topic and data"
	case err != nil:
		return object, "not a complete JSON object on one line"
	case decoder.InputOffset() != int64(len(line)):
		return object, "text after the JSON object; send one JSON object per line"
	}
	return object, ""
}

// unknownField is how package json begins this error, which does not have a type.
const unknownField = "json: unknown field "

// parse returns the message on a line, or a status and what is wrong with it.
func (a api) parse(line []byte) (m Publication, status int, why string) {
	object, why := decode(line)
	if why != "" {
		return m, http.StatusBadRequest, why
	}
	switch user, group := object.User.text, object.Group.text; {
	case (user == nil) == (group == nil):
		return m, http.StatusBadRequest, "a message is either for a user or for a group"
	case user != nil:
		m.To = hub.User(*user)
	case !a.names.groups:
		return m, http.StatusNotFound, groupsDisabled
	default:
		m.To = hub.Group(*group)
	}
	if why := a.names.unusable(m.To); why != "" {
		return m, http.StatusBadRequest, why
	}
	switch {
	case len(object.Data) == 0:
		return m, http.StatusBadRequest, "data is missing; it is a string or any other JSON value"
	case object.Data[0] == '"':
		if err := json.Unmarshal(object.Data, &m.Payload); err != nil {
			return m, http.StatusBadRequest, "data is not a valid string"
		}
	default:
		m.Payload = string(object.Data)
	}
	if int64(len(m.Payload)) > a.MaxPayload {
		return m, http.StatusRequestEntityTooLarge, "the message is larger than --max-payload"
	}
	if object.Topic != nil && json.Unmarshal(object.Topic, &m.Topic) != nil { // null is the same as absent
		return m, http.StatusBadRequest, "topic must be a string"
	}
	return m, 0, ""
}
