package sse

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"usercast/hub"
)

// A query contains the parameters in the URL of a stream.
type query struct {
	topics     []string // nil: all
	named      bool     // event=topic
	pingEvents bool     // ping=event
	poll       bool     // poll=1
	resume     string   // the last id that the client received, after writableID; "" if it sent none
}

// maxQuery bounds the memory that a stream keeps of its request: its topics. It is enough for
// the longest token.
const maxQuery = 16 << 10

// maxTopics is the maximum number of different topics of a stream: each is compared with the
// topic of each message for its user.
const maxTopics = 64

// parseQuery reads the query of r and the Last-Event-ID header. The header takes precedence,
// because a browser sends it when it reconnects to the same URL. An invalid id is not an error,
// because the browser would send it again with every reconnect.
func parseQuery(r *http.Request) (q query, err error) {
	if len(r.URL.RawQuery) > maxQuery {
		return query{}, errors.New("the query string is too long")
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, errors.New("the query string is malformed")
	}
	if q.topics, err = distinct(values["topic"]); err != nil {
		return query{}, err
	}
	if q.named, err = choice(values, "event", "topic"); err != nil {
		return query{}, err
	}
	if q.pingEvents, err = choice(values, "ping", "event"); err != nil {
		return query{}, err
	}
	if q.poll, err = choice(values, "poll", "1"); err != nil {
		return query{}, err
	}
	q.resume = writableID(resumeID(r))
	return q, nil
}

// resumeID returns the last id of the client, from the header if it is set there, otherwise from the
// query. Polyfills send lastEventId, so the name of the parameter is matched without case, '-' and '_'. Empty
// values are ignored, and the last of several values counts. The query must be well-formed.
func resumeID(r *http.Request) (id string) {
	for _, value := range slices.Backward(r.Header.Values("Last-Event-ID")) {
		if value != "" {
			return value
		}
	}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" {
			continue
		}
		if name, err := url.QueryUnescape(name); err != nil || !strings.EqualFold(separators.Replace(name), "lasteventid") {
			continue
		}
		if value, err := url.QueryUnescape(value); err == nil {
			id = value
		}
	}
	return id
}

var separators = strings.NewReplacer("-", "", "_", "")

// distinct returns topics without duplicates, or nil if topics is empty. It copies them, so that
// the rest of the query is not kept in memory.
func distinct(topics []string) (out []string, err error) {
	for _, topic := range topics {
		if slices.Contains(out, topic) {
			continue
		}
		if len(out) == maxTopics {
			return nil, errTooManyTopics
		}
		out = append(out, strings.Clone(topic))
	}
	return out, nil
}

var errTooManyTopics = fmt.Errorf("the query has more than %d different topics; use fewer, or none to receive all", maxTopics)

// choice reports whether the parameter is present. Any value except the given one is an error.
func choice(values url.Values, name, value string) (bool, error) {
	for _, v := range values[name] {
		if v != value {
			return false, errors.New("the query parameter " + name + " must be " + value)
		}
	}
	return values.Has(name), nil
}

// visible returns the topics of a stream: the wanted ones, or all that are allowed. A wanted topic
// that is not allowed is an error, because the page would wait for messages that never arrive. For
// wanted, allowed and the result, nil means all topics.
func visible(wanted, allowed []string) ([]string, error) {
	switch {
	case wanted == nil:
		return allowed, nil
	case allowed == nil:
		return wanted, nil
	}
	for _, topic := range wanted {
		if !slices.Contains(allowed, topic) {
			return nil, errors.New("this user is not allowed to receive one of the topics")
		}
	}
	return wanted, nil
}

// acceptsStream reports whether the Accept header contains text/event-stream, as that of every
// EventSource does. Such a client can receive a temporary rejection inside a stream.
func acceptsStream(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			media, params, err := mime.ParseMediaType(part)
			if err != nil || media != mediaType {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err != nil || q > 0 {
				return true
			}
		}
	}
	return false
}

func (q query) options(user string, groups []string, c hub.Consumer) hub.Options {
	return hub.Options{User: user, Groups: groups, Topics: q.topics, Named: q.named, Resume: q.resume, Consumer: c}
}
