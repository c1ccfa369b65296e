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

// query is what a stream's URL asks for.
type query struct {
	topics     []string // nil: all
	named      bool     // event=topic
	pingEvents bool     // ping=event
	poll       bool     // poll=1
	resume     string   // the last id the browser saw, as writableID leaves it; "": none
}

// maxQuery bounds what a stream keeps of its request: topics live as long as it
// does. Tokens are the longest that honest queries hold.
const maxQuery = 16 << 10

// maxTopics bounds how many different topics a stream can name: each is compared with the
// topic of each message for its user.
const maxTopics = 64

// parseQuery reads the query of r, and the Last-Event-ID header, which wins: a
// browser sends it on a reconnect to the same URL. No id is ever an error here,
// for the browser would send it again for ever.
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

// resumeID is the last id of the client, from its header or else from its query. Polyfills send
// it as lastEventId, so case, '-' and '_' do not matter in the name of the parameter. An empty value is none;
// of several, the last one counts. The query must be well-formed.
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

// distinct returns a copy of topics without duplicates, which keeps nothing else of the
// query in memory; nil for none.
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

// choice reports whether the parameter has its one value; any other is an error.
func choice(values url.Values, name, value string) (bool, error) {
	for _, v := range values[name] {
		if v != value {
			return false, errors.New("the query parameter " + name + " must be " + value)
		}
	}
	return values.Has(name), nil
}

// visible are the topics of a stream: those that were requested, or all that may be seen.
// To request one that may not is an error: the page would wait for it in vain. Both may
// be nil for all topics.
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

// acceptsStream reports whether the client names text/event-stream in Accept, as
// each EventSource does. Such a client can receive a temporary rejection inside a stream.
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

func (q query) options(user string, c hub.Consumer) hub.Options {
	return hub.Options{User: user, Topics: q.topics, Named: q.named, Resume: q.resume, Consumer: c}
}
