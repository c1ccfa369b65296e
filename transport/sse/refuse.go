package sse

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"usercast/hub"
)

// rejectReasons are all the labels of a refusal.
var rejectReasons = []string{
	"clients", "user-limit", "draining", "auth-unavailable", // not now
	"unauthorized", "origin", "topic", "bad-user", "bad-request", // never
}

// sentences explain a "not now" to a client that is not a browser.
var sentences = map[string]string{
	"clients":          "all places are taken; come back later",
	"user-limit":       "this user has as many streams as one may have; close one or come back later",
	"draining":         "this server is stopping; come back later",
	"auth-unavailable": "who is asking could not be found out just now; come back later",
}

// refusal is the label for an error of hub.Register.
func refusal(err error) string {
	switch {
	case errors.Is(err, hub.ErrFull):
		return "clients"
	case errors.Is(err, hub.ErrUserLimit):
		return "user-limit"
	}
	return "draining"
}

// busyFactor times Retry is when a client that was refused is to come back.
const busyFactor = 5

// notNow refuses a client that may come back. An EventSource gives up for good at
// any status but 200 (WHATWG HTML, "Server-sent events", processing model), so it
// is told inside a stream that ends.
func (h *Handler) notNow(w http.ResponseWriter, r *http.Request, reason string) {
	h.rejects[reason].Add(1)
	h.writeNotNow(w, r, reason)
}

// writeNotNow is notNow for a client that is not counted.
func (h *Handler) writeNotNow(w http.ResponseWriter, r *http.Request, reason string) {
	retry := jitter(busyFactor * h.cfg.Retry)
	if !acceptsStream(r) {
		status := http.StatusServiceUnavailable
		if reason == "user-limit" {
			status = http.StatusTooManyRequests
		}
		w.Header().Set("Retry-After", strconv.Itoa(int((retry+time.Second-1)/time.Second)))
		writeError(w, status, sentences[reason])
		return
	}
	setHead(w.Header())
	w.Write(mustAppendEvent(nil, Event{Retry: retry, Name: "busy", Data: reasonJSON(reason)}))
}

// never refuses for good.
func (h *Handler) never(w http.ResponseWriter, status int, reason, sentence string) {
	h.rejects[reason].Add(1)
	writeError(w, status, sentence)
}

func writeError(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	body := json.NewEncoder(w)
	body.SetEscapeHTML(false) // it is for people: ?user=<id>
	body.Encode(map[string]string{"error": sentence})
}
